"""Simulated hospitals of connectomes: a table of children and their derivatives, without scans."""

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.derivatives import Derivative, write_description
from esn_client.imaging.bids.scans import Visit
from esn_client.simulation.scans import generator, write_table, write_truth
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ConfigError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.simulation.cohort import draw_site, subject_counts
from esn_core.simulation.consortium import WORLDS
from esn_core.simulation.world import World

ATLAS = "desikan-killiany-83"

_ORIGIN = "simulated connectome; no scan stands behind it"
_STREAMLINE_MM = 60.0
_MEAN_FA = 0.45


def write_connectomes(
    directory: Path,
    derivatives: Path,
    *,
    site: str,
    seed: int,
    children: int,
    controls: int,
    truth: Path | None,
    world: str = "clinical",
) -> None:
    """Write one simulated hospital whose children have connectomes and no scans.

    All sites of one seed and kind share a world (`esn_core.simulation.consortium`); each has a scanner of its
    own. The derivatives are those of the atlas's shipped recipe, and their records say how they were made.

    Parameters
    ----------
    directory : Path
        The BIDS dataset with participants.tsv; it must not exist, or be empty.
    derivatives : Path
        The derivative dataset, likewise.
    site : str
        Any name; another name is another hospital.
    seed : int
    children, controls : int
    truth : Path or None
        Where the hidden truth goes, as ``.npz``.
    world : str
        A name in `esn_core.simulation.consortium.WORLDS`.

    Raises
    ------
    ConfigError
        A directory is in use, or there is no such kind of world.

    """
    for path in (directory, derivatives):
        if path.exists() and any(path.iterdir()):
            raise ConfigError(f"{path} is not empty; a simulated site needs directories of its own")
    if world not in WORLDS:
        raise ConfigError(f"unknown world {world!r}; there are: {', '.join(WORLDS)}")
    rules = WORLDS[world]
    atlas = load_atlas(ATLAS)
    recipe_text = (files("esn_core.connectome") / "atlases" / f"{ATLAS}.recipe.toml").read_text(
        encoding="utf-8"
    )
    recipe = ImagingRecipe.model_validate(tomllib.loads(recipe_text))
    drawn = World.draw(atlas, rules.world, rng=generator(seed, "world"))
    subjects = draw_site(
        drawn,
        children=children,
        controls=controls,
        rng=generator(seed, site),
        scanner=drawn.scanner(rules.scanner, rng=generator(seed, site, "scanner")),
        severity_shift_sd=rules.severity_shift_sd,
    )
    directory.mkdir(parents=True, exist_ok=True)
    write_table(directory, subjects, name=site, seed=seed)
    rng = generator(seed, site, "counts")
    for subject in subjects:
        counts = _matrix(subject_counts(subject.log_weights, rng=rng), atlas.edges, len(atlas.regions))
        Derivative(derivatives, Visit(subject.participant, None), recipe).write(
            _measures(counts),
            sources={},
            details={"Origin": _ORIGIN},
        )
    write_description(derivatives, source=directory)
    if truth is not None:
        write_truth(truth, drawn, subjects)


def _matrix(values: NDArray[np.float64], edges: NDArray[np.int64], regions: int) -> NDArray[np.float64]:
    matrix = np.zeros((regions, regions))
    row, column = edges.T
    matrix[row, column] = matrix[column, row] = values
    return matrix


def _measures(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return all measures of a recipe; those that need a scan are constants where there are streamlines."""
    there = (counts > 0).astype(np.float64)
    return {
        "count": counts,
        "weight": counts,
        "meanlength": _STREAMLINE_MM * there,
        "countperlength": counts / _STREAMLINE_MM,
        "countpervolume": counts / 1000.0,
        "meanfa": _MEAN_FA * there,
    }
