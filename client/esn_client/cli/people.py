"""Commands about single participants."""

import json
from typing import Annotated

import typer
from rich.console import Console

from esn_client.cli.arguments import SettingsFile
from esn_core.system.command_line import AsJson, Yes


def withdraw_child(
    settings: SettingsFile,
    participant: Annotated[str, typer.Argument(help="Label, with or without 'sub-': a child, or a control.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take somebody out of all that is still to come, and say what was released and stays so."""
    from esn_client.approval.approvals import Approvals
    from esn_client.approval.consent_withdrawn import withdraw_consent
    from esn_client.gate.audit_log import AuditLog
    from esn_client.site.centre_kit import centre_key
    from esn_client.site.settings import load_site

    site = load_site(settings)
    audit = AuditLog(site.audit_path, site=site.site)
    approvals = Approvals(site, centre_key=centre_key(site), audit=audit)
    label = f"sub-{participant.removeprefix('sub-')}"
    found = withdraw_consent(site, label, approvals=approvals, yes=yes)
    if as_json:
        typer.echo(json.dumps(found.facts, indent=2))
        return
    console = Console(soft_wrap=True)
    console.print(found.table)
    console.print(found.in_words)
