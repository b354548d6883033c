"""Where severity is centred for the network: the release that tells it, and the reading of its sum.

An edge's sum has a child's score times the child's severity residual, which is clipped. Residuals about the
mean do not average zero once they are clipped where scores are skewed, and whatever the edge's scores have in
common leaks into its association. So the children are counted by level of GASE, and the centre is where the
*clipped* residuals sum to zero. Protocols of format 1 centre at the mean.

`adjusted` takes what goes with age and sex out of the clipped residuals, so that no edge that changes with
age is taken for one of severity where older children are rated as more severe.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.gase import GASE_LEVELS, standardise_severity
from esn_core.privacy.release import ReleaseKind
from esn_core.severity_network.association import CENTRE, RESIDUAL_CLIP, centre_rows, read_centre

Centring = Literal["mean", "levels", "adjusted"]

LEVELS = ReleaseKind("centre", "training", len(GASE_LEVELS), 1.0)
"""Row: 1 at the child's own GASE, elsewhere 0; its norm is 1."""

ADJUSTED = ReleaseKind("centre", "training", 3 * len(GASE_LEVELS) + 2, math.sqrt(2))
"""Row: (1, a/2, s/2) at the child's own GASE, elsewhere 0; then a^2/2, a s/2; a and s are the child's
`covariates`, within -1 and 1. The squares add up to 1 + 2/4 + 2/4 at most: the norm is at most root 2."""

ADJUSTED_CLIP, LARGEST_ADJUSTMENT = 0.5, 0.3
"""Of a residual that is adjusted, and of its adjustment: together no more than one that is not adjusted."""

_PRIOR_SLOPE = 0.15
"""Spread of the slopes of severity on age and sex before the sums are seen: noise shrinks them to it."""

_SMALLEST_VARIANCE, _LARGEST_COLLINEARITY = 0.05, 0.9

_SEVERITIES = tuple(float(y) for y in standardise_severity(np.array(GASE_LEVELS, dtype=np.float64)))


def level_rows(gase: Floats) -> Floats:
    """Return the (n, 7) rows of `LEVELS`; clinical GASE is a whole number from 1 to 7."""
    return np.asarray(gase[:, None] == np.array(GASE_LEVELS), dtype=np.float64)


def covariates(age_years: Floats, sex: Floats) -> Floats:
    """Return (n, 2): age in decades from 10 years, within -1 and 1, and sex as -1 (girls) and 1."""
    return np.column_stack([np.clip((age_years - 10) / 10, -1, 1), np.clip(2 * sex - 1, -1, 1)])


def adjusted_rows(gase: Floats, of_children: Floats) -> Floats:
    """Return the (n, 23) rows of `ADJUSTED`, of GASE and (n, 2) `covariates`."""
    a, s = of_children.T
    each = np.column_stack([np.ones(len(gase)), a / 2, s / 2])
    by_level = level_rows(gase)[:, :, None] * each[:, None, :]
    return np.column_stack([by_level.reshape(len(gase), 3 * len(GASE_LEVELS)), a**2 / 2, a * s / 2])


def without_small_levels(rows: Floats, *, fewest: int) -> Floats:
    """Return rows in which no level is shared by fewer than `fewest` children of a site.

    For exact sums, whose small cells would be about single children. The level farthest from the median that
    few share is counted at the nearest one that anybody has, until there is none. Its children stay on their
    side of the median where there is room: beyond the residual's clip it does not matter how far.

    Parameters
    ----------
    rows : (n, 7) or (n, 23) float64
        Of `LEVELS` or `ADJUSTED`.
    fewest : int

    """
    rows = rows.copy()
    numbers = 1 if rows.shape[1] == LEVELS.dimension else 3
    levels = rows[:, : numbers * len(GASE_LEVELS)].reshape(len(rows), len(GASE_LEVELS), numbers).copy()
    counts = levels[:, :, 0].sum(axis=0)
    median = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    while True:
        held = np.flatnonzero(counts)
        small = [int(k) for k in held if counts[k] < fewest]
        if not small or len(held) < 2:
            rows[:, : numbers * len(GASE_LEVELS)] = levels.reshape(len(rows), numbers * len(GASE_LEVELS))
            return rows
        moved = max(small, key=lambda k: abs(k - median))
        goal = min((int(k) for k in held if k != moved), key=lambda k: (abs(k - moved), abs(k - median)))
        levels[:, goal] += levels[:, moved]
        levels[:, moved] = 0.0
        counts = levels[:, :, 0].sum(axis=0)


def centre_release(centring: Centring) -> ReleaseKind:
    """Return the release that a protocol's centre is read from."""
    return {"mean": CENTRE, "levels": LEVELS, "adjusted": ADJUSTED}[centring]


def rows_to_centre(centring: Centring, gase: Floats, of_children: Floats) -> Floats:
    """Return the (n, d) rows of `centre_release`, of GASE and (n, 2) `covariates`."""
    if centring == "adjusted":
        return adjusted_rows(gase, of_children)
    return level_rows(gase) if centring == "levels" else centre_rows(gase)


def numbers_of(centring: Centring) -> int:
    """Return how many numbers `centre_of` says of the severity."""
    return 4 if centring == "adjusted" else 1


