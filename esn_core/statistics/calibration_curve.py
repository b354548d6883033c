"""Reliability of predicted probabilities: whether as many children have the outcome as was predicted."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind
from esn_core.statistics.intervals import Z_95


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
        Mean probability and share with the outcome; None where fewer than one child is left.
    interval : (float, float) or None
        95 % of the share, by Wilson (1927); sampling error only.

    """

    children: float
    predicted: float | None
    observed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Reliability:
    """How far predicted probabilities can be taken at their word.

    The calibration slope is that of a logistic model of the outcome on the logit of the probability
    (`esn_core.statistics.logistic_fit`); 1 is perfect.

    Attributes
    ----------
    in_the_large : float
        Share with the outcome less mean probability; 0 is perfect.
    in_the_large_interval : (float, float)
        95 %, for the choice of children and the noise together.
    brier : float
        Mean squared difference of probability and outcome.
    hosmer_lemeshow, p_value : float or None
        Chi-squared over the groups that have children (Hosmer & Lemeshow 1980) with two degrees of freedom
        fewer than groups; None under noise, or where fewer than three groups have children.
    groups : tuple of Group

    """

    in_the_large: float
    in_the_large_interval: tuple[float, float]
    brier: float
    hosmer_lemeshow: float | None
    p_value: float | None
    groups: tuple[Group, ...]


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
        The sum has another length, is not finite, or holds less than one child.

    """
    if total.ndim != 1 or len(total) % 4 or not np.isfinite(total).all():
        raise DataError(f"a calibration curve holds four finite numbers a group, not {total.shape}")
    rows = total.reshape(-1, 4)
    n, predicted, observed, squares = (float(x) for x in rows.sum(axis=0))
    if n < 1:
        raise DataError(f"a calibration curve needs a child or more, not {n:.1f}")
    share = min(max(predicted / n, 0.0), 1.0)
    gap = (observed - predicted) / n
    # The outcomes' variance at the predicted probabilities, and the noise of two sums over all groups.
    sampling = math.sqrt(share * (1 - share) / n)
    half = Z_95 * math.hypot(sampling, noise_sd * math.sqrt(2 * len(rows)) / n)
    statistic, p_value = _hosmer_lemeshow(rows) if noise_sd == 0 else (None, None)
    return Reliability(
        in_the_large=gap,
        in_the_large_interval=(gap - half, gap + half),
        brier=squares / n,
        hosmer_lemeshow=statistic,
        p_value=p_value,
        groups=tuple(_group(*(float(x) for x in row[:3])) for row in rows),
    )


def _hosmer_lemeshow(rows: Floats) -> tuple[float | None, float | None]:
    count, predicted, observed = rows[rows[:, 0] > 0.5, :3].T
    expected = predicted * (1 - predicted / count)
    if len(count) < 3 or (expected <= 0).any():
        return None, None
    statistic = float(np.sum((observed - predicted) ** 2 / expected))
    return statistic, float(chi2.sf(statistic, len(count) - 2))


def _group(children: float, predicted: float, observed: float) -> Group:
    if children < 1:
        return Group(children, None, None, None)
    share = min(max(observed / children, 0.0), 1.0)
    square = Z_95**2 / children
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return Group(children, predicted / children, share, (middle - half, middle + half))
