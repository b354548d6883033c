"""Commands about studies: run, watched, reported, compared with the sites' logs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from esn_core.system.command_line import AsJson, progress_bar, say
from esn_server.cli.arguments import Centre
from esn_server.cli.setup import _warn_of_expiry


def run_study(
    directory: Centre,
    protocol_file: Annotated[Path, typer.Argument(help="The protocol that the sites approved.")],
    out: Annotated[Path, typer.Option(help="Directory of this run; made where it is missing.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last finished step of the run that is there.")
    ] = False,
) -> None:
    """Run a study and write its report, or let sites vote on candidates; earlier studies are waited for."""
    from esn_core.severity_network.candidate_list import CandidateList
    from esn_server.run.run import CANDIDATES
    from esn_server.run.run import run as run_protocol

    _warn_of_expiry(directory)
    with progress_bar("study") as tell:
        result = run_protocol(
            protocol_file,
            out,
            centre=directory,
            progress=lambda phase, done, rounds: tell(phase, done + 1, rounds),
            resume=resume,
        )
    if isinstance(result, CandidateList):
        typer.echo(str(out / CANDIDATES))
        say(f"{len(result.pairs)} edges have the votes of most sites")
        return
    typer.echo(str(out / "result.json"))
    found = result.evaluation
    say(f"r {found.r:.2f}" if found.r is not None else f"r undefined: {found.undefined_because}")


def status(
    directory: Centre,
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs' directories; those under way are shown anyway.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until interrupted.")] = False,
    as_json: AsJson = False,
    web: Annotated[bool, typer.Option("--web", help="Show it as a page at this machine's loopback.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = 9095,
) -> None:
    """Show sites, studies, whom they wait for and when they will be done; disturbs nothing."""
    from esn_server.status.status import Watch, status_of

    places = runs or []
    if web:
        from esn_server.status.page.serving import serve_page

        serve_page(Watch(directory, places), port=port, ready=typer.echo)
    elif as_json:
        typer.echo(status_of(directory, places).model_dump_json(indent=2))
    else:
        from esn_server.status.terminal import show

        show(Watch(directory, places), watch=watch)


def verify_audit(
    directory: Centre,
    site_logs: Annotated[list[Path], typer.Argument(help="From each site's 'esn-client audit-log export'.")],
    as_json: AsJson = False,
) -> None:
    """Compare the centre's log of messages with those of sites; the first difference is an error."""
    from dataclasses import asdict

    from esn_server.link.log_comparison import compare_with_exports

    compared = compare_with_exports(directory, site_logs)
    if as_json:
        typer.echo(json.dumps([asdict(found) for found in compared], indent=2))
        return
    for found in compared:
        typer.echo(
            f"{found.site}: {found.questions} questions and {found.answers} answers agree; lost under way: "
            f"{found.lost_questions} questions and {found.lost_answers} answers"
        )


def report(
    result: Annotated[Path, typer.Argument(help="A result.json.")],
    out: Annotated[Path, typer.Option(help="The page to write.")],
    no_noise: Annotated[
        Path | None, typer.Option(help="result.json of the same study without noise, set beside it.")
    ] = None,
) -> None:
    """Write the report of a result again."""
    from esn_server.report.figures.shown import figures_of
    from esn_server.report.page import write_page
    from esn_server.report.result import read_result
    from esn_server.run.directory import atlas_of

    found = read_result(result)
    beside = read_result(no_noise) if no_noise else None
    atlas = atlas_of(found.severity_network.atlas, result.parent)
    write_page(found, figures_of(found, atlas, no_noise=beside), out, no_noise=beside)
    typer.echo(str(out))


def release(
    directory: Centre,
    run: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    out: Annotated[Path, typer.Option(help="The model's file to write; it must not exist.")],
    propose: Annotated[
        bool, typer.Option("--propose", help="Write a proposal, which the sites countersign.")
    ] = False,
    countersignature: Annotated[
        list[Path] | None, typer.Option(help="From 'esn-client countersign'; one of every site.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Release a run's model as one signed file, once every control is there and every site agrees.

    Without --propose, every site of the run has to have countersigned. What is missing is listed, and
    nothing is written.
    """
    from esn_server.release.release import release as release_model

    model = release_model(
        run, out, centre=directory, countersignatures=countersignature or (), propose=propose
    )
    if as_json:
        facts = {
            "file": str(out),
            "model_sha256": model.content.sha256,
            "released": model.released,
            "fingerprint": model.fingerprint if model.released else None,
            "countersigned_by": [one.site for one in model.countersignatures],
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(str(out))
    what = "released" if model.released else "proposed: send it to every site, to be countersigned"
    say(f"model {model.content.sha256[:16]}, {what}")
    if model.released:
        say(f"Publish its fingerprint beside it:\n  {model.fingerprint}")


def export(
    result: Annotated[Path, typer.Argument(help="A result.json.")],
    out: Annotated[Path, typer.Option(help="Directory for tables, figures, the network and a summary.")],
    no_noise: Annotated[
        Path | None, typer.Option(help="result.json of the same study without noise, drawn beside it.")
    ] = None,
) -> None:
    """Write a result as tidy CSV, its figures as SVG, the network in 3-D, and one page in short."""
    from esn_server.report.beside import write_beside
    from esn_server.report.figures.shown import figures_of
    from esn_server.report.result import read_result
    from esn_server.run.directory import atlas_of

    found = read_result(result)
    beside = read_result(no_noise) if no_noise else None
    atlas = atlas_of(found.severity_network.atlas, result.parent)
    for path in write_beside(found, atlas, figures_of(found, atlas, no_noise=beside), out):
        typer.echo(str(path))
