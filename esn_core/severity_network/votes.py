"""Votes about candidates: an edge is in when nearly all controls of most hospitals have streamlines there.

Each site has one vote for each edge of the atlas. The votes leave as an exact sum about controls, under
masks: only how many sites voted for an edge can be read. A site's vote hangs on all of its controls at once,
so no noise of bounded size hides one of them: with fewer than twenty, one who lacks an edge turns the vote.
That is why the step has a protocol, a consent and a place in the ledger of its own.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind
from esn_core.severity_network.candidate_list import present_in_most


def votes_release(edges: int) -> ReleaseKind:
    """Describe the sum of the sites' votes, and of the sites that voted.

    A row is no longer than the vote of one site, zeros and ones for the edges and the one of the site itself:
    sqrt(edges + 1).
    """
    return ReleaseKind("votes", "controls", edges + 1, math.sqrt(edges + 1))


def votes_rows(strengths: Floats) -> Floats:
    """Return the (n, E + 1) rows of n controls: the vote, edge by edge, and a one for the site.

    The first row holds all of it. Were it shared out, each part would be rounded to the grid, and what the
    parts lack together would tell how many controls there are.

    Parameters
    ----------
    strengths : (n, E) float64
        Edge strengths of the site's controls; NaN where there is no tissue for an edge.

    """
    rows = np.zeros((len(strengths), strengths.shape[1] + 1))
    rows[:1] = np.append(present_in_most(strengths).astype(np.float64), 1.0)
    return rows


@dataclass(frozen=True)
class Votes:
    """What the sites voted for.

    Attributes
    ----------
    sites : int
        How many voted.
    for_edge : (E,) int64
        How many of them for each edge.

    """

    sites: int
    for_edge: NDArray[np.int64]

    @classmethod
    def from_total(cls, total: Floats) -> "Votes":
        """Read a sum of `votes_rows`.

        Raises
        ------
        DataError
            The sum is no count of votes.

        """
        counts = np.rint(total)
        if not np.isfinite(total).all() or not np.array_equal(total, counts):
            raise DataError("a sum of votes holds whole numbers")
        if (counts < 0).any() or (counts[:-1] > counts[-1]).any():
            raise DataError("an edge has votes of no site, or of more sites than voted")
        return cls(int(counts[-1]), counts[:-1].astype(np.int64))

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """The (E,) edges that more than half of the sites voted for."""
        return np.asarray(2 * self.for_edge > self.sites)
