"""Commands about released models: countersigned, and predicted with."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from esn_client.cli.arguments import ProtocolFile, SettingsFile
from esn_core.system.command_line import say

ModelFile = Annotated[Path, typer.Argument(help="The model's file, from the centre.")]


def countersign(
    settings: SettingsFile,
    model: ModelFile,
    audit: Annotated[
        Path | None, typer.Option(help="What 'esn-client audit --json' printed of the study's protocol.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The countersignature to write, for the centre.")] = None,
    agree: Annotated[
        bool, typer.Option("--agree", help="Countersign without asking; for whoever has read it before.")
    ] = False,
) -> None:
    """Say what a proposed model publishes and can reveal; with --out, countersign it.

    Without --out nothing is signed.
    """
    from esn_client.approval.countersigning import audit_of, countersigned, in_words, proposal_for
    from esn_client.site.settings import load_site
    from esn_core.errors import ConfigError
    from esn_core.system.files import write_new

    site = load_site(settings)
    proposal = proposal_for(site, model)
    if out is None:
        if agree:
            raise ConfigError("--agree signs nothing without --out, the countersignature to write")
        typer.echo(in_words(proposal))
        return
    # Everything that can be refused is, before anybody is asked to read.
    if proposal.released:
        raise ConfigError(f"{model}: is released already; a proposal is what a site countersigns")
    if audit is None:
        raise ConfigError(
            "a countersignature says that this site attacked the protocol on its own children and found no "
            "fault: name what 'esn-client audit … --json' printed by --audit"
        )
    said = audit_of(audit, proposal, site)
    if out.exists():
        raise ConfigError(f"{out} exists; a countersignature is never overwritten")
    if not agree and not sys.stdin.isatty():
        raise ConfigError("nobody can be asked here; --agree says that this site has read it and agrees")
    typer.echo(in_words(proposal), err=True)
    if not agree and not typer.confirm("Does this site agree that this is published?", err=True):
        raise ConfigError("not countersigned")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_new(out, countersigned(site, proposal, said), mode=0o644)
    typer.echo(str(out))


def predict(
    model: ModelFile,
    subject: Annotated[Path, typer.Argument(help="A BIDS dataset, or one connectome's matrix.")],
    derivatives: Annotated[Path, typer.Option(help="Connectomes of children and controls.")],
    out: Annotated[Path, typer.Option(help="Directory for pages and JSON; nothing in it is replaced.")],
    participant_label: Annotated[
        list[str] | None, typer.Option(help="Whom; may be repeated. Without it, all children with epilepsy.")
    ] = None,
    controls: Annotated[
        Path | None, typer.Option(help="For one matrix: the BIDS dataset with this hospital's controls.")
    ] = None,
    age_years: Annotated[
        float | None,
        typer.Option(min=0, max=120, help="For one matrix; needed where the study released its ages."),
    ] = None,
    pooled_reference: Annotated[
        bool,
        typer.Option(
            "--pooled-reference", help="Judge by the study's pooled controls; the absolute score may be off."
        ),
    ] = False,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="This hospital's: its ledger tells who withdrew consent and, where it took part, its kit "
            "names the centre."
        ),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="Of the model, as its centre published it; without it, the kit's key counts, or a terminal "
            "is asked."
        ),
    ] = None,
) -> None:
    """Predict GASE of children whom the study never saw. Research use only, not a medical device.

    Works offline, at any hospital with three or more own healthy controls of the model's recipe; without
    them by the pooled controls of the study's hospitals, where these pooled them.
    """
    from esn_client.prediction.children import NO_AGES, ages_of
    from esn_client.prediction.command import Wanted, predictions, trusted_model, write_predictions
    from esn_client.prediction.findings import RESEARCH_USE
    from esn_client.prediction.personal_command import predictions_at
    from esn_client.site.centre_kit import centre_key
    from esn_client.site.settings import load_site
    from esn_core.system.command_line import compare_by_telephone

    site = load_site(settings) if settings else None
    vouched = site is not None and fingerprint is None
    found = trusted_model(model, centre=centre_key(site) if site and vouched else None)
    if not vouched:
        compare_by_telephone(f"the model {model}", found.fingerprint, heard=fingerprint)
    wanted = Wanted(subject, derivatives, controls, participant_label or (), age_years, pooled_reference)
    predicted = (
        predictions(found, wanted, site=None)
        if site is None
        else predictions_at(site, found, wanted, say=say)
    )
    files = write_predictions(predicted, found, out)
    for path in files:
        typer.echo(str(path))
    if ages_of(found) is None:
        say(NO_AGES)
    if site is None:
        say("without --settings it is not known who withdrew consent at this hospital")
    typer.echo(RESEARCH_USE, err=True)


def personal_model(
    settings: SettingsFile,
    protocol: ProtocolFile,
    out: Annotated[Path, typer.Option(help="Directory for page and JSON; nothing in it is replaced.")],
) -> None:
    """Fit this hospital's own model of a finished study: what was released, merged with its own children.

    For the hospital's own patients. Nothing of it is sent; nothing is charged.
    """
    from esn_client.prediction.findings import RESEARCH_USE
    from esn_client.prediction.personal_command import personal_findings, write_personal
    from esn_client.prediction.personal_findings import STAYS
    from esn_client.site.settings import load_site
    from esn_core.protocol.protocol import load_protocol

    rules = load_protocol(protocol)
    for path in write_personal(personal_findings(load_site(settings), rules), out, atlas=rules.atlas):
        typer.echo(str(path))
    typer.echo(f"{RESEARCH_USE}\n{STAYS}", err=True)
