"""The command line of a hospital."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from esn_core.command import progress_bar, run
from esn_core.errors import ConfigError, SubjectsFailedError

if TYPE_CHECKING:
    from esn_client.approvals import Approvals
    from esn_client.config import SiteSettings
    from esn_client.ledger import Ledger

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One hospital of an esn-federated study. Research software, not a medical device.",
)
ledger_app = typer.Typer(no_args_is_help=True, help="Read the privacy ledger.")
app.add_typer(ledger_app, name="ledger")
audit_log_app = typer.Typer(no_args_is_help=True, help="The log of every message that came or left.")
app.add_typer(audit_log_app, name="audit-log")

SettingsFile = Annotated[Path, typer.Argument(help="The site's settings, such as site.toml.")]
ProtocolFile = Annotated[Path, typer.Argument(help="The study's protocol.")]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where settings and state are written.")],
    site: Annotated[str, typer.Option(help="The site's name in the roster.")],
    epsilon_cap: Annotated[float, typer.Option(help="Largest epsilon of one patient, over all studies.")],
    delta: Annotated[float, typer.Option(help="Delta at which the cap is read.")],
    dataset: Annotated[Path, typer.Option(help="BIDS dataset.")],
    derivatives: Annotated[Path, typer.Option(help="Where 'prepare' writes.")],
    trust: Annotated[
        Literal["secure-sum", "local"],
        typer.Option(help="local: this site adds all of the noise to its own sums, whatever others do."),
    ] = "secure-sum",
    colluding_sites: Annotated[
        int, typer.Option(min=0, help="Other sites that may side with the centre without harm.")
    ] = 1,
    exact_sums: Annotated[bool, typer.Option(help="Consent to releases without noise.")] = False,
) -> None:
    """Write the site's settings, its keys and enrolment request, and an empty ledger."""
    from esn_client.config import load_site
    from esn_client.state import create_state

    path = directory / "site.toml"
    if path.exists():
        raise ConfigError(f"{path} exists; a site is initialised once")
    template = (files("esn_client") / "site.toml.template").read_text(encoding="utf-8")
    values = {
        "site": site,
        "dataset": str(dataset.resolve()),
        "derivatives": str(derivatives.resolve()),
        "trust": trust,
    }
    text = template.format(
        **{name: json.dumps(value, ensure_ascii=False) for name, value in values.items()},
        epsilon_cap=epsilon_cap,
        delta=delta,
        colluding_sites=colluding_sites,
        exact_sums=str(exact_sums).lower(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        settings = load_site(path)
        create_state(settings)
    except BaseException:
        path.unlink()
        raise
    typer.echo(str(settings.enrolment_path))
    _say_request(settings)


@app.command()
def kit(
    settings: SettingsFile,
    kit_file: Annotated[Path, typer.Argument(help="The kit that the centre sent back.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="As the centre read it out; without it, a terminal is asked.")
    ] = None,
    replace: Annotated[
        bool, typer.Option(help="Accept another signing key or authority than the one before.")
    ] = False,
) -> None:
    """Take in the centre's kit: from then on, only that centre is connected to and believed."""
    from esn_client.config import load_site
    from esn_client.kit import read_kit, take_in
    from esn_core.command import compare_by_telephone

    site, found = load_site(settings), read_kit(kit_file)
    compare_by_telephone(f"the kit {kit_file}", found.fingerprint, heard=fingerprint)
    take_in(site, found, replace=replace)
    typer.echo(found.address)


@app.command()
def rotate(settings: SettingsFile) -> None:
    """Make new node and mask keys, and a request for the centre to exchange them; the ledger's key stays."""
    from esn_client.config import load_site
    from esn_client.state import rotate as make_new_keys

    site = load_site(settings)
    make_new_keys(site)
    typer.echo(str(site.enrolment_path))
    _say_request(site)


@app.command()
def simulate(
    directory: Annotated[Path, typer.Argument(help="The BIDS dataset to write.")],
    site: Annotated[
        str, typer.Option(help="north, south, west, east or coast; any name with --connectomes alone.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal datasets.")],
    connectomes: Annotated[
        Path | None,
        typer.Option(
            help="Write derivatives there and no scans, on desikan-killiany-83; with --scans on phantom-28."
        ),
    ] = None,
    scans: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --connectomes: so many children have raw scans, to be prepared, instead."
        ),
    ] = None,
    world: Annotated[
        str,
        typer.Option(
            help="With --connectomes: clinical, weak, non-additive or epilepsy (published regions)."
        ),
    ] = "clinical",
    children: Annotated[int, typer.Option(min=1, help="Children with drug-resistant epilepsy.")] = 24,
    controls: Annotated[int, typer.Option(min=0, help="Healthy controls.")] = 8,
    truth: Annotated[Path | None, typer.Option(help="Write the hidden truth here, for tests only.")] = None,
    n_procs: Annotated[int, typer.Option(min=1, help="Subjects at a time.")] = 1,
) -> None:
    """Write a simulated hospital, raw diffusion MRI or connectomes or both, of children who do not exist."""
    from esn_client.imaging.simulated_connectomes import write_connectomes, write_partly_scanned
    from esn_client.imaging.simulated_site import write_site

    if connectomes is None and scans is not None:
        raise ConfigError("--scans is for --connectomes; without it every child has scans")
    if world != "clinical" and (connectomes is None or scans is not None):
        raise ConfigError("--world is for --connectomes; scans are simulated of one kind of world alone")
    if connectomes is not None and scans is not None:
        write_partly_scanned(
            directory,
            connectomes,
            site=site,
            seed=seed,
            children=children,
            controls=controls,
            scans=scans,
            truth=truth,
            n_procs=n_procs,
        )
        typer.echo(str(directory))
        return
    if connectomes is not None:
        write_connectomes(
            directory,
            connectomes,
            site=site,
            seed=seed,
            children=children,
            controls=controls,
            truth=truth,
            world=world,
        )
        typer.echo(str(directory))
        return
    write_site(
        directory, site=site, seed=seed, children=children, controls=controls, truth=truth, n_procs=n_procs
    )
    typer.echo(str(directory))


@app.command()
def prepare(
    bids_dir: Annotated[Path, typer.Argument(help="The BIDS dataset with the scans.")],
    output_dir: Annotated[Path, typer.Argument(help="The derivative dataset to write.")],
    analysis_level: Annotated[
        Literal["participant", "group"],
        typer.Argument(help="participant: make connectomes; group: judge all that are made."),
    ],
    protocol: Annotated[Path, typer.Option(help="The study's protocol: its table [imaging] is the recipe.")],
    participant_label: Annotated[
        list[str] | None, typer.Option(help="Only this participant, with or without 'sub-'; may be repeated.")
    ] = None,
    session_label: Annotated[
        list[str] | None, typer.Option(help="Only this session, with or without 'ses-'; may be repeated.")
    ] = None,
    n_procs: Annotated[int, typer.Option(min=1, help="Subjects at a time.")] = 1,
    mem_gb: Annotated[float | None, typer.Option(min=0.5, help="Memory of all subjects at a time.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where streamlines are followed; a card is taken only when it is asked for."),
    ] = "cpu",
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Keep every stage here; without it, those of unfinished subjects stay."),
    ] = None,
    skip_pages: Annotated[bool, typer.Option(help="Make no page on each subject's quality.")] = False,
    tractograms: Annotated[bool, typer.Option(help="Keep all streamlines too, as .trx.")] = False,
    exclude_failed: Annotated[
        bool, typer.Option(help="group: studies leave out the visits whose numbers fail.")
    ] = False,
) -> None:
    """Make each subject's connectome from its raw diffusion MRI, and judge it."""
    from esn_client.imaging.pipeline import prepare as prepare_dataset
    from esn_client.imaging.quality.site import site_files, write_site
    from esn_core.protocol import load_protocol

    recipe = load_protocol(protocol).imaging
    if analysis_level == "group":
        rows = write_site(output_dir, recipe, exclude_failed=exclude_failed)
        for path in site_files(output_dir, recipe):
            typer.echo(str(path))
        failed, left_out = sum(r.verdict == "fail" for r in rows), sum(r.excluded for r in rows)
        typer.echo(f"{len(rows)} visits: {failed} fail, studies leave {left_out} out", err=True)
        return
    if exclude_failed:
        raise ConfigError("--exclude-failed belongs to the group level, which judges all visits")
    with progress_bar(f"preparing {bids_dir.name}") as tell:
        failures = prepare_dataset(
            bids_dir,
            output_dir,
            recipe,
            participants=participant_label,
            sessions=session_label,
            n_procs=n_procs,
            mem_gb=mem_gb,
            device=device,
            work_dir=work_dir,
            pages=not skip_pages,
            tractograms=tractograms,
            progress=tell,
        )
    if failures:
        for failure in failures:
            typer.echo(f"not prepared: {failure.visit}: {failure.error_class}: {failure.message}", err=True)
        raise SubjectsFailedError(f"{len(failures)} visits could not be prepared; the others are done")
    typer.echo(str(output_dir))


