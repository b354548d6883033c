"""Where severity is centred for the network: the release that tells it, and the reading of its sum.

An edge's sum has a child's score times the child's severity residual, which is clipped. Residuals about the
mean do not average zero once they are clipped where scores are skewed, and whatever the edge's scores have in
common leaks into its association. So the children are counted by level of GASE, and the centre is where the
*clipped* residuals sum to zero. Protocols of format 1 centre at the mean.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.gase import GASE_LEVELS, standardise_severity
from esn_core.privacy.release import ReleaseKind
from esn_core.severity_network.association import CENTRE, RESIDUAL_CLIP, read_centre

Centring = Literal["mean", "levels"]

LEVELS = ReleaseKind("centre", "training", len(GASE_LEVELS), 1.0)
"""Row: 1 at the child's own GASE, elsewhere 0; its norm is 1."""

_SEVERITIES = tuple(float(y) for y in standardise_severity(np.array(GASE_LEVELS, dtype=np.float64)))


def level_rows(gase: Floats) -> Floats:
    """Return the (n, 7) rows of `LEVELS`; clinical GASE is a whole number from 1 to 7."""
    return np.asarray(gase[:, None] == np.array(GASE_LEVELS), dtype=np.float64)


def without_small_levels(rows: Floats, *, fewest: int) -> Floats:
    """Return rows of `LEVELS` in which no level is shared by fewer than `fewest` children of a site.

    For exact sums, whose small cells would be about single children. The level farthest from the median that
    few share is counted at the nearest one that anybody has, until there is none. Its children stay on their
    side of the median where there is room: beyond the residual's clip it does not matter how far.
    """
    rows = rows.copy()
    counts = rows.sum(axis=0)
    median = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    while True:
        held = np.flatnonzero(counts)
        small = [int(k) for k in held if counts[k] < fewest]
        if not small or len(held) < 2:
            return rows
        moved = max(small, key=lambda k: abs(k - median))
        goal = min((int(k) for k in held if k != moved), key=lambda k: (abs(k - moved), abs(k - median)))
        rows[:, goal] += rows[:, moved]
        rows[:, moved] = 0.0
        counts = rows.sum(axis=0)


def centre_release(centring: Centring) -> ReleaseKind:
    """Return the release that a protocol's centre is read from."""
    return LEVELS if centring == "levels" else CENTRE


def centre_of(
    total: NDArray[np.float64], *, centring: Centring, fewest_children: float
) -> tuple[float, float]:
    """Return the number of children, and the standardised severity that their residuals are taken from.

    Parameters
    ----------
    total : (7,) or (2,) float64
        Sum of the rows of `centre_release`, noise included.
    centring : {'levels', 'mean'}
    fewest_children : float
        A public lower bound on how many children were summed.

    Returns
    -------
    children, centre : float
        The same on every machine: plain sums, in a fixed order.

    """
    if centring == "mean":
        return read_centre(total, fewest_children=fewest_children)
    counts = [float(count) for count in total]
    return max(sum(counts), fewest_children), _balance([max(count, 0.0) for count in counts])


def _balance(counts: Sequence[float]) -> float:
    """Return where the clipped residuals sum to zero; the middle of where they do, and 0 of nobody.

    The sum falls along straight lines between the places at which a level begins or ends to be clipped.
    """
    if not any(counts):
        return 0.0
    places = sorted({y + side for y in _SEVERITIES for side in (-RESIDUAL_CLIP, RESIDUAL_CLIP)})
    sums = [_residuals(counts, place) for place in places]
    # At the first place all residuals are positive, at the last all are negative.
    last = max(i for i, total in enumerate(sums) if total > 0)
    first = min(i for i, total in enumerate(sums) if total < 0)
    return (_root(places, sums, last) + _root(places, sums, first - 1)) / 2


def _root(places: Sequence[float], sums: Sequence[float], i: int) -> float:
    fall = sums[i] - sums[i + 1]
    return places[i] + (places[i + 1] - places[i]) * (sums[i] / fall)


def _residuals(counts: Sequence[float], centre: float) -> float:
    total = 0.0
    for count, severity in zip(counts, _SEVERITIES, strict=True):
        total += count * min(max(severity - centre, -RESIDUAL_CLIP), RESIDUAL_CLIP)
    return total
