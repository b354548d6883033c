"""Commands about protocols: drafted, checked, signed, priced."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esn_core.errors import ConfigError
from esn_core.protocol.public_inputs import WEIGHTS
from esn_core.system.command_line import AsJson, say
from esn_server.cli.arguments import Centre

if TYPE_CHECKING:
    from esn_core.severity_network.candidate_list import CandidateList


def new(
    directory: Centre,
    study: Annotated[str, typer.Option(help="Name of the study.")],
    epsilon: Annotated[float, typer.Option(help="Budget of one child.")],
    delta: Annotated[float, typer.Option(help="Below 1 over the pooled number of children.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    split_salt: Annotated[str, typer.Option(help="Decides, with a child's label, who is held out.")],
    simulated: Annotated[bool, typer.Option(help="Whether every child is simulated.")],
    noise: Annotated[
        Literal["gaussian", "none"],
        typer.Option(metavar="KIND", help="gaussian, or none: exact sums, for simulated children."),
    ] = "gaussian",
    trust: Annotated[
        Literal["secure-sum", "local"],
        typer.Option(metavar="KIND", help="secure-sum, or local: every site adds the whole noise."),
    ] = "secure-sum",
    colluding_sites: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Sites that may side with the centre without harm to the others."
        ),
    ] = 1,
    atlas: Annotated[
        str,
        typer.Option(
            help="phantom-28 for rehearsals; desikan-killiany-83, aal-116 or one of --inputs for real scans."
        ),
    ] = "phantom-28",
    inputs: Annotated[
        Path | None,
        typer.Option(help="TOML that describes public inputs of your own, whose files lie beside it."),
    ] = None,
    initial_weights: Annotated[
        str, typer.Option(help="Pre-trained weights: those that ship, or of --inputs.")
    ] = WEIGHTS,
    scan: Annotated[
        str, typer.Option(help="What is scanned: usual, few-directions, low-b or another name in scans.toml.")
    ] = "usual",
    recipe_of: Annotated[
        Path | None,
        typer.Option(
            help="A protocol, such as that of the votes, whose recipe and atlas are taken; instead of "
            "--atlas and --scan."
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Edges that may belong to the network, as votes leave them; or template: those of the "
            "simulated template, for simulated children (a file of that name is ./template).",
        ),
    ] = None,
    votes: Annotated[
        bool, typer.Option("--votes", help="Draft the step before: the sites vote on candidates.")
    ] = False,
    pool_controls: Annotated[
        bool, typer.Option("--pool-controls", help="With --votes: a reference for sites without controls.")
    ] = False,
    without_controls: Annotated[
        list[str] | None,
        typer.Option(help="A site with fewer than 3 controls; judged by the pooled reference."),
    ] = None,
    valid_days: Annotated[
        int, typer.Option(metavar="N", min=1, help="Days until the protocol expires.")
    ] = 365,
    held_out_fraction: Annotated[
        float,
        typer.Option(help="Share of the children that only judge the prediction; training has the rest."),
    ] = 0.333,
    training_rounds: Annotated[int, typer.Option(metavar="N", min=0, help="Steps of DP-SGD.")] = 8,
    cohort_summary: Annotated[
        bool,
        typer.Option("--cohort-summary", help="Ask how children and controls match, and who was left out."),
    ] = False,
    cross_site: Annotated[bool, typer.Option("--cross-site", help="Leave one site out, in turn.")] = False,
    folds: Annotated[int, typer.Option(help="Parts of a cross-validation; 0: none.")] = 0,
    random_scores: Annotated[
        int, typer.Option(metavar="N", min=0, help="Runs with scores drawn at random.")
    ] = 0,
    subgroups: Annotated[
        bool, typer.Option("--subgroups", help="Ask how the prediction does by sex and by age.")
    ] = False,
    explanation: Annotated[
        bool, typer.Option("--explanation", help="Ask what each edge contributes.")
    ] = False,
    network: Annotated[
        bool,
        typer.Option("--network", help="Ask for the exact network and its stability; needs --exact network."),
    ] = False,
    neurocognition: Annotated[
        bool,
        typer.Option(
            "--neurocognition",
            help="Ask whether the prediction explains impairment; edit the models afterwards.",
        ),
    ] = False,
    exact: Annotated[
        list[str] | None,
        typer.Option(
            help="cohort or network without noise, so without epsilon; of simulated children also "
            "explanation or neurocognition."
        ),
    ] = None,
    deadline_s: Annotated[float, typer.Option(help="Longest that one question may take.")] = 600.0,
) -> None:
    """Draft a protocol with all enrolled sites on its roster; edit it, then sign it."""
    from esn_core.protocol.protocol import load_protocol, parse_protocol
    from esn_core.protocol.public_inputs import read_own_inputs
    from esn_core.protocol.study_package import write_inputs
    from esn_server.enrolment.sites import enrolled
    from esn_server.protocol.drafting import analyses_of, draft

    if out.exists():
        raise ConfigError(f"{out} exists; a protocol is never overwritten")
    own, given = read_own_inputs(inputs) if inputs else ((), {})
    text = draft(
        study=study,
        roster=enrolled(directory),
        simulated=simulated,
        trust=trust,
        colluding_sites=colluding_sites,
        noise=noise,
        epsilon=epsilon,
        delta=delta,
        split_salt=split_salt,
        held_out_fraction=held_out_fraction,
        training_rounds=training_rounds,
        deadline_s=deadline_s,
        atlas=atlas,
        scan=scan,
        recipe=None if recipe_of is None else load_protocol(recipe_of).imaging,
        candidates=_candidates(candidates),
        votes=votes,
        pool_controls=pool_controls,
        without_controls=without_controls or (),
        analyses=analyses_of(
            cohort=cohort_summary,
            cross_site=cross_site,
            folds=folds,
            random_scores=random_scores,
            subgroups=subgroups,
            explanation=explanation,
            network=network,
            neurocognition=neurocognition,
            exact=exact or (),
        ),
        valid_days=valid_days,
        inputs=own,
        given=given,
        initial_weights=initial_weights,
    )
    protocol = parse_protocol(text.encode(), given, name=str(out))
    write_inputs(out.parent, given)
    out.write_text(text, encoding="utf-8")
    typer.echo(protocol.sha256)


def _candidates(said: str | None) -> "CandidateList | Literal['template'] | None":
    from esn_core.severity_network.candidate_list import read_candidates

    if said == "template":
        return "template"
    return None if said is None else read_candidates(Path(said))


def validate(
    protocol_file: Annotated[Path, typer.Argument(help="The protocol, a draft or signed.")],
    as_json: AsJson = False,
) -> None:
    """Say every fault of a protocol at once; or who signed it, until when it counts, and what it costs."""
    from esn_server.protocol.signing import validate as look_at

    found = look_at(protocol_file)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else found.in_words)


def sign(
    directory: Centre, protocol_file: Annotated[Path, typer.Argument(help="The protocol, as it is to be.")]
) -> None:
    """Sign a protocol in its own file, for the sites to review and approve."""
    from esn_server.protocol.signing import package_of, sign_protocol

    signed = sign_protocol(protocol_file, directory).protocol
    typer.echo(signed.sha256)
    if signed.own_files:
        say(f"send the sites {package_of(protocol_file)}: it holds the protocol and its inputs")


def price(
    protocol_file: Annotated[Path, typer.Argument(help="The protocol.")],
    training_children: Annotated[int, typer.Option(min=1, help="Expected at all sites together.")],
    held_out_children: Annotated[int, typer.Option(min=4, help="Expected at all sites together.")],
    as_json: AsJson = False,
) -> None:
    """Say what a protocol costs each child, and what its noise will leave of each result."""
    from esn_core.protocol.protocol import load_protocol
    from esn_server.protocol.price_list import price_list

    found = price_list(
        load_protocol(protocol_file),
        training_children=training_children,
        held_out_children=held_out_children,
    )
    typer.echo(json.dumps(found.facts, indent=2) if as_json else found.in_words)