@app.command()
def review(
    protocol: ProtocolFile,
    settings: Annotated[
        Path | None, typer.Option(help="The site's settings, to compare with its limits and its kit.")
    ] = None,
) -> None:
    """Say in plain words who signed a protocol, what it asks and what it costs each child."""
    from esn_client.config import load_site
    from esn_client.kit import centre_key
    from esn_client.review import for_site
    from esn_client.review import review as in_words
    from esn_core.protocol import load_protocol

    found = load_protocol(protocol)
    typer.echo(in_words(found))
    if settings:
        site = load_site(settings)
        typer.echo(for_site(found, limits=site.limits, centre_key=centre_key(site)))


@app.command()
def approve(settings: SettingsFile, protocol: ProtocolFile) -> None:
    """Approve a signed protocol: from then on the site answers its questions, in one run."""
    typer.echo(_approvals(settings).approve(protocol).sha256)


@app.command()
def withdraw(
    settings: SettingsFile,
    protocol: Annotated[str, typer.Argument(help="Hash of an approved protocol, 8 digits of it or more.")],
) -> None:
    """Take an approval back: from the next question on, the site refuses the protocol's questions."""
    typer.echo(_approvals(settings).withdraw(protocol))


@app.command()
def audit(
    settings: SettingsFile,
    protocol: ProtocolFile,
    out: Annotated[Path, typer.Option(help="The page to write, HTML.")],
    repeats: Annotated[
        int, typer.Option(min=20, help="Sums in each attack; more find smaller faults.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures, for machines.")] = False,
) -> None:
    """Attack a protocol's releases on the site's own children, in a rehearsal, against their price."""
    from esn_client.audit_page import write_page
    from esn_client.config import load_site
    from esn_client.privacy_audit import audit_site
    from esn_core.errors import PrivacyBudgetError
    from esn_core.protocol import load_protocol

    site, rules = load_site(settings), load_protocol(protocol)
    with progress_bar("auditing") as tell:
        found = audit_site(site, rules, repeats=repeats, progress=tell)
    write_page(out, found)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else str(out))
    if found.faults:
        raise PrivacyBudgetError(f"the audit found a fault; {out} tells more: {'; '.join(found.faults)}")


