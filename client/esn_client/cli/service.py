"""Commands of a site's days: checked, shown, joined."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from esn_client.cli.arguments import SettingsFile


def check(
    settings: SettingsFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
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
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
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
    import sys

    from esn_client.approval.approvals import Approvals
    from esn_client.gate.audit_log import AuditLog
    from esn_client.link.guard import GuardSettings
    from esn_client.link.guard import join as answer_questions
    from esn_client.site.centre_kit import centre_key, load_kit
    from esn_client.site.settings import load_site
    from esn_client.worker.executor import Executor
    from esn_core.identity.certificates import expiry_warning

    site = load_site(settings)
    with Executor(
        [sys.executable, "-m", "esn_client.worker.process", str(settings)],
        log_file=site.state / "logs" / "answers.log",
        question_limit_s=site.compute.question_limit_s,
        memory_limit_gb=site.compute.memory_limit_gb,
    ) as executor:
        audit = AuditLog(site.audit_path, site=site.site)
        approvals = Approvals(site, centre_key=centre_key(site), audit=audit)
        warning = expiry_warning(site.ca_certificate_path, cure="ask the centre for a new kit")
        if warning:
            typer.echo(f"esn-client: {warning}", err=True)
        guard = GuardSettings(
            server_address=load_kit(site).address,
            ca_certificate=site.ca_certificate_path,
            node_key=site.node_key_path,
            state_directory=site.state,
            allowed_bundles=approvals.bundles,
            audit=lambda line: audit.write("bundle-refused", reason=line),
            connect_timeout_s=site.centre.connect_timeout_s,
        )
        answer_questions(guard, executor.ask)
