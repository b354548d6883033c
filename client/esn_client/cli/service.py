"""Commands of a site's days: checked, shown, joined."""

import json

import typer
from rich.console import Console
from rich.table import Table

from esn_client.cli.arguments import SettingsFile
from esn_core.system.command_line import AsJson, is_quiet


def check(
    settings: SettingsFile,
    as_json: AsJson = False,
) -> None:
    """Look at everything that must be right before joining; each point is one line, with its cure."""
    from dataclasses import asdict

    from esn_client.status.preflight import preflight

    found = preflight(settings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            typer.echo(f"{finding.verdict:<4} {finding.point:<13} {' '.join(finding.text.split())}")
    raise typer.Exit(next((f.exit_status for f in found if f.verdict == "FAIL"), 0))


def status(
    settings: SettingsFile,
    as_json: AsJson = False,
) -> None:
    """Show how the site stands: the centre, the approvals, the last question, the budget."""
    from esn_client.site.settings import load_site
    from esn_client.status.status import status_of

    found = status_of(load_site(settings))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    table = Table("", "", show_header=False, title=f"Site {found.site}")
    for name, words in found.words().items():
        table.add_row(name, words)
    Console(soft_wrap=True).print(table)


def join(settings: SettingsFile) -> None:
    """Answer the centre's questions until stopped; a centre that is away is waited for."""
    from esn_client.worker.join import join as join_centre

    quiet = is_quiet()  # what is answered is told by another thread
    join_centre(settings, warn=lambda words: None if quiet else typer.echo(f"esn-client: {words}", err=True))
