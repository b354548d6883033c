"""Commands that read a site's records: its ledger and its log of messages."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from esn_client.cli.arguments import SettingsFile
from esn_core.system.command_line import AsJson, Yes, say


def show(
    settings: SettingsFile,
    as_json: AsJson = False,
) -> None:
    """Show every release, and what the patients have spent."""
    from esn_client.gate.ledger_report import LedgerReport
    from esn_client.site.settings import load_site
    from esn_client.site.state import open_ledger

    site = load_site(settings)
    with open_ledger(site) as ledger:
        found = LedgerReport(ledger, site=site.site, limits=site.limits)
    if as_json:
        typer.echo(json.dumps(found.facts, indent=2))
        return
    console = Console(soft_wrap=True)
    console.print(found.table)
    console.print(found.in_words)


def verify(settings: SettingsFile, as_json: AsJson = False) -> None:
    """Walk the ledger's chain and signatures; compare its end with the audit log. A change is an error."""
    from esn_client.gate.audit_log import AuditLog, check_against_audit_log
    from esn_client.site.settings import load_site
    from esn_client.site.state import open_ledger

    site = load_site(settings)
    with open_ledger(site) as ledger:
        check_against_audit_log(ledger, AuditLog(site.audit_path, site=site.site))
        entries, head = ledger.verify(), ledger.mark.head
    typer.echo(
        json.dumps({"entries": entries, "head": head}) if as_json else f"{entries} entries, head {head}"
    )


def export(settings: SettingsFile) -> None:
    """Print every entry as a line of JSON, with its signature: all that an auditor needs."""
    from esn_client.site.settings import load_site
    from esn_client.site.state import open_ledger

    with open_ledger(load_site(settings)) as ledger:
        for line in ledger.export():
            typer.echo(line)


def export_audit_log(settings: SettingsFile) -> None:
    """Print the log of all messages, signed, for 'esn-server audit verify'; no patient is in it."""
    from esn_client.gate.audit_log import AuditLog
    from esn_client.site.keys import load_identity_key
    from esn_client.site.settings import load_site

    site = load_site(settings)
    key = load_identity_key(site.identity_key_path)
    for line in AuditLog(site.audit_path, site=site.site).export(key):
        typer.echo(line)


def rebuild(
    settings: SettingsFile,
    people: Annotated[
        Path | None,
        typer.Option(help="Labels of all who can have been in what was lost, one a line; else everybody."),
    ] = None,
    centre_log: Annotated[
        Path | None, typer.Option(help="The centre's messages.jsonl, where the audit log is lost as well.")
    ] = None,
    protocol: Annotated[
        list[Path] | None, typer.Option(help="A protocol that the site has not kept; may be repeated.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Count again what the logs know of and the ledger lacks, after it was lost or came from a backup."""
    from esn_client.site.lost_ledger import find_lost, open_to_rebuild, read_labels
    from esn_client.site.lost_ledger import rebuild as count_again
    from esn_client.site.settings import load_site

    site = load_site(settings)
    labels = None if people is None else read_labels(people)
    with open_to_rebuild(site) as ledger:
        lost = find_lost(site, ledger, centre_log=centre_log, protocols=protocol or ())
        mark = count_again(site, lost, ledger, people=labels) if yes and lost.anything else ledger.mark
        if as_json:
            facts = {"lacks": lost.facts, "counted": yes and lost.anything, **mark.model_dump()}
            typer.echo(json.dumps(facts, indent=2))
            return
        if not lost.anything:
            typer.echo("the ledger lacks nothing that the logs know of")
            return
        typer.echo(lost.in_words)
        if not yes:
            whose = "everybody" if labels is None else f"{len(labels)} people"
            say(
                f"With --yes, this is counted for {whose}, "
                "and these protocols are answered no more. Look for a newer copy of the ledger before."
            )
            return
    typer.echo(f"{mark.entries} entries, head {mark.head}")
    say("Read this to the centre, for 'esn-server accept-ledger'.")
