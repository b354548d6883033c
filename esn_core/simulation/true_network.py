"""The hidden severity network of a simulated world: which edges it holds."""

import numpy as np
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas
from esn_core.errors import ConfigError
from esn_core.simulation.anatomy import Anatomy
from esn_core.simulation.published_effects import damage

MEASURABLE_LOG_WEIGHT = 1.5
"""Below so many streamlines (4.5) a bundle is too weak to belong to a severity network."""


def draw_network(
    atlas: Atlas,
    shared: Anatomy,
    *,
    size: int,
    clustered: float,
    block_share: float,
    published_regions: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Choose edges: a share of them from a few pairs of modules, the others anywhere.

    Parameters
    ----------
    atlas : Atlas
    shared : Anatomy
    size : int
        Number of edges.
    clustered : float
        Share that lies in a few pairs of modules.
    block_share : float
        Most that the network holds of such a pair's bundles.
    published_regions : float
        Power of the mean published damage of a bundle's ends by which it is preferred; 0: none is.
    rng : Generator

    Returns
    -------
    (size,) int64
        Positions among the atlas's edges, increasing.

    Raises
    ------
    ConfigError
        The atlas has too few bundles, or no published effects.

    """
    candidates = np.flatnonzero(shared.present & (shared.mean > MEASURABLE_LOG_WEIGHT))
    if size > len(candidates):
        raise ConfigError(
            f"a severity network of {size} edges needs as many bundles; {len(candidates)} are there"
        )
    modules = np.array([region.module for region in atlas.regions])
    pairs = np.sort(modules[atlas.edges], axis=1)
    _, block = np.unique(pairs, axis=0, return_inverse=True)
    sizes = np.bincount(block[candidates])
    weight = of_block = None
    if published_regions:
        weight = damage(atlas)[atlas.edges].mean(axis=1) ** published_regions
        of_block = np.bincount(block[candidates], weight[candidates]) / np.maximum(sizes, 1)
    chosen: list[int] = []
    for b in _shuffled(np.flatnonzero(sizes >= min(4, sizes.max())), of_block, rng):
        room = round(clustered * size) - len(chosen)
        most = max(round(block_share * sizes[b]), 1)
        members = _shuffled(candidates[block[candidates] == b], weight, rng)
        chosen += members.tolist()[: max(min(room, most), 0)]
    others = _shuffled(np.setdiff1d(candidates, chosen), weight, rng)[: size - len(chosen)]
    return np.sort(np.concatenate([np.array(chosen, dtype=np.int64), others]))


def _shuffled(
    positions: NDArray[np.int64], weight: NDArray[np.float64] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Shuffle positions, those of larger weight rather first: as if drawn one by one in proportion to it."""
    if weight is None:
        return rng.permutation(positions)
    # Efraimidis & Spirakis 2006 (Information Processing Letters 97:181): the largest log(u) / w first.
    keys = np.log(rng.random(len(positions))) / weight[positions]
    return positions[np.argsort(-keys, kind="stable")]
