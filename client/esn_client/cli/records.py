"""Commands that read a site's records: its ledger and its log of messages."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from esn_client.cli.arguments import SettingsFile
from esn_core.errors import ConfigError

if TYPE_CHECKING:
    from esn_client.gate.ledger import Ledger
    from esn_client.site.settings import SiteSettings


def show(
    settings: SettingsFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show every release, and what the patients have spent."""
    from esn_client.site.settings import load_site

    site = load_site(settings)
    with _ledger(site) as ledger:
        entries, spent = ledger.entries(), ledger.spent()
    # Most patients have the same history. Infinity is no JSON: an exact release has no epsilon.
    worst = max((s.epsilon(site.limits.delta) for s in set(spent.values())), default=0.0)
    if as_json:
        facts = {
            "site": site.site,
            "delta": site.limits.delta,
            "epsilon_cap": site.limits.epsilon_cap,
            "patients": len(spent),
            "largest_epsilon": worst if math.isfinite(worst) else None,
            "entries": [
                {
                    "sequence": e.sequence,
                    "at": e.at,
                    "question": e.charge.question,
                    "release": e.charge.release,
                    "noise_multiplier": e.charge.noise_multiplier,
                    "patients": len(e.charge.patients),
                    "hash": e.hash,
                }
                for e in entries
            ],
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table("#", "at", "question", "release", "noise", "patients", title=f"Ledger of {site.site}")
    table.columns[2].overflow = "fold"
    for e in entries:
        table.add_row(
            str(e.sequence),
            e.at.partition("+")[0],
            e.charge.question,
            e.charge.release,
            f"{e.charge.noise_multiplier:.3f}" if e.charge.noise_multiplier else "exact",
            str(len(e.charge.patients)),
        )
    console = Console(soft_wrap=True)
    console.print(table)
    said = f"{worst:.2f}" if math.isfinite(worst) else "unbounded (an exact release)"
    console.print(
        f"{len(spent)} patients; largest epsilon of one patient: {said} at delta {site.limits.delta:g}; "
        f"the site's cap is {site.limits.epsilon_cap:g}"
    )


def verify(settings: SettingsFile) -> None:
    """Walk the ledger's chain and signatures; compare its end with the audit log. A change is an error."""
    from esn_client.gate.audit_log import AuditLog, check_against_audit_log
    from esn_client.site.settings import load_site

    site = load_site(settings)
    with _ledger(site) as ledger:
        check_against_audit_log(ledger, AuditLog(site.audit_path, site=site.site))
        typer.echo(f"{ledger.verify()} entries, head {ledger.mark.head}")


def export(settings: SettingsFile) -> None:
    """Print every entry as a line of JSON, with its signature: all that an auditor needs."""
    from esn_client.site.settings import load_site

    with _ledger(load_site(settings)) as ledger:
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


@contextmanager
def _ledger(site: "SiteSettings") -> "Iterator[Ledger]":
    """Open a site's ledger to read it."""
    from esn_client.gate.ledger import Ledger
    from esn_client.site.keys import load_identity_key

    if not site.ledger_path.exists():
        raise ConfigError(f"{site.ledger_path}: there is no ledger; run 'esn-client init' first")
    with Ledger(site.ledger_path, load_identity_key(site.identity_key_path).public_key()) as ledger:
        yield ledger
