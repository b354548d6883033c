"""Tests of both programs' help: it is shown as it was written."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from esn_client.cli import main as client_main
from esn_client.cli.main import app as client
from esn_core import errors
from esn_server.cli import main as server_main
from esn_server.cli.main import app as server

ROOT = Path(__file__).parents[1]


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


def commands(command, path):
    """Every command that does something, with where it stands."""
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, found in below.items():
        yield from commands(found, f"{path} {name}")


def parse(top, words):
    """Let a command line be parsed as far as its last command; return the command's path."""
    context, command = top.make_context(words[0], list(words[1:])), top
    while below := getattr(command, "commands", {}):
        name, *left = [*context._protected_args, *context.args]
        assert name in below, f"{context.command_path} has no command {name}"
        command = below[name]
        context = command.make_context(name, left, parent=context)
    return context.command_path


@pytest.mark.parametrize(("app", "program"), [(client, "esn-client"), (server, "esn-server")])
def test_every_command_has_an_example_that_it_would_take(app, program):
    """Words of the example are parsed by the command itself: each option exists, and nothing needed lacks."""
    top = typer.main.get_command(app)
    for path, command in commands(top, program):
        assert command.epilog, f"{path}: no example in cli/examples.py"
        assert parse(top, shlex.split(command.epilog.removeprefix("Example: "))) == path


@pytest.mark.parametrize(("app", "program"), [(client, "esn-client"), (server, "esn-server")])
def test_names_of_options_are_whole_in_a_terminal_of_80_columns(app, program):
    for path, command in commands(typer.main.get_command(app), program):
        words = [*path.split()[1:], "--help"]
        shown = CliRunner().invoke(app, words, env={"COLUMNS": "80"}).stdout
        assert all(len(line) <= 80 for line in shown.splitlines())
        assert re.findall(r"\S*[\w-]…", shown) == [], path  # what rich has cut short
        names = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {name for name in names if name[:2] == "--"} <= set(re.findall(r"--[\w-]+", shown)), path


@pytest.mark.parametrize(("app", "program"), [(client, "esn-client"), (server, "esn-server")])
def test_the_help_of_positional_arguments_is_shown(app, program):
    for path, command in commands(typer.main.get_command(app), program):
        shown = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "200"}).stdout
        for argument in (p for p in command.params if isinstance(p, click.Argument)):
            assert argument.help, f"{path}: {argument.name}"
            assert Text.from_markup(argument.help).plain in shown, f"{path}: {argument.name}"


def in_blocks(text):
    """Every command of ours in the code blocks of a document, a line each."""
    for block in re.findall(r"^ *```\w+\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            words = line.split("#")[0].replace("…", "").strip()
            found = re.match(r"(?:env -i .*?)?[\w./]*(esn-(?:client|server) [^|>&;]*)", words)
            if found and " ... " not in words:  # which stands for the rest of a command that was shown before
                yield found[1]


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_every_command_in_a_document_is_one_that_there_is(path):
    tops = {
        name: typer.main.get_command(app) for name, app in (("esn-client", client), ("esn-server", server))
    }
    for line in in_blocks(path.read_text(encoding="utf-8")):
        words = shlex.split(line)
        try:
            parse(tops[words[0]], words)
        except SystemExit:  # --version, --help
            continue
        except click.ClickException as error:
            pytest.fail(f"{path.name}: {line}: {error.format_message()}")


def test_the_table_of_exit_statuses_is_that_of_the_code():
    lines = (Path(__file__).parents[1] / "docs" / "exit-statuses.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:3] in ("| 1", "| 2")]
    listed = {int(row[0]): tuple(re.findall(r"`(\w+)`", row[1])) for row in rows}
    known = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.EsnError):
            known.setdefault(kind.exit_status, []).append(name)
    assert listed == {status: tuple(names) for status, names in known.items()} | {2: (), 130: ()}
    in_words = dict(re.findall(r"- (\w+) \((\d+)\)", errors.__doc__.replace("* ", "- ")))
    assert in_words == {name: str(status) for status, names in known.items() for name in names}


def test_quiet_leaves_results_and_errors(run_command, tmp_path):
    """The words for people go; what a command found, and why it failed, stay."""
    loud, quiet = (("init", tmp_path / name, "--name", "localhost") for name in ("loud", "quiet"))
    assert "The centre signs with" in run_command("esn-server", server_main.main, *loud)[2]
    assert run_command("esn-server", server_main.main, "--quiet", *quiet) == (
        0,
        f"{tmp_path / 'quiet'}\n",
        "",
    )
    status, out, err = run_command("esn-server", server_main.main, "--quiet", *quiet)
    assert (status, out, err.count("\n")) == (10, "", 1)


@pytest.mark.parametrize(
    ("main", "program"), [(client_main.main, "esn-client"), (server_main.main, "esn-server")]
)
def test_the_version_names_libraries(run_command, main, program):
    status, out, _ = run_command(program, main, "--version")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"esn-federated", "python", "numpy", "torch"}
