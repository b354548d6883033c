"""Commands on simulated children: the demo, and public pre-training."""

from pathlib import Path
from typing import Annotated

import typer

from esn_core.system.command_line import progress_bar, say


def pretrain(
    out: Annotated[Path, typer.Argument(help="Directory for the weights and their card.")],
    name: Annotated[str, typer.Option(help="Name of the weights.")],
    seed: Annotated[int, typer.Option(min=0)],
    worlds: Annotated[int, typer.Option(min=20, help="Simulated consortia to learn from.")],
    steps: Annotated[int, typer.Option(min=10)],
    atlas: Annotated[list[str], typer.Option(help="May be repeated; the lessons take turns.")],
) -> None:
    """Train the severity model on simulated children, as the shipped weights were."""
    from esn_server.simulation.pretraining import pretrain as train

    with progress_bar("pretraining") as tell:
        card = train(out, name=name, atlases=atlas, seed=seed, worlds=worlds, steps=steps, progress=tell)
    typer.echo(str(out / f"{name}.safetensors"))
    say(f"on worlds that training never saw: {card['validation']}")


def demo(
    out: Annotated[
        Path, typer.Option(help="Directory to write; one made by an earlier demo is replaced.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated children.")] = 20261123,
    epsilon: Annotated[float, typer.Option(help="Budget of one child.")] = 8.0,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Six hospitals of connectomes, without scans, and every analysis: seven minutes."
        ),
    ] = False,
) -> None:
    """Run a whole consortium on this machine: five simulated hospitals of 64 children.

    At each hospital six children are raw diffusion MRI, prepared here; the others have connectomes that were
    prepared earlier. The study is run in private, then without noise; what was found, what it cost
    and what to open stands at the end.
    """
    from esn_server.simulation.demo import FULL, SHORT, run_demo

    for line in run_demo(out, FULL if full else SHORT, seed=seed, epsilon=epsilon).in_three_lines:
        typer.echo(line)
