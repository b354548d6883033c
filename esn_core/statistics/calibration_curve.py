"""Reliability of predicted probabilities: whether as many children have the outcome as was predicted."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind
from esn_core.statistics.intervals import Z_95, share_interval


def reliability(groups: int, *, name: str = "reliability") -> ReleaseKind:
    """Describe the sums of a calibration curve with `groups` groups of predicted probability.

    Row: (1, p, y, (p - y)^2) in the child's own group, zero elsewhere. With y = 1 its squares are
    2 + p^2 + (1 - p)^4, with y = 0 they are 1 + p^2 + p^4: convex in p, and at most 3 at its ends, so the
    norm is at most sqrt(3). A child without probability or outcome adds zeros.
    """
    return ReleaseKind(name, "held-out", 4 * groups, math.sqrt(3))


def reliability_rows(probability: Floats, outcome: NDArray[np.bool_] | Floats, *, groups: int) -> Floats:
    """Return the (n, 4 groups) rows of `reliability`.

    Parameters
    ----------
    probability : (n,) float64
        Predicted; held to [0, 1], NaN where it is not known.
    outcome : (n,) bool or float64
        NaN where it is not known.
    groups : int
        Of equal width.

    """
    y = np.asarray(outcome, dtype=np.float64)
    known = ~np.isnan(probability) & ~np.isnan(y)
    p = np.clip(np.nan_to_num(probability), 0.0, 1.0)
    y = (np.nan_to_num(y) > 0.5).astype(np.float64)
    rows = np.zeros((len(p), groups, 4))
    at = np.minimum(np.floor(p * groups), groups - 1).astype(np.int64)
    rows[np.arange(len(p)), at] = np.column_stack([np.ones(len(p)), p, y, (p - y) ** 2])
    return np.where(known[:, None], rows.reshape(len(p), -1), 0.0)


@dataclass(frozen=True)
class Group:
    """The children of one range of predicted probability.

    Attributes
    ----------
    children : float
        Not a whole number when noise was added.
    predicted, observed : float or None
        Mean probability and share with the outcome; None where fewer than one child is left, or the number
        could be noise.
    interval : (float, float) or None
        95 % of the share, by Wilson (1927), the noise included.

    """

    children: float | None
    predicted: float | None
    observed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Share:
    """A share of children, such as a sensitivity.

    Attributes
    ----------
    value : float
    interval : (float, float)
        95 %, by Wilson, the noise included.

    """

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class AtThreshold:
    """What calling every child impaired whose probability reaches a threshold would do.

    Attributes
    ----------
    threshold : float
    sensitivity, specificity, positive_predictive_value, negative_predictive_value : Share or None
        None where there is nobody to take a share of, or as few as noise could make.
    net_benefit : float or None
        True positives less false ones at the odds of the threshold, per child (Vickers & Elkin 2006). None
        where noise leaves no value from minus these odds, all false, to the share with the outcome, all true.
    net_benefit_interval : (float, float) or None
        95 %, for the choice of children and the noise together, within minus the odds and 1.
    net_benefit_of_all : float or None
        Of calling every child impaired; that of nobody is 0.

    """

    threshold: float
    sensitivity: Share | None
    specificity: Share | None
    positive_predictive_value: Share | None
    negative_predictive_value: Share | None
    net_benefit: float | None
    net_benefit_interval: tuple[float, float] | None
    net_benefit_of_all: float | None


@dataclass(frozen=True)
class Reliability:
    """How far predicted probabilities can be taken at their word.

    Attributes
    ----------
    in_the_large : float or None
        Share with the outcome less mean probability; 0 is perfect. None where noise leaves no value from -1
        to 1.
    in_the_large_interval : (float, float) or None
        95 %, for the choice of children and the noise together, within -1 and 1.
    brier : float or None
        Mean squared difference of probability and outcome; None where noise leaves no value from 0 to 1.
    brier_interval : (float, float) or None
        95 %, for both; the spread of the squares is that of the groups' mean probabilities.
    hosmer_lemeshow, p_value : float or None
        Chi-squared over the groups that have children (Hosmer & Lemeshow 1980) with two degrees of freedom
        fewer than groups; None under noise, or where fewer than three groups have children.
    groups : tuple of Group
        `GROUPS` of equal width, each of neighbours among those that were summed.
    thresholds : tuple of AtThreshold
        One at each boundary of those that were summed.

    """

    in_the_large: float | None
    in_the_large_interval: tuple[float, float] | None
    brier: float | None
    brier_interval: tuple[float, float] | None
    hosmer_lemeshow: float | None
    p_value: float | None
    groups: tuple[Group, ...]
    thresholds: tuple[AtThreshold, ...]


GROUPS = 5
"""Of a calibration curve, and of Hosmer and Lemeshow's test."""


