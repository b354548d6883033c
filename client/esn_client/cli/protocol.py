"""Commands about protocols: what is asked, agreed to, withdrawn, attacked."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esn_client.cli.arguments import ProtocolFile, SettingsFile
from esn_core.system.command_line import progress_bar, say

if TYPE_CHECKING:
    from esn_client.approval.approvals import Approvals


def review(
    protocol: ProtocolFile,
    settings: Annotated[
        Path | None, typer.Option(help="The site's settings, to compare with its limits and its kit.")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(help="Write documents for officers and committees into this directory.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="For them: what 'esn-client audit --json' printed of the protocol.")
    ] = None,
) -> None:
    """Say in plain words who signed a protocol, what it asks and what it costs each child."""
    from esn_client.approval.documents import read_audit, write_documents
    from esn_client.approval.review import for_site
    from esn_client.approval.review import review as in_words
    from esn_client.site.centre_kit import centre_key
    from esn_client.site.settings import load_site
    from esn_client.status.preflight import ledger_in_words
    from esn_core.protocol.protocol import load_protocol

    found = load_protocol(protocol)
    typer.echo(in_words(found))
    if documents:
        facts = read_audit(audit, found) if audit else {}
        for path in write_documents(found, documents, audit=facts):
            say(str(path))
    if settings:
        site = load_site(settings)
        typer.echo(for_site(found, limits=site.limits, centre_key=centre_key(site)))
        typer.echo(ledger_in_words(site, found))


def approve(settings: SettingsFile, protocol: ProtocolFile) -> None:
    """Approve a signed protocol: from then on the site answers its questions, in one run."""
    typer.echo(_approvals(settings).approve(protocol).protocol.sha256)


def withdraw(
    settings: SettingsFile,
    protocol: Annotated[str, typer.Argument(help="Hash of an approved protocol, 8 digits of it or more.")],
) -> None:
    """Take an approval back: from the next question on, the site refuses the protocol's questions."""
    typer.echo(_approvals(settings).withdraw(protocol))


def audit(
    settings: SettingsFile,
    protocol: ProtocolFile,
    out: Annotated[Path, typer.Option(help="The page to write, HTML.")],
    repeats: Annotated[int, typer.Option(min=20, help="Sums in each attack; more find smaller faults.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures, for machines.")] = False,
) -> None:
    """Attack a protocol's releases on the site's own children, in a rehearsal, against their price."""
    from esn_client.privacy_audit.audit import audit_site
    from esn_client.privacy_audit.page import write_page
    from esn_client.site.settings import load_site
    from esn_core.errors import PrivacyBudgetError
    from esn_core.protocol.protocol import load_protocol

    site, rules = load_site(settings), load_protocol(protocol)
    with progress_bar("auditing") as tell:
        found = audit_site(site, rules, repeats=repeats, progress=tell)
    write_page(out, found)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else str(out))
    if found.faults:
        raise PrivacyBudgetError(f"the audit found a fault; {out} tells more: {'; '.join(found.faults)}")


def _approvals(settings: Path) -> "Approvals":
    """Return what a site approved, and the way to change it."""
    from esn_client.approval.approvals import Approvals
    from esn_client.gate.audit_log import AuditLog
    from esn_client.site.centre_kit import centre_key
    from esn_client.site.settings import load_site

    site = load_site(settings)
    audit = AuditLog(site.audit_path, site=site.site)
    return Approvals(site, centre_key=centre_key(site), audit=audit)
