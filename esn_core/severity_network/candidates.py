"""Candidates: which edges may belong to the severity network, and what is released about them.

All three sources are public, so naming them costs no privacy. What they cost
is noise: the norm of a child's row, and with it the noise on every number,
grows with the square root of how many numbers are released.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas, module_pairs
from esn_core.errors import ConfigError, DataError
from esn_core.severity_network.selection import SeverityNetwork, select

Source = Literal["template", "list", "modules", "votes"]

SCORE_CLIP = 4.0
"""Largest edge score that enters a release."""

BLOCK_SCALE = 1.3
"""A block's average is divided by this before the row is clipped to sqrt(blocks).

Scores within a block go together, so that their orthonormal average has a
larger variance than one (METHOD, selection: the row of module blocks is clipped
to 1.3 sqrt(blocks))."""


@dataclass(frozen=True)
class Candidates:
    """The edges that may belong to the severity network.

    Attributes
    ----------
    edges : (d,) int64
        Positions among the atlas's edges, increasing.
    blocks : (d,) int64
        Code of the pair of modules that each of them joins, 0 to B - 1, each in use.
    grouped : bool
        Whether one number for each block is released, not one for each edge.

    """

    edges: NDArray[np.int64]
    blocks: NDArray[np.int64]
    grouped: bool

    def __post_init__(self) -> None:
        if self.edges.shape != self.blocks.shape or self.edges.ndim != 1 or not len(self.edges):
            raise DataError(
                f"candidates need one edge or more and a block for each, not {self.edges.shape} "
                f"and {self.blocks.shape}"
            )

    @property
    def released(self) -> int:
        """How many numbers the association release has."""
        return int(self.blocks.max()) + 1 if self.grouped else len(self.edges)

    def features(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a child's row of the association release is made of.

        Parameters
        ----------
        scores : (n, E) float64
            Of all the atlas's edges.

        Returns
        -------
        (n, `released`) float64
            The candidates' scores, clipped to [-4, 4]; when grouped, their sum over each block of m edges,
            over 1.3 sqrt(m). Each row is computed from that child's scores alone.

        """
        values = np.clip(scores[:, self.edges], -SCORE_CLIP, SCORE_CLIP)
        if not self.grouped:
            return values
        # Column by column: a product of matrices would round a child's sums by who else is there.
        sums = np.zeros((len(values), self.released))
        for column, block in zip(values.T, self.blocks, strict=True):
            sums[:, block] += column
        return sums / (np.sqrt(np.bincount(self.blocks)) * BLOCK_SCALE)

    def network(self, total: NDArray[np.float64], *, children: float, noise_sd: float) -> SeverityNetwork:
        """Estimate the severity network from the association sum.

        Parameters
        ----------
        total : (`released`,) float64
            Sum of `association_rows` of the `features` over all children, noise included.
        children : float
            How many children were summed; noisy, positive.
        noise_sd : float
            Standard deviation of the noise in each number of `total`.

        Returns
        -------
        SeverityNetwork
            Of all `edges`. When grouped, the edges of a block share its weight, its uncertainty and its
            probability.

        """
        if not self.grouped:
            return select(total, edges=self.edges, blocks=self.blocks, children=children, noise_sd=noise_sd)
        each = np.arange(self.released)
        found = select(total, edges=each, blocks=np.zeros_like(each), children=children, noise_sd=noise_sd)
        share = 1 / np.sqrt(np.bincount(self.blocks))[self.blocks]
        return SeverityNetwork(
            edges=self.edges,
            weight=found.weight[self.blocks] * share,
            posterior_sd=found.posterior_sd[self.blocks] * share,
            inclusion=found.inclusion[self.blocks],
        )


def candidates_of(
    source: Source,
    atlas: Atlas,
    present: NDArray[np.bool_] | None,
    *,
    pairs: Sequence[tuple[str, str]] = (),
) -> Candidates:
    """Return the candidates that a protocol names.

    Parameters
    ----------
    source : {'template', 'list', 'modules'}
        All edges that are present in the public template, each by itself; those that are listed; or the
        template's edges by pairs of modules.
    atlas : Atlas
    present : (E,) bool or None
        The edges of the public template; None where the protocol has no template, and lists its candidates.
    pairs : sequence of (str, str)
        The list, by region names. It is public only for children who were not in the study that found it.
        Pairs that a template has no edge for cannot be measured and are left out.

    Raises
    ------
    ConfigError
        A pair names a region that the atlas does not have, or one region twice; a pair is listed twice;
        no listed pair is present in the template.

    """
    if source == "list":
        wanted = listed_edges(atlas, pairs)
        if present is not None:
            wanted &= present
        if not wanted.any():
            raise ConfigError(f"none of the {len(pairs)} listed pairs of regions is present in the template")
    elif source == "votes":
        raise ConfigError("the candidates are voted on; the study itself has a protocol with the list")
    elif present is None:
        raise ConfigError(f"candidates '{source}' are of a public template, and there is none")
    else:
        wanted = present
    edges = np.flatnonzero(wanted)
    _, blocks = np.unique(module_pairs(atlas)[edges], return_inverse=True)
    return Candidates(edges, blocks.astype(np.int64), grouped=source == "modules")


def listed_edges(atlas: Atlas, pairs: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
    """Return which of the atlas's (E,) edges a list of pairs of region names holds.

    Raises
    ------
    ConfigError
        A pair names a region that the atlas does not have, or one region twice; a pair is listed twice.

    """
    listed = np.zeros(len(atlas.edges), dtype=np.bool_)
    listed[listed_positions(atlas, pairs)] = True
    return listed


def listed_positions(atlas: Atlas, pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Return where each pair of a list of region names stands among the atlas's edges, in the list's order.

    Raises
    ------
    ConfigError
        As for `listed_edges`.

    """
    at = {name: position for position, name in enumerate(atlas.names)}
    edge = {(a, b): e for e, (a, b) in enumerate(atlas.edges.tolist())}
    found: dict[int, None] = {}
    for first, second in pairs:
        unknown = [name for name in (first, second) if name not in at]
        if unknown:
            raise ConfigError(f"the atlas {atlas.name} has no region {unknown[0]!r}")
        if first == second:
            raise ConfigError(f"a pair joins two regions, not {first!r} with itself")
        a, b = sorted((at[first], at[second]))
        if edge[a, b] in found:
            raise ConfigError(f"the pair {first} and {second} is listed twice")
        found[edge[a, b]] = None
    return np.array([*found], dtype=np.int64)