def centre_of(
    total: NDArray[np.float64], *, centring: Centring, fewest_children: float, noise_sd: float = 0.0
) -> tuple[float, Floats]:
    """Return the number of children, and what their residuals are taken from (`residuals`).

    Parameters
    ----------
    total : (d,) float64
        Sum of the rows of `centre_release`, noise included.
    centring : {'mean', 'levels', 'adjusted'}
    fewest_children : float
        A public lower bound on how many children were summed.
    noise_sd : float
        Standard deviation of the noise in each number of `total`; it shrinks the slopes.

    Returns
    -------
    children : float
    severity : (1,) or (4,) float64
        The centre; then the adjustment of a child whose covariates are 0, and what it changes by with each.
        The same on every machine: plain sums, in a fixed order.

    """
    if centring == "mean":
        children, centre = read_centre(total, fewest_children=fewest_children)
        return children, np.array([centre])
    told = [float(x) for x in total]
    counts = told if centring == "levels" else told[: 3 * len(GASE_LEVELS) : 3]
    children, held = max(sum(counts), fewest_children), [max(count, 0.0) for count in counts]
    if centring == "levels":
        return children, np.array([_balance(held, RESIDUAL_CLIP)])
    centre = _balance(held, ADJUSTED_CLIP)
    return children, np.array([centre, *_adjustment(told, centre, children, noise_sd)])


def weight_of_slope(total: NDArray[np.float64], centre: float) -> float | None:
    """Return the weight of an edge whose score rises by one per unit of severity.

    A weight is the mean of score times clipped residual: the slope times the mean of severity times clipped
    residual, which the counts by level tell.

    Parameters
    ----------
    total : (7,) float64
        Sum of `level_rows`, noise included.
    centre : float
        Where the clipped residuals sum to zero.

    Returns
    -------
    float or None
        None where the counts, or what noise left of them, tell of no spread.

    """
    counts = [max(float(x), 0.0) for x in total]
    away = [y - centre for y in _SEVERITIES]
    product = sum(n * _clipped(y, RESIDUAL_CLIP) * y for n, y in zip(counts, away, strict=True))
    return product / sum(counts) if product > 0 else None


def _adjustment(told: Sequence[float], centre: float, children: float, noise_sd: float) -> list[float]:
    """Return intercept and slopes of the clipped residuals on both covariates, which sum to zero."""
    residual = [_clipped(y - centre, ADJUSTED_CLIP) for y in _SEVERITIES]
    sums = [[2 * x for x in told[k : 3 * len(GASE_LEVELS) : 3]] for k in (1, 2)]
    mean = [_clipped(sum(each) / children, 1.0) for each in sums]
    counted = sum(r * n for r, n in zip(residual, told[: 3 * len(GASE_LEVELS) : 3], strict=True)) / children
    along = [
        sum(r * x for r, x in zip(residual, each, strict=True)) / children - m * counted
        for each, m in zip(sums, mean, strict=True)
    ]
    squares = [2 * told[-2] / children, 1.0]
    variance = [max(q - m * m, _SMALLEST_VARIANCE) for q, m in zip(squares, mean, strict=True)]
    largest = _LARGEST_COLLINEARITY * math.sqrt(variance[0] * variance[1])
    both = _clipped(2 * told[-1] / children - mean[0] * mean[1], largest)
    determinant = variance[0] * variance[1] - both * both
    slopes = [
        (variance[1] * along[0] - both * along[1]) / determinant,
        (variance[0] * along[1] - both * along[0]) / determinant,
    ]
    noise = 2 * noise_sd * math.sqrt(sum(r * r for r in residual)) / children
    slopes = [
        b * _PRIOR_SLOPE**2 / (_PRIOR_SLOPE**2 + (noise / v) ** 2)
        for b, v in zip(slopes, variance, strict=True)
    ]
    return [-slopes[0] * mean[0] - slopes[1] * mean[1], *slopes]


def residuals(gase: Floats, of_children: Floats, severity: Floats) -> Floats:
    """Return each child's (n,) severity residual, within -0.8 and 0.8, from that child alone.

    Clipped, then adjusted: what is clipped after it would go with age again.

    Parameters
    ----------
    gase : (n,) float64
    of_children : (n, 2) float64
        `covariates`; not read unless the residuals are adjusted.
    severity : (1,) or (4,) float64
        As `centre_of` says.

    """
    if len(severity) == 1:
        return np.asarray(np.clip(standardise_severity(gase) - severity[0], -RESIDUAL_CLIP, RESIDUAL_CLIP))
    centre, intercept, by_age, by_sex = severity
    held: Floats = np.clip(standardise_severity(gase) - centre, -ADJUSTED_CLIP, ADJUSTED_CLIP)
    adjustment = intercept + of_children[:, 0] * by_age + of_children[:, 1] * by_sex
    adjusted: Floats = held - np.clip(adjustment, -LARGEST_ADJUSTMENT, LARGEST_ADJUSTMENT)
    return adjusted


def _balance(counts: Sequence[float], clip: float) -> float:
    """Return where the clipped residuals sum to zero; the middle of where they do, and 0 of nobody.

    The sum falls along straight lines between the places at which a level begins or ends to be clipped.
    """
    if not any(counts):
        return 0.0
    places = sorted({y + side for y in _SEVERITIES for side in (-clip, clip)})
    sums = [_residual_sum(counts, place, clip) for place in places]
    # At the first place all residuals are positive, at the last all are negative.
    last = max(i for i, total in enumerate(sums) if total > 0)
    first = min(i for i, total in enumerate(sums) if total < 0)
    return (_root(places, sums, last) + _root(places, sums, first - 1)) / 2


def _root(places: Sequence[float], sums: Sequence[float], i: int) -> float:
    fall = sums[i] - sums[i + 1]
    return places[i] + (places[i + 1] - places[i]) * (sums[i] / fall)


def _residual_sum(counts: Sequence[float], centre: float, clip: float) -> float:
    total = 0.0
    for count, severity in zip(counts, _SEVERITIES, strict=True):
        total += count * _clipped(severity - centre, clip)
    return total


def _clipped(number: float, clip: float) -> float:
    return min(max(number, -clip), clip)
