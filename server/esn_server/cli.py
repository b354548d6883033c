"""The command line of the coordinating centre."""

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from esn_core.command import progress_bar, run
from esn_core.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The coordinating centre of an esn-federated study. Research software, not a medical device.",
)

protocol_app = typer.Typer(no_args_is_help=True, help="Draft a study, and see what it costs.")
app.add_typer(protocol_app, name="protocol")

audit_app = typer.Typer(no_args_is_help=True, help="Compare what both sides logged.")
app.add_typer(audit_app, name="audit")

Centre = Annotated[Path, typer.Argument(help="The centre's directory, made by 'esn-server init'.")]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="The directory to make.")],
    name: Annotated[list[str], typer.Option(help="Host name or IP address of this centre; may be repeated.")],
) -> None:
    """Make the centre's certificates, its signing key, and a protocol to read."""
    from esn_core.files import write_whole
    from esn_core.signing import fingerprint
    from esn_server.drafting import example
    from esn_server.identity import create_authority, load_centre_key

    create_authority(directory, names=name)
    write_whole(directory / "protocol.example.toml", example().encode())
    typer.echo(str(directory))
    typer.echo(
        f"The centre signs with {fingerprint(load_centre_key(directory).public_key())}. Sites get what they "
        "need in their kits, from 'esn-server enrol'; the directory itself stays here. protocol.example.toml "
        "in it is for you to read.",
        err=True,
    )


@app.command()
def start(
    directory: Centre,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9092,
    health_host: Annotated[
        str, typer.Option(help="Address of the gRPC health service; it has no TLS, keep it inside.")
    ] = "127.0.0.1",
    health_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the gRPC health service.")
    ] = 9093,
) -> None:
    """Serve the link that sites connect to, until stopped; what dies of it is started again."""
    from esn_server.supervisor import serve

    _warn_of_expiry(directory)
    serve(directory, host=host, port=port, health_host=health_host, health_port=health_port, ready=typer.echo)


@app.command()
def enrol(
    directory: Centre,
    request: Annotated[Path, typer.Argument(help="The site's enrolment.toml, from 'esn-client init'.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="As the site read it out; without it, a terminal is asked.")
    ] = None,
    public_address: Annotated[
        str | None,
        typer.Option(help="host:port at which sites reach this centre; else its first name and its port."),
    ] = None,
    replace: Annotated[bool, typer.Option(help="Exchange the keys of a site that has rotated them.")] = False,
) -> None:
    """Let a site in by its keys, and write the kit to send to it. The centre must be started."""
    from esn_core.command import compare_by_telephone
    from esn_server.kits import write_kit
    from esn_server.link import register_site, unregister_site
    from esn_server.revocations import require_not_revoked, revoked_node_keys
    from esn_server.sites import keep_enrolment, node_key_of, read_request
    from esn_server.whereabouts import whereabouts

    _warn_of_expiry(directory)
    entry = read_request(request)
    require_not_revoked(directory, entry)
    compare_by_telephone(f"the request of {entry.site}", entry.fingerprint, heard=fingerprint)
    # Asked before anything is kept: a centre that is not started enrols nobody.
    started = whereabouts(directory)
    address = started.superlink
    port = int(started.public.rpartition(":")[2])
    path, kit = write_kit(directory, entry, public_address=public_address, port=port)
    keep_enrolment(directory, entry, replace=replace)
    register_site(directory, address, node_key_of(directory, entry.site))
    for key in revoked_node_keys(directory, entry.site):
        unregister_site(directory, address, key)
    typer.echo(str(path))
    typer.echo(
        f"Send this kit to {entry.site}; there is no secret in it. When they call, read out:\n"
        f"  {kit.fingerprint}",
        err=True,
    )


@app.command()
def revoke(
    directory: Centre,
    site: Annotated[str, typer.Argument(help="The site's name.")],
) -> None:
    """Take a site's enrolment back, for good. The centre must be started."""
    from esn_server.link import unregister_site
    from esn_server.revocations import revoked_node_keys
    from esn_server.sites import revoke as take_back
    from esn_server.whereabouts import whereabouts

    take_back(directory, site)
    typer.echo(f"{site} is revoked at this centre", err=True)
    address = whereabouts(directory).superlink
    # Said to the SuperLink again and again, where need be: its database may come from a backup.
    for key in revoked_node_keys(directory, site):
        unregister_site(directory, address, key)
    typer.echo(site)


@app.command()
def renew(
    directory: Centre,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name or IP address; without any, those of before.")
    ] = None,
) -> None:
    """Make a new server certificate of the same authority; then start the centre again."""
    from esn_server.identity import renew_server

    names = renew_server(directory, names=name or ())
    typer.echo(str(directory / "server.crt"))
    typer.echo(f"good for {', '.join(names) or 'the loopback'}; stop the centre and start it again", err=True)


