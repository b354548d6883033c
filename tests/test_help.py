"""Tests of both programs' help: it is shown as it was written."""

import pytest
import typer
from rich.text import Text

from esn_client.cli.main import app as client
from esn_server.cli.main import app as server


def texts(command, path):
    """Every help text of a command and of those below it, with where it stands."""
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, below in getattr(command, "commands", {}).items():
        yield from texts(below, f"{path} {name}")


@pytest.mark.parametrize("app", [client, server])
def test_no_word_of_a_help_text_is_taken_for_a_style(app):
    """In square brackets rich looks for styles, and swallows what it finds, unless a backslash is before."""
    found = dict(texts(typer.main.get_command(app), "program"))
    assert len(found) > 40
    swallowed = {
        path: text for path, text in found.items() if Text.from_markup(text).plain != text.replace("\\[", "[")
    }
    assert swallowed == {}


def test_the_table_of_the_recipe_is_named():
    found = dict(texts(typer.main.get_command(client), "program"))
    assert "its table [imaging] is" in Text.from_markup(found["program prepare protocol"]).plain
