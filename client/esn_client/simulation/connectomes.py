"""Simulated hospitals of connectomes: a table of children and their derivatives; few have scans, or none."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.derivatives import Derivative, write_description
from esn_client.imaging.bids.visits import Visit
from esn_client.simulation.presets import SITES, scanner_of
from esn_client.simulation.scans import generator, write_dataset, write_table, write_truth
from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.errors import ConfigError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.protocol import Protocol
from esn_core.simulation import tracking
from esn_core.simulation.cohort import Subject, draw_site, subject_counts
from esn_core.simulation.consortium import WORLDS
from esn_core.simulation.world import World, WorldRules

ATLAS = "desikan-killiany-83"

# Fewer have fewer bundles than a clinical network has edges: they get the phantom's.
_FEWEST_REGIONS = 60
_ORIGIN = "simulated connectome; no scan stands behind it"
_AS_TRACKED = (
    "simulated connectome, drawn as the pipeline was seen to read scans of this scanner; "
    "no scan stands behind it"
)
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
    world_seed: int | None = None,
    protocol: Protocol | None = None,
) -> None:
    """Write one simulated hospital whose children have connectomes and no scans.

    All sites of one world's seed and kind share a world (`esn_core.simulation.consortium`); each has a
    scanner of its own. The derivatives are those of a protocol's recipe, or of the atlas's shipped one, and
    their records say how they were made.

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
    world_seed : int or None
        Of the world; None takes `seed`.
    protocol : Protocol or None
        Whose recipe, atlas and columns they are for.

    Raises
    ------
    ConfigError
        A directory is in use, or there is no such kind of world.

    """
    _require_empty(directory, derivatives)
    if world not in WORLDS:
        raise ConfigError(f"unknown world {world!r}; there are: {', '.join(WORLDS)}")
    rules = WORLDS[world]
    atlas = load_atlas(ATLAS) if protocol is None else protocol.atlas
    if len(atlas.regions) < _FEWEST_REGIONS:
        rules = replace(rules, world=WorldRules())
    drawn = World.draw(atlas, rules.world, rng=generator(seed if world_seed is None else world_seed, "world"))
    subjects = draw_site(
        drawn,
        children=children,
        controls=controls,
        rng=generator(seed, site),
        scanner=drawn.scanner(rules.scanner, rng=generator(seed, site, "scanner")),
        severity_shift_sd=rules.severity_shift_sd,
    )
    directory.mkdir(parents=True, exist_ok=True)
    write_table(directory, subjects, name=site, seed=seed, phenotypes=protocol.phenotypes if protocol else {})
    rng = generator(seed, site, "counts")
    counts = np.array([subject_counts(subject.log_weights, rng=rng) for subject in subjects])
    recipe = protocol.imaging if protocol else _shipped_recipe(atlas)
    _write_derivatives(
        derivatives, subjects, counts, atlas=atlas, recipe=recipe, source=directory, origin=_ORIGIN
    )
    if truth is not None:
        write_truth(truth, drawn, subjects)


def write_partly_scanned(
    directory: Path,
    derivatives: Path,
    *,
    site: str,
    seed: int,
    children: int,
    controls: int,
    scans: int,
    truth: Path | None,
    n_procs: int = 1,
    world_seed: int | None = None,
) -> None:
    """Write one simulated hospital of which some children wait as scans; the others were prepared earlier.

    All are of one world, on the phantom's atlas. The connectomes are drawn as the pipeline reads this site's
    scans (`esn_core.simulation.tracking`), so that those that it makes of the scans lie among them.

    Parameters
    ----------
    directory : Path
        The BIDS dataset with all participants and the scans; it must not exist, or be empty.
    derivatives : Path
        The derivative dataset of those without scans, likewise.
    site : str
        Any name; those in `SITES` have a scanner of their own.
    seed : int
        Equal seeds give equal bytes, whatever `n_procs`.
    children, controls : int
    scans : int
        How many of the children, the first ones, have raw scans and no connectome.
    truth : Path or None
        Where the hidden truth goes, as ``.npz``.
    n_procs : int
    world_seed : int or None
        Of the world; None takes `seed`.

    Raises
    ------
    ConfigError
        More scans are asked for than children, or a directory is in use.

    """
    if not 0 < scans <= children:
        raise ConfigError(f"of {children} children from 1 to {children} can have scans, not {scans}")
    _require_empty(directory, derivatives)
    atlas = load_atlas(tracking.ATLAS)
    world = World.draw(atlas, rng=generator(seed if world_seed is None else world_seed, "world"))
    scanner = scanner_of(site)
    subjects = draw_site(world, children=children, controls=controls, rng=generator(seed, site))
    write_dataset(
        directory,
        subjects,
        atlas=atlas,
        preset=SITES[scanner],
        name=site,
        seed=seed,
        n_procs=n_procs,
        scanned=scans,
    )
    earlier = subjects[scans:]
    counts = tracking.tracking(scanner).counts(
        np.array([subject.log_weights for subject in earlier]), rng=generator(seed, site, "counts")
    )
    _write_derivatives(
        derivatives,
        earlier,
        counts,
        atlas=atlas,
        recipe=_shipped_recipe(atlas),
        source=directory,
        origin=_AS_TRACKED,
    )
    if truth is not None:
        write_truth(truth, world, subjects)


def _require_empty(*directories: Path) -> None:
    for path in directories:
        if path.exists() and any(path.iterdir()):
            raise ConfigError(f"{path} is not empty; a simulated site needs directories of its own")


def _write_derivatives(
    derivatives: Path,
    subjects: Sequence[Subject],
    counts: NDArray[np.float64],
    *,
    atlas: Atlas,
    recipe: ImagingRecipe,
    source: Path,
    origin: str,
) -> None:
    """Write each subject's (n, E) counts as `prepare` would have, by a recipe of the atlas."""
    for subject, edges in zip(subjects, counts, strict=True):
        Derivative(derivatives, Visit(subject.participant, None), recipe).write(
            _measures(_matrix(edges, atlas.edges, len(atlas.regions))),
            sources={},
            details={"Origin": origin},
        )
    write_description(derivatives, source=source)


def _shipped_recipe(atlas: Atlas) -> ImagingRecipe:
    place = files("esn_core.connectome") / "atlases" / f"{atlas.name}.recipe.toml"
    return ImagingRecipe.model_validate(tomllib.loads(place.read_text(encoding="utf-8")))


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
