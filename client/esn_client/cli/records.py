"""Commands that read a site's records: its ledger and its log of messages."""

import json
from typing import Annotated

import typer
from rich.console import Console

from esn_client.cli.arguments import SettingsFile


def show(
    settings: SettingsFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
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


def verify(settings: SettingsFile) -> None:
    """Walk the ledger's chain and signatures; compare its end with the audit log. A change is an error."""
    from esn_client.gate.audit_log import AuditLog, check_against_audit_log
    from esn_client.site.settings import load_site
    from esn_client.site.state import open_ledger

    site = load_site(settings)
    with open_ledger(site) as ledger:
        check_against_audit_log(ledger, AuditLog(site.audit_path, site=site.site))
        typer.echo(f"{ledger.verify()} entries, head {ledger.mark.head}")


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
