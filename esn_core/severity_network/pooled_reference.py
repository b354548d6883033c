"""The pooled reference: mean and spread of each candidate edge in the controls of several hospitals together.

A hospital with fewer than three controls has nothing to judge its children by. Where the consortium chose so,
the sites that vote on candidates also release, under masks, exact sums over their controls for the edges that
were voted for. What follows becomes public: a protocol of the study carries it beside the candidates, and a
site that the protocol names without controls scores its children by it. These sums are about controls, and
without noise: whoever knows a control's connectome can tell whether it is in them.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.connectome.own_controls import ControlMoments, ControlReference
from esn_core.connectome.template import SHARE_SCALE
from esn_core.errors import DataError
from esn_core.privacy.fixed_point import LARGEST_SITES
from esn_core.privacy.release import ReleaseKind
from esn_core.severity_network.candidates import listed_positions
from esn_core.system.toml_file import Table

FEWEST_SITES = 3
"""Of fewer hospitals no sum of controls leaves."""
FEWEST_AT_A_SITE = 5
"""Controls with a connectome, of each of them; and with streamlines, where a site adds to an edge's sum."""
FEWEST_IN_ALL = FEWEST_SITES * FEWEST_AT_A_SITE
"""Controls who could have an edge: an edge of fewer has no reference, and is no candidate."""

# A share of all streamlines is at most 1.
_LARGEST_STRENGTH = math.log1p(SHARE_SCALE)
_Strength = Annotated[float, Field(ge=0, le=_LARGEST_STRENGTH)]
# As a protocol may list.
_MOST_EDGES = 10_000
# What is published of a mean and a spread, in units of strength; a spread is .05 or more.
_DECIMALS = 4


def reference_release(edges: int) -> ReleaseKind:
    """Describe the sum of controls, of their strengths and of the squares of these, edge by edge.

    Strengths are taken over the largest that there can be, so that no number of a row is above 1, and no row
    longer than sqrt(3 edges).
    """
    return ReleaseKind("reference", "controls", 3 * edges, math.sqrt(3 * edges))


def reference_rows(strengths: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return the (n, 3 E) rows of n controls; zeros for what was not voted for, or is of few of them.

    Where fewer than five of a site's controls have streamlines, its sums would be of these few, and a false
    vote of another site may have chosen the edge for that.

    Parameters
    ----------
    strengths : (n, E) float64
        Of one site; NaN where a control has no tissue for an edge.
    chosen : (E,) bool

    """
    finite = np.isfinite(strengths)
    enough = (np.where(finite, strengths, 0.0) > 0).sum(axis=0) >= FEWEST_AT_A_SITE
    there = finite & chosen & enough
    part = np.where(there, strengths, 0.0) / _LARGEST_STRENGTH
    return np.concatenate([there.astype(np.float64), part, part**2], axis=1)


class PooledReference(Table):
    """Mean and spread of each candidate, in the order in which a list names them."""

    sites: int = Field(ge=FEWEST_SITES, le=LARGEST_SITES)
    """How many hospitals' controls were summed."""
    controls: int = Field(ge=FEWEST_IN_ALL, le=10**6)
    """How many people stand behind it."""
    mean: tuple[_Strength, ...] = Field(min_length=1, max_length=_MOST_EDGES)
    """Edge strength."""
    sd: tuple[_Strength, ...] = Field(min_length=1, max_length=_MOST_EDGES)
    """Between all these controls, hospitals' scanners included; moderated, and positive."""

    @model_validator(mode="after")
    def _has_numbers_to_judge_by(self) -> Self:
        if len(self.mean) != len(self.sd):
            raise ValueError(f"{len(self.mean)} means have {len(self.sd)} spreads")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.sd).all() and min(self.sd) > 0):
            raise ValueError("means must be finite, and spreads finite and above 0")
        return self

    @classmethod
    def from_total(cls, total: Floats, *, sites: int) -> tuple[Self, NDArray[np.bool_]]:
        """Read a sum of `reference_rows`.

        Returns
        -------
        PooledReference
        (E,) bool
            The edges that it is of: those that were voted for, and that enough controls could have.

        Raises
        ------
        DataError
            There is no such edge, or the sum is none over people.

        """
        people, strengths, squares = total.reshape(3, -1)
        counts = np.rint(people)
        if not np.isfinite(total).all() or (counts != people).any() or (counts < 0).any():
            raise DataError("a sum over controls counts whole people")
        known = counts >= FEWEST_IN_ALL
        if not known.any():
            raise DataError(
                f"no edge is one that {FEWEST_IN_ALL} controls of all sites together could have; a pooled "
                "reference needs so many"
            )
        moments = ControlMoments(
            people=counts[known],
            total=strengths[known] * _LARGEST_STRENGTH,
            squares=squares[known] * _LARGEST_STRENGTH**2,
            # They were voted for: what few controls lack is no reason to leave an edge out.
            with_streamlines=counts[known],
        )
        found = ControlReference.of_moments(moments)
        return cls(
            sites=sites,
            controls=found.controls,
            mean=tuple(found.mean.round(_DECIMALS).tolist()),
            sd=tuple(found.sd.round(_DECIMALS).tolist()),
        ), known

    def reference(self, atlas: Atlas, pairs: Sequence[tuple[str, str]]) -> ControlReference:
        """Return what a child of a hospital without controls is judged by; other edges are unknown."""
        at = listed_positions(atlas, pairs)
        mean, sd = np.zeros(len(atlas.edges)), np.ones(len(atlas.edges))
        known = np.zeros(len(atlas.edges), dtype=np.bool_)
        mean[at], sd[at], known[at] = self.mean, self.sd, True
        return ControlReference(mean=mean, sd=sd, known=known, measured=known, controls=self.controls)