@protocol_app.command()
def new(
    directory: Centre,
    study: Annotated[str, typer.Option(help="Name of the study.")],
    epsilon: Annotated[float, typer.Option(help="Budget of one child.")],
    delta: Annotated[float, typer.Option(help="Below 1 over the pooled number of children.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    split_salt: Annotated[str, typer.Option(help="Decides, with a child's label, who is held out.")],
    simulated: Annotated[bool, typer.Option(help="Whether every child is simulated.")],
    noise: Annotated[
        Literal["gaussian", "none"], typer.Option(help="none: exact sums, for simulated children.")
    ] = "gaussian",
    trust: Annotated[
        Literal["secure-sum", "local"], typer.Option(help="local: every site adds the whole noise.")
    ] = "secure-sum",
    colluding_sites: Annotated[
        int, typer.Option(min=0, help="Sites that may side with the centre without harm to the others.")
    ] = 1,
    atlas: Annotated[
        str, typer.Option(help="phantom-28 for rehearsals; desikan-killiany-83 or aal-116 for real scans.")
    ] = "phantom-28",
    valid_days: Annotated[int, typer.Option(min=1, help="Days until the protocol expires.")] = 365,
    held_out_fraction: Annotated[
        float,
        typer.Option(help="Share of the children that only judge the prediction; training has the rest."),
    ] = 0.333,
    training_rounds: Annotated[int, typer.Option(min=0, help="Steps of DP-SGD.")] = 8,
    cohort_summary: Annotated[
        bool, typer.Option(help="Ask how children and controls match, and who was left out.")
    ] = False,
    cross_site: Annotated[bool, typer.Option(help="Leave one site out, in turn.")] = False,
    folds: Annotated[int, typer.Option(help="Parts of a cross-validation; 0: none.")] = 0,
    random_scores: Annotated[int, typer.Option(min=0, help="Runs with scores drawn at random.")] = 0,
    explanation: Annotated[bool, typer.Option(help="Ask what each edge contributes.")] = False,
    network: Annotated[
        bool, typer.Option(help="Ask for the exact network and its stability; needs --exact network.")
    ] = False,
    neurocognition: Annotated[
        bool, typer.Option(help="Ask whether the prediction explains impairment; edit the models afterwards.")
    ] = False,
    exact: Annotated[
        list[str] | None,
        typer.Option(
            help="cohort, explanation, network or neurocognition without noise, so without epsilon."
        ),
    ] = None,
    deadline_s: Annotated[float, typer.Option(help="Longest that one question may take.")] = 600.0,
) -> None:
    """Draft a protocol with all enrolled sites on its roster; edit it, then sign it."""
    from esn_core.protocol import load_protocol
    from esn_server.drafting import analyses_of, draft
    from esn_server.sites import enrolled

    if out.exists():
        raise ConfigError(f"{out} exists; a protocol is never overwritten")
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
        analyses=analyses_of(
            cohort=cohort_summary,
            cross_site=cross_site,
            folds=folds,
            random_scores=random_scores,
            explanation=explanation,
            network=network,
            neurocognition=neurocognition,
            exact=exact or (),
        ),
        valid_days=valid_days,
    )
    out.write_text(text, encoding="utf-8")
    try:
        typer.echo(load_protocol(out).sha256)
    except BaseException:
        out.unlink()
        raise


@protocol_app.command()
def validate(protocol_file: Annotated[Path, typer.Argument(help="The protocol, a draft or signed.")]) -> None:
    """Say every fault of a protocol at once; or who signed it, until when it counts, and what it costs."""
    from esn_server.protocol_signing import validate as in_words

    typer.echo(in_words(protocol_file))


@protocol_app.command()
def sign(
    directory: Centre, protocol_file: Annotated[Path, typer.Argument(help="The protocol, as it is to be.")]
) -> None:
    """Sign a protocol in its own file, for the sites to review and approve."""
    from esn_server.protocol_signing import sign_protocol

    typer.echo(sign_protocol(protocol_file, directory).sha256)


@protocol_app.command()
def price(
    protocol_file: Annotated[Path, typer.Argument(help="The protocol.")],
    training_children: Annotated[int, typer.Option(min=1, help="Expected at all sites together.")],
    held_out_children: Annotated[int, typer.Option(min=4, help="Expected at all sites together.")],
) -> None:
    """Say what a protocol costs each child, and what its noise will leave of each result."""
    from esn_core.protocol import load_protocol
    from esn_server.pricing import price_list

    typer.echo(
        price_list(
            load_protocol(protocol_file),
            training_children=training_children,
            held_out_children=held_out_children,
        )
    )


@app.command("run")
def run_study(
    directory: Centre,
    protocol_file: Annotated[Path, typer.Argument(help="The protocol that the sites approved.")],
    out: Annotated[Path, typer.Option(help="Directory of this run; made where it is missing.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last finished step of the run that is there.")
    ] = False,
) -> None:
    """Run a study and write result.json and report.html; one that was started before is waited for."""
    from esn_server.running import run as run_protocol

    _warn_of_expiry(directory)
    with progress_bar("study") as tell:
        result = run_protocol(
            protocol_file,
            out,
            centre=directory,
            progress=lambda phase, done, rounds: tell(phase, done + 1, rounds),
            resume=resume,
        )
    typer.echo(str(out / "result.json"))
    found = result.evaluation
    typer.echo(
        f"r {found.r:.2f}" if found.r is not None else f"r undefined: {found.undefined_because}", err=True
    )


@app.command()
def status(
    directory: Centre,
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs' directories; those under way are shown anyway.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Show it as a page at this machine's loopback.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = 9095,
) -> None:
    """Show sites, studies, whom they wait for and when they will be done; disturbs nothing."""
    from esn_server.status import status_of

    places = runs or []
    if web:
        from esn_server.status_page.serving import serve_page

        serve_page(lambda: status_of(directory, places), port=port, ready=typer.echo)
    elif as_json:
        typer.echo(status_of(directory, places).model_dump_json(indent=2))
    else:
        from esn_server.status_table import show

        show(lambda: status_of(directory, places), watch=watch)


@audit_app.command("verify")
def verify_audit(
    directory: Centre,
    site_logs: Annotated[list[Path], typer.Argument(help="From each site's 'esn-client audit-log export'.")],
) -> None:
    """Compare the centre's log of messages with those of sites; the first difference is an error."""
    from esn_server.audit import verify

    for found in verify(directory, site_logs):
        typer.echo(
            f"{found.site}: {found.questions} questions and {found.answers} answers agree; lost under way: "
            f"{found.lost_questions} questions and {found.lost_answers} answers"
        )


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="A result.json.")],
    out: Annotated[Path, typer.Option(help="The page to write.")],
    no_noise: Annotated[
        Path | None, typer.Option(help="result.json of the same study without noise, set beside it.")
    ] = None,
) -> None:
    """Write the report of a result again."""
    from esn_core.atlas import load_atlas
    from esn_server.report.page import write_page
    from esn_server.report.result import read_result

    found = read_result(result)
    beside = read_result(no_noise) if no_noise else None
    write_page(found, load_atlas(found.severity_network.atlas), out, no_noise=beside)
    typer.echo(str(out))


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="Directory for the weights and their card.")],
    name: Annotated[str, typer.Option(help="Name of the weights.")],
    seed: Annotated[int, typer.Option(min=0)],
    worlds: Annotated[int, typer.Option(min=20, help="Simulated consortia to learn from.")],
    steps: Annotated[int, typer.Option(min=10)],
    atlas: Annotated[list[str], typer.Option(help="May be repeated; the lessons take turns.")],
) -> None:
    """Train the severity model on simulated children, as the shipped weights were."""
    from esn_server.pretraining import pretrain as train

    with progress_bar("pretraining") as tell:
        card = train(out, name=name, atlases=atlas, seed=seed, worlds=worlds, steps=steps, progress=tell)
    typer.echo(str(out / f"{name}.safetensors"))
    typer.echo(f"on worlds that training never saw: {card['validation']}", err=True)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Directory to write; one made by an earlier demo is replaced.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated children.")] = 20261123,
    epsilon: Annotated[float, typer.Option(help="Budget of one child.")] = 8.0,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Six hospitals of connectomes, without scans, and every analysis: eight minutes."
        ),
    ] = False,
) -> None:
    """Run a whole consortium on this machine: five simulated hospitals of 64 children, four minutes.

    At each hospital six children are raw diffusion MRI, prepared here; the others have connectomes that were
    prepared earlier. The study is run in private, then without noise; what was found, what it cost
    and what to open stands at the end.
    """
    from esn_server.demo import FULL, SHORT, run_demo

    for line in run_demo(out, FULL if full else SHORT, seed=seed, epsilon=epsilon).in_three_lines:
        typer.echo(line)


def _warn_of_expiry(directory: Path) -> None:
    """Say which of the centre's certificates end within 30 days."""
    from esn_server.identity import expiry_warnings

    for warning in expiry_warnings(directory):
        typer.echo(f"esn-server: {warning}", err=True)


def main() -> NoReturn:
    """Run the command line."""
    run(app, program="esn-server")


if __name__ == "__main__":
    main()
