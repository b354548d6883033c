"""Areas under ROC curves: how well a score tells two outcomes apart, from histograms."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind
from esn_core.statistics.intervals import Z_95

# An area this near to 0 or 1, or a variance this small, is what the grid of sums leaves of none.
_AT_THE_END = 1e-9

# --- first pass: two histograms of each score -------------------------------------------------------


def histogram(bins: int, *, name: str = "histogram") -> ReleaseKind:
    """Describe two histograms of `bins` bins, of the children without and with an outcome.

    Row: one at the child's own bin of its own outcome, zero elsewhere: norm 1. A child whose score or
    outcome is not known adds zeros.
    """
    return ReleaseKind(name, "held-out", 2 * bins, 1.0)


def histogram_rows(values: Floats, outcome: NDArray[np.bool_] | Floats, *, bins: int) -> Floats:
    """Return the (n, 2 bins) rows of `histogram`.

    Parameters
    ----------
    values : (n,) float64
        In [0, 1]; others count in the first and last bin.
    outcome : (n,) bool or float64
        NaN where it is not known.
    bins : int

    """
    known = _known(values, outcome)
    rows = np.zeros((len(values), 2 * bins))
    ill = np.nan_to_num(np.asarray(outcome, dtype=np.float64)) > 0.5
    rows[np.arange(len(values)), _bins(values, bins) + bins * ill] = 1.0
    return np.where(known[:, None], rows, 0.0)


@dataclass(frozen=True)
class Auc:
    """Area under a ROC curve: how often an impaired child has the larger score.

    Attributes
    ----------
    value : float
        Of the scores rounded to their bins; children in one bin count half.
    binning_bound : float
        The area of the scores before rounding differs from `value` by no more than this. 0 where the bins
        are the score's own levels.
    standard_error : float
        For the choice of children, by Hanley & McNeil (1982, Radiology 143:29).
    noise_sd : float
        Standard deviation that the noise gives to the area, to first order.
    interval : (float, float)
        95 %, for the choice of children and the noise together, within 0 and 1 (`area_interval`).
    children, positives : float
        Not whole numbers when noise was added.
    false_positive_rate, true_positive_rate : (bins + 1,) float64
        The curve, from (0, 0) to (1, 1).

    """

    value: float
    binning_bound: float
    standard_error: float
    noise_sd: float
    interval: tuple[float, float]
    children: float
    positives: float
    false_positive_rate: Floats
    true_positive_rate: Floats


def auc(total: Floats, *, levels: bool = False, noise_sd: float = 0.0) -> Auc | None:
    """Compute the area under a ROC curve from a sum of `histogram_rows`.

    Parameters
    ----------
    total : (2 bins,) float64
    levels : bool
        Whether each bin holds one value of the score: then children in one bin are truly tied.
    noise_sd : float
        Standard deviation of the noise in each number of `total`.

    Returns
    -------
    Auc or None
        None where fewer than one child has, or lacks, the outcome; where the number of either could be noise
        (two standard deviations of it); and where the noise leaves an area beyond 0 and 1.

    Raises
    ------
    DataError
        The sum has an odd length, or is not finite.

    """
    without, with_it = _halves(total)
    m, n = float(without.sum()), float(with_it.sum())
    if min(m, n) < max(1.0, 2 * noise_sd * math.sqrt(len(without))):
        return None
    below = (np.cumsum(without) - without / 2) / m  # of those without it, share below each bin
    above = 1 - (np.cumsum(with_it) - with_it / 2) / n  # of those with it, share above each bin
    area = float(with_it @ below) / n
    if noise_sd and not 0 <= area <= 1:
        return None
    error = _hanley_mcneil(area, n, m)
    # The area moves by (below - A) / n for a child with the outcome in a bin, by (above - A) / m for another.
    noise = noise_sd * math.sqrt(
        float(np.sum((below - area) ** 2)) / n**2 + float(np.sum((above - area) ** 2)) / m**2
    )
    return Auc(
        value=area,
        binning_bound=0.0 if levels else float(np.abs(with_it) @ np.abs(without)) / (2 * n * m),
        standard_error=error,
        noise_sd=noise,
        interval=area_interval(area, n, m, noise_sd=noise),
        children=n + m,
        positives=n,
        false_positive_rate=np.concatenate([[0.0], np.cumsum(without[::-1]) / m]),
        true_positive_rate=np.concatenate([[0.0], np.cumsum(with_it[::-1]) / n]),
    )


def area_interval(area: float, n: float, m: float, *, noise_sd: float = 0.0) -> tuple[float, float]:
    """Return the 95 % interval of an area by scores: it has a width at 0 and 1, too.

    Newcombe (2006, Statistics in Medicine 25:559), method 5: the areas t whose own standard error is at least
    |A - t| / 1.96, by Hanley & McNeil's formula with half of all children in place of either number. The
    noise is added to it in squares.

    Parameters
    ----------
    area : float
        Between 0 and 1.
    n, m : float
        Children with and without the outcome.
    noise_sd : float
        Of the area.

    """
    half = (n + m) / 2

    def beyond(t: float) -> float:
        spread = 1 + (half - 1) * ((1 - t) / (2 - t) + t / (1 + t))
        return abs(area - t) - Z_95 * math.sqrt(t * (1 - t) * spread / (n * m) + noise_sd**2)

    def limit(end: float) -> float:
        return end if beyond(end) <= 0 else float(brentq(beyond, end, inside))

    # At 0 and 1 themselves the difference is as small as its error: both are nothing.
    inside = min(max(area, 1e-9), 1 - 1e-9)
    return (0.0 if area <= 0 else limit(0.0)), (1.0 if area >= 1 else limit(1.0))


# --- second pass: DeLong's variance and test ----------------------------------------------------------


def delong(scores: int, *, name: str = "delong") -> ReleaseKind:
    """Describe the sums of DeLong's structural components of `scores` scores of the same children.

    Row: (1, V_i, V_i V_j for i <= j) in the half of the child's own outcome, zero in the other half. V_i, the
    share of children with the other outcome that the child's score i is on the right side of, lies in [0, 1]:
    the norm is at most sqrt(1 + k + k (k + 1) / 2) for k scores. A child whose outcome or one of whose scores
    is not known adds zeros.
    """
    numbers = 1 + scores + scores * (scores + 1) // 2
    return ReleaseKind(name, "held-out", 2 * numbers, math.sqrt(numbers))


def delong_rows(
    values: Floats, outcome: NDArray[np.bool_] | Floats, *, histograms: tuple[Floats, ...]
) -> Floats:
    """Return the rows of `delong`.

    Parameters
    ----------
    values : (n, k) float64
        Scores in [0, 1], as for `histogram_rows`.
    outcome : (n,) bool or float64
        NaN where it is not known.
    histograms : k arrays of (2 bins,) float64
        The sum of `histogram_rows` of each score, over all sites and of the same children.

    """
    known = _known(values, outcome)
    ill = np.nan_to_num(np.asarray(outcome, dtype=np.float64)) > 0.5
    components = np.empty(values.shape)
    for k, total in enumerate(histograms):
        without, with_it = _halves(total)
        below = (np.cumsum(without) - without / 2) / max(float(without.sum()), 1.0)
        above = 1 - (np.cumsum(with_it) - with_it / 2) / max(float(with_it.sum()), 1.0)
        at = _bins(values[:, k], len(without))
        components[:, k] = np.clip(np.where(ill, below[at], above[at]), 0.0, 1.0)
    i, j = np.triu_indices(values.shape[1])
    half = np.column_stack([np.ones(len(values)), components, components[:, i] * components[:, j]])
    rows = np.concatenate([np.where(ill[:, None], 0.0, half), np.where(ill[:, None], half, 0.0)], axis=1)
    return np.where(known[:, None], rows, 0.0)


@dataclass(frozen=True)
class DeLong:
    """Areas of several scores of the same children, with their covariance.

    Attributes
    ----------
    areas : (k,) float64
    covariance : (k, k) float64
        DeLong, DeLong & Clarke-Pearson (1988, Biometrics 44:837).
    intervals : (k, 2) float64
        95 %, on the scale of the logit (Pepe 2003, section 5.2.3); by `area_interval` for an area of 0 or 1,
        which has no variance.

    """

    areas: Floats
    covariance: Floats
    intervals: Floats

    def difference(self, first: int, second: int) -> "AucDifference":
        """Compare two of the scores, both measured in the same children.

        An area of 0 or 1 has no variance, and says nothing of how it goes with another: there the interval is
        put together from those of both areas, as if they were independent (MOVER, Zou & Donner 2008), and
        there is no test.
        """
        areas = self.areas[[first, second]]
        apart = float(areas[0] - areas[1])
        if (areas * (1 - areas) < _AT_THE_END).any():
            (low, high), (low_2, high_2) = self.intervals[[first, second]].tolist()
            down, up = (
                math.hypot(areas[0] - low, high_2 - areas[1]),
                math.hypot(high - areas[0], areas[1] - low_2),
            )
            return AucDifference(apart, (apart - down, apart + up), None, None, None)
        contrast = np.zeros(len(self.areas))
        contrast[first], contrast[second] = 1.0, -1.0
        error = math.sqrt(max(float(contrast @ self.covariance @ contrast), 0.0))
        z = apart / error if error > 0 else 0.0
        ends = (apart - Z_95 * error, apart + Z_95 * error)
        return AucDifference(apart, ends, error, z, float(2 * ndtr(-abs(z))))


@dataclass(frozen=True)
class AucDifference:
    """DeLong's paired test of two areas.

    Attributes
    ----------
    value : float
    interval : (float, float)
        95 %.
    standard_error, z, p_value : float or None
        Two-sided; 0, 0 and 1 where the two scores rank all children alike. None where an area is 0 or 1.

    """

    value: float
    interval: tuple[float, float]
    standard_error: float | None
    z: float | None
    p_value: float | None


def delong_areas(total: Floats, scores: int) -> DeLong:
    """Compute areas and their covariance from an exact sum of `delong_rows`.

    Parameters
    ----------
    total : (2 (1 + k + k (k + 1) / 2),) float64
    scores : int
        k.

    Raises
    ------
    DataError
        The sum has another length or is not finite, or fewer than two children have, or lack, the outcome.

    """
    kind = delong(scores)
    if total.shape != (kind.dimension,) or not np.isfinite(total).all():
        raise DataError(
            f"DeLong's sums of {scores} scores hold {kind.dimension} finite numbers, not {total.shape}"
        )
    covariance, areas, counts = np.zeros((scores, scores)), np.zeros(scores), []
    for half, what in zip(np.split(total, 2), ("without", "with"), strict=True):
        n = float(half[0])
        if n < 2 - 1e-6:
            raise DataError(f"DeLong's variance needs two children {what} the outcome, not {n:.1f}")
        mean = half[1 : 1 + scores] / n
        products = np.zeros((scores, scores))
        products[np.triu_indices(scores)] = half[1 + scores :]
        products += np.triu(products, 1).T
        covariance += (products - n * np.outer(mean, mean)) / (n - 1) / n
        areas = mean
        counts.append(n)
    m, n = counts
    intervals = [
        _logit_interval(float(a), float(v), n, m) for a, v in zip(areas, np.diag(covariance), strict=True)
    ]
    return DeLong(areas, covariance, np.array(intervals))


def _logit_interval(area: float, variance: float, n: float, m: float) -> tuple[float, float]:
    spread = area * (1 - area)
    if spread < _AT_THE_END or variance < _AT_THE_END:
        return area_interval(min(max(area, 0.0), 1.0), n, m)
    middle, half = math.log(area / (1 - area)), Z_95 * math.sqrt(variance) / spread
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def _known(values: Floats, outcome: NDArray[np.bool_] | Floats) -> NDArray[np.bool_]:
    missing = np.isnan(values) if values.ndim == 1 else np.isnan(values).any(axis=1)
    return ~missing & ~np.isnan(np.asarray(outcome, dtype=np.float64))


def _bins(values: Floats, bins: int) -> NDArray[np.int64]:
    held = np.clip(np.nan_to_num(values, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return np.minimum(np.floor(held * bins), bins - 1).astype(np.int64)


def _halves(total: Floats) -> tuple[Floats, Floats]:
    """Return the histograms of the children without and with the outcome."""
    if total.ndim != 1 or len(total) % 2 or not len(total) or not np.isfinite(total).all():
        raise DataError(f"two histograms hold an even number of finite counts, not {total.shape}")
    without, with_it = np.split(total, 2)
    return without, with_it


def _hanley_mcneil(area: float, n: float, m: float) -> float:
    """Return the standard error of an area from n children with the outcome and m without (equation 2)."""
    q_1, q_2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n - 1) * (q_1 - area**2) + (m - 1) * (q_2 - area**2)
    return math.sqrt(max(variance, 0.0) / (n * m))
