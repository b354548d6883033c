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

Centre = Annotated[Path, typer.Argument(help="The centre's directory, made by 'esn-server init'.")]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="The directory to make.")],
    name: Annotated[list[str], typer.Option(help="Host name or IP address of this centre; may be repeated.")],
) -> None:
    """Make the centre's certificate authority and its server certificate."""
    from esn_server.identity import create_authority

    create_authority(directory, names=name)
    typer.echo(str(directory / "ca.crt"))
    typer.echo("Send this certificate to the sites; everything else in the directory stays here.", err=True)


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

    serve(directory, host=host, port=port, health_host=health_host, health_port=health_port, ready=typer.echo)


@app.command()
def enrol(
    directory: Centre,
    request: Annotated[Path, typer.Argument(help="The site's enrolment.toml, from 'esn-client init'.")],
) -> None:
    """Let a site in by its keys; compare the fingerprint by telephone. The centre must be started."""
    from esn_server.link import register_site
    from esn_server.sites import keep_enrolment, node_key_of
    from esn_server.whereabouts import whereabouts

    address = whereabouts(directory).superlink
    entry = keep_enrolment(directory, request)
    typer.echo(f"{entry.site} {register_site(directory, address, node_key_of(directory, entry.site))}")
    typer.echo(f"fingerprint {entry.fingerprint}", err=True)


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
    training_rounds: Annotated[int, typer.Option(min=0, help="Steps of DP-SGD.")] = 8,
    deadline_s: Annotated[float, typer.Option(help="Longest that one question may take.")] = 600.0,
) -> None:
    """Draft a protocol with all enrolled sites on its roster; edit it before the sites approve it."""
    from esn_core.protocol import load_protocol
    from esn_server.drafting import draft
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
        training_rounds=training_rounds,
        deadline_s=deadline_s,
        atlas=atlas,
    )
    out.write_text(text, encoding="utf-8")
    try:
        typer.echo(load_protocol(out).sha256)
    except BaseException:
        out.unlink()
        raise


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
    out: Annotated[Path, typer.Option(help="Directory of this run; a second start there resumes.")],
) -> None:
    """Run a study and write result.json and report.html."""
    from esn_server.running import run as run_protocol

    with progress_bar("study") as tell:
        result = run_protocol(
            protocol_file,
            out,
            centre=directory,
            progress=lambda phase, done, rounds: tell(phase, done + 1, rounds),
        )
    typer.echo(str(out / "result.json"))
    found = result.evaluation
    typer.echo(
        f"r {found.r:.2f}" if found.r is not None else f"r undefined: {found.undefined_because}", err=True
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
) -> None:
    """Run a whole consortium of simulated hospitals on this machine, from raw scans to the report."""
    from esn_server.demo import run_demo

    typer.echo(str(run_demo(out, seed=seed, epsilon=epsilon)))


def main() -> NoReturn:
    """Run the command line."""
    run(app, program="esn-server")


if __name__ == "__main__":
    main()