def judge_reliability(total: Floats, *, noise_sd: float = 0.0) -> Reliability:
    """Judge predicted probabilities by a sum of `reliability_rows`.

    Parameters
    ----------
    total : (4 groups,) float64
    noise_sd : float
        Standard deviation of the noise in each number of `total`.

    Raises
    ------
    DataError
        The sum has another length, is not finite, or holds less than one child, or as few as noise could
        make.

    """
    if total.ndim != 1 or len(total) % 4 or not np.isfinite(total).all():
        raise DataError(f"a calibration curve holds four finite numbers a group, not {total.shape}")
    rows = total.reshape(-1, 4)
    n, predicted, observed, squares = (float(x) for x in rows.sum(axis=0))
    of_all = noise_sd * math.sqrt(len(rows))
    fewest = max(1.0, 2 * of_all)
    if n < fewest:
        raise DataError(f"a calibration curve needs {fewest:.3g} children or more, not {n:.1f}")
    share = min(max(predicted / n, 0.0), 1.0)
    gap = (observed - predicted) / n
    # The outcomes' variance at the predicted probabilities, and the noise of two sums over all groups.
    sampling = math.sqrt(share * (1 - share) / n)
    half = Z_95 * math.hypot(sampling, math.sqrt(2) * of_all / n)
    coarse, each = _coarser(rows), noise_sd * math.sqrt(len(rows) / len(_coarser(rows)))
    statistic, p_value = _hosmer_lemeshow(coarse) if noise_sd == 0 else (None, None)
    brier = squares / n
    spread = Z_95 * math.hypot(_error_of_brier(rows, brier), of_all * math.hypot(1, brier) / n)
    possible = 0 <= brier <= 1
    return Reliability(
        in_the_large=gap if abs(gap) <= 1 else None,
        in_the_large_interval=(max(gap - half, -1.0), min(gap + half, 1.0)) if abs(gap) <= 1 else None,
        brier=brier if possible else None,
        brier_interval=(max(brier - spread, 0.0), min(brier + spread, 1.0)) if possible else None,
        hosmer_lemeshow=statistic,
        p_value=p_value,
        groups=tuple(_group(*(float(x) for x in row[:3]), noise_sd=each) for row in coarse),
        thresholds=tuple(_at_threshold(rows, k, noise_sd=noise_sd) for k in range(1, len(rows))),
    )


def _coarser(rows: Floats) -> Floats:
    """Add up neighbours, so that `GROUPS` are left, where their number allows."""
    return rows.reshape(GROUPS, -1, 4).sum(axis=1) if len(rows) % GROUPS == 0 else rows


def _error_of_brier(rows: Floats, brier: float) -> float:
    """Return the standard error for the choice of children, each at the mean probability of its group."""
    n, predicted, observed, _ = np.maximum(rows, 0.0).T
    p = np.clip(predicted / np.maximum(n, 1e-12), 0.0, 1.0)
    with_it = np.minimum(observed, n)
    fourth = float(np.sum(with_it * (1 - p) ** 4 + (n - with_it) * p**4))
    children = max(float(n.sum()), 1.0)
    return math.sqrt(max(fourth / children - brier**2, 0.0) / children)


def _at_threshold(rows: Floats, k: int, *, noise_sd: float) -> AtThreshold:
    """Judge the threshold between the first k groups and the others."""
    groups = len(rows)
    below, ill_below = (float(x) for x in rows[:k, [0, 2]].sum(axis=0))
    above, ill_above = (float(x) for x in rows[k:, [0, 2]].sum(axis=0))
    n, ill, threshold = below + above, ill_below + ill_above, k / groups
    few, many = noise_sd * math.sqrt(k), noise_sd * math.sqrt(groups - k)  # noise of a count below, and above
    odds = threshold / (1 - threshold)
    benefit = (ill_above - odds * (above - ill_above)) / n
    share, false = ill_above / n, (above - ill_above) / n
    variance = (share + odds**2 * false - benefit**2) / n
    half = Z_95 * math.hypot(math.sqrt(max(variance, 0.0)), many * math.hypot(1 + odds, odds) / n)
    of_all = ill / n - odds * (1 - ill / n)

    def possible(found: float) -> bool:
        return noise_sd == 0 or (0 <= ill / n <= 1 and -odds <= found <= ill / n)

    return AtThreshold(
        threshold=threshold,
        sensitivity=_share(ill_above, ill_below, many, few),
        specificity=_share(below - ill_below, above - ill_above, math.sqrt(2) * few, math.sqrt(2) * many),
        positive_predictive_value=_share(ill_above, above - ill_above, many, math.sqrt(2) * many),
        negative_predictive_value=_share(below - ill_below, ill_below, math.sqrt(2) * few, few),
        net_benefit=benefit if possible(benefit) else None,
        net_benefit_interval=(max(benefit - half, -odds), min(benefit + half, 1.0))
        if possible(benefit)
        else None,
        net_benefit_of_all=of_all if possible(of_all) else None,
    )


def _share(those: float, others: float, noise_of_those: float, noise_of_others: float) -> Share | None:
    """Return the share of those among all; None where all could be noise, or no share is left."""
    of = those + others
    if of < max(0.5, 2 * math.hypot(noise_of_those, noise_of_others)):
        return None
    share = those / of
    if not -1e-9 <= share <= 1 + 1e-9:
        return None
    noise = math.hypot((1 - share) * noise_of_those, share * noise_of_others) / of
    return Share(min(max(share, 0.0), 1.0), share_interval(those, of, noise_sd=noise))


def _hosmer_lemeshow(rows: Floats) -> tuple[float | None, float | None]:
    count, predicted, observed = rows[rows[:, 0] > 0.5, :3].T
    expected = predicted * (1 - predicted / count)
    if len(count) < 3 or (expected <= 0).any():
        return None, None
    statistic = float(np.sum((observed - predicted) ** 2 / expected))
    return statistic, float(chdtrc(len(count) - 2, statistic))


def _group(children: float, predicted: float, observed: float, *, noise_sd: float) -> Group:
    if children < max(1.0, 2 * noise_sd):
        return Group(children if children >= 0 else None, None, None, None)
    share, mean = observed / children, predicted / children
    if noise_sd and not (0 <= share <= 1 and 0 <= mean <= 1):
        return Group(children, None, None, None)
    noise = noise_sd * math.hypot(1, share) / children
    return Group(children, mean, share, share_interval(observed, children, noise_sd=noise))