@app.command()
def check(
    settings: SettingsFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at everything that must be right before joining; each point is one line, with its cure."""
    from dataclasses import asdict

    from esn_client.preflight import preflight

    found = preflight(settings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            typer.echo(f"{finding.verdict:<4} {finding.point:<13} {' '.join(finding.text.split())}")
    raise typer.Exit(next((f.exit_status for f in found if f.verdict == "FAIL"), 0))


@app.command()
def status(
    settings: SettingsFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show how the site stands: the centre, the approvals, the last question, the budget."""
    from esn_client.config import load_site
    from esn_client.site_status import status_of

    found = status_of(load_site(settings))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    table = Table("", "", show_header=False, title=f"Site {found.site}")
    for name, words in found.words().items():
        table.add_row(name, words)
    Console(soft_wrap=True).print(table)


@app.command()
def join(settings: SettingsFile) -> None:
    """Answer the centre's questions until stopped; a centre that is away is waited for."""
    import sys

    from esn_client.approvals import Approvals
    from esn_client.audit import AuditLog
    from esn_client.config import load_site
    from esn_client.executor import Executor
    from esn_client.guard import GuardSettings
    from esn_client.guard import join as answer_questions
    from esn_client.kit import centre_key, load_kit
    from esn_core.certificates import expiry_warning

    site = load_site(settings)
    with Executor(
        [sys.executable, "-m", "esn_client.hospital_process", str(settings)],
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


@ledger_app.command()
def show(
    settings: SettingsFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show every release, and what the patients have spent."""
    from esn_client.config import load_site

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


@ledger_app.command()
def verify(settings: SettingsFile) -> None:
    """Walk the ledger's chain and signatures; compare its end with the audit log. A change is an error."""
    from esn_client.audit import AuditLog
    from esn_client.config import load_site
    from esn_client.site import check_against_audit

    site = load_site(settings)
    with _ledger(site) as ledger:
        check_against_audit(ledger, AuditLog(site.audit_path, site=site.site))
        typer.echo(f"{ledger.verify()} entries, head {ledger.mark.head}")


@ledger_app.command()
def export(settings: SettingsFile) -> None:
    """Print every entry as a line of JSON, with its signature: all that an auditor needs."""
    from esn_client.config import load_site

    with _ledger(load_site(settings)) as ledger:
        for line in ledger.export():
            typer.echo(line)


def _say_request(site: "SiteSettings") -> None:
    """Say what becomes of an enrolment request."""
    from esn_client.state import own_entry

    typer.echo(
        "Send this request to the centre; there is no secret in it. When they call, read out:\n"
        f"  {own_entry(site).fingerprint}\n"
        "Everything else in the state directory stays here.",
        err=True,
    )


def _approvals(settings: Path) -> "Approvals":
    """Return what a site approved, and the way to change it."""
    from esn_client.approvals import Approvals
    from esn_client.audit import AuditLog
    from esn_client.config import load_site
    from esn_client.kit import centre_key

    site = load_site(settings)
    audit = AuditLog(site.audit_path, site=site.site)
    return Approvals(site, centre_key=centre_key(site), audit=audit)


@audit_log_app.command("export")
def export_audit_log(settings: SettingsFile) -> None:
    """Print the log of all messages, signed, for 'esn-server audit verify'; no patient is in it."""
    from esn_client.audit import AuditLog
    from esn_client.config import load_site
    from esn_client.identity import load_identity_key

    site = load_site(settings)
    key = load_identity_key(site.identity_key_path)
    for line in AuditLog(site.audit_path, site=site.site).export(key):
        typer.echo(line)


@contextmanager
def _ledger(site: "SiteSettings") -> "Iterator[Ledger]":
    """Open a site's ledger to read it."""
    from esn_client.identity import load_identity_key
    from esn_client.ledger import Ledger

    if not site.ledger_path.exists():
        raise ConfigError(f"{site.ledger_path}: there is no ledger; run 'esn-client init' first")
    with Ledger(site.ledger_path, load_identity_key(site.identity_key_path).public_key()) as ledger:
        yield ledger


def main() -> NoReturn:
    """Run the command line."""
    run(app, program="esn-client")


if __name__ == "__main__":
    main()
