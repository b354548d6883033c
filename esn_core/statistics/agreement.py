"""Agreement of predicted with clinical GASE, from sums over children.

`evaluation_rows` is what one child adds, `EVALUATION` the bound of it, `agreement` what the sum over all
children says. No child's prediction is needed for r and the errors, only the sums:

>>> predicted, clinical = np.array([2.0, 3.0, 5.0, 6.0]), np.array([1.0, 3.0, 5.0, 7.0])
>>> found = agreement(evaluation_rows(predicted, clinical).sum(axis=0))
>>> round(found.r, 6), round(float(np.corrcoef(predicted, clinical)[0, 1]), 6)
(0.989949, 0.989949)
>>> round(found.children, 9), round(found.mae, 9)
(4.0, 0.5)
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError
from esn_core.gase import GASE_LEVELS, GASE_MIDDLE, HALF_RANGE
from esn_core.privacy.release import ReleaseKind
from esn_core.statistics.intervals import fisher_interval

EVALUATION = ReleaseKind("evaluation", "held-out", 7 + 3 * len(GASE_LEVELS), math.sqrt(7))
"""Row: (1/2, a, b, a^2, b^2, ab, |a - b| / 2), then (1, a, a^2) / 2 at the child's own GASE, elsewhere 0.

a = (prediction - 4) / 3 and b = (GASE - 4) / 3 lie in [-1, 1]. Every square grows with |a| and |b|, so the
norm is largest at the ends: 1/4 + 5 + 1 + 3/4 = 7 at a = -b, squared; 6 at a = b. The moments give r, the
errors and the calibration; the sums by level, with twice the noise, a figure.
"""


def evaluation_rows(prediction: NDArray[np.float64], gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 28) rows of `EVALUATION`.

    Parameters
    ----------
    prediction : (n,) float64
        Predicted GASE; clipped to 1-7, as a prediction outside is reported as the end of the scale.
    gase : (n,) float64
        Clinical GASE, whole numbers 1-7.

    """
    a = (np.clip(prediction, GASE_LEVELS[0], GASE_LEVELS[-1]) - GASE_MIDDLE) / HALF_RANGE
    b = (gase - GASE_MIDDLE) / HALF_RANGE
    moments = np.column_stack([np.full(len(a), 0.5), a, b, a**2, b**2, a * b, np.abs(a - b) / 2])
    by_level = np.zeros((len(a), len(GASE_LEVELS), 3))
    level = gase.astype(np.int64) - GASE_LEVELS[0]
    by_level[np.arange(len(a)), level] = np.column_stack([np.ones(len(a)), a, a**2]) / 2
    return np.concatenate([moments, by_level.reshape(len(a), 3 * len(GASE_LEVELS))], axis=1)


# Below this a variance is what rounding leaves of zero.
_SMALLEST_VARIANCE = 1e-12
FEWEST_CHILDREN = 4


@dataclass(frozen=True)
class Level:
    """The children of one clinical GASE.

    Attributes
    ----------
    gase : int
    children : float
        Not a whole number when noise was added.
    mean_prediction, sd_prediction : float or None
        In steps of GASE; None where fewer than one child is left after noise, the mean
        lies outside 1 to 7, or the variance came out negative.

    """

    gase: int
    children: float
    mean_prediction: float | None
    sd_prediction: float | None


@dataclass(frozen=True)
class Agreement:
    """How well the prediction agrees with the clinical score.

    Attributes
    ----------
    children : float
        Held-out children; not a whole number when noise was added.
    r : float or None
        Pearson correlation; None when the sums allow none (see `undefined_because`).
    r_interval : (float, float) or None
        95 % interval by Fisher's transformation; sampling error only.
    mae, rmse : float or None
        In steps of GASE.
    slope, intercept : float or None
        Of the regression of clinical on predicted GASE; 1 and 0 are perfect calibration.
    levels : tuple of Level
    undefined_because : str or None

    """

    children: float
    r: float | None
    r_interval: tuple[float, float] | None
    mae: float | None
    rmse: float | None
    slope: float | None
    intercept: float | None
    levels: tuple[Level, ...]
    undefined_because: str | None


def agreement(total: NDArray[np.float64]) -> Agreement:
    """Compute the agreement from a sum of `evaluation_rows`.

    Parameters
    ----------
    total : (28,) float64

    Raises
    ------
    DataError
        The sum has another shape or is not finite.

    """
    if total.shape != (EVALUATION.dimension,) or not np.isfinite(total).all():
        raise DataError(f"an evaluation sum holds {EVALUATION.dimension} finite numbers, not {total.shape}")
    half, sum_a, sum_b, sum_aa, sum_bb, sum_ab, apart = (float(x) for x in total[:7])
    n = 2 * half
    counts, sums, squares = 2 * total[7:].reshape(-1, 3).T
    levels = tuple(
        _level(g, float(c), float(s), float(q))
        for g, c, s, q in zip(GASE_LEVELS, counts, sums, squares, strict=True)
    )
    if n < FEWEST_CHILDREN:
        because = f"{n:.1f} children are left after noise; at least {FEWEST_CHILDREN} are needed"
        return _undefined(n, levels, because)
    mean_a, mean_b = sum_a / n, sum_b / n
    var_a, var_b = sum_aa / n - mean_a**2, sum_bb / n - mean_b**2
    cov = sum_ab / n - mean_a * mean_b
    mean_square = (sum_aa + sum_bb - 2 * sum_ab) / n
    # The errors need no variance: they may stand where r is undefined.
    mae = 2 * apart / n * HALF_RANGE
    errors = (mae if mae >= 0 else None, math.sqrt(mean_square) * HALF_RANGE if mean_square >= 0 else None)
    if min(var_a, var_b) < _SMALLEST_VARIANCE:
        because = "predictions or scores do not vary, or less than the noise"
        return _undefined(n, levels, because, errors=errors)
    r = cov / math.sqrt(var_a * var_b)
    if abs(r) >= 1 + 1e-9:
        because = f"the noise exceeds the variance of the scores (r would be {r:.2f})"
        return _undefined(n, levels, because, errors=errors)
    r = min(max(r, -1.0), 1.0)
    slope = cov / var_a
    return Agreement(
        children=n,
        r=r,
        r_interval=fisher_interval(r, n),
        mae=errors[0],
        rmse=errors[1],
        slope=slope,
        intercept=(mean_b - slope * mean_a) * HALF_RANGE + GASE_MIDDLE * (1 - slope),
        levels=levels,
        undefined_because=None,
    )


def noise_sd_of_r(
    total: NDArray[np.float64], noise_sd: float, *, rng: np.random.Generator, draws: int = 400
) -> float | None:
    """Estimate the standard deviation that the released noise gives to r.

    Noise of the known standard deviation is added once more to the released
    sum, `draws` times: what it does to r a second time is what it did the first.
    A draw that takes the ratio beyond 1 counts as it stands: an r near 1 is no
    reason to know less of its noise.

    Returns
    -------
    float or None
        0 without noise; None when r is undefined, or when in more than a tenth of the draws too few
        children or no variance is left.

    """
    if agreement(total).r is None:
        return None
    if noise_sd == 0:
        return 0.0
    again = (_ratio(total + rng.normal(0, noise_sd, total.shape)) for _ in range(draws))
    defined = [r for r in again if r is not None]
    return float(np.std(defined)) if len(defined) >= 0.9 * draws else None


def _ratio(total: NDArray[np.float64]) -> float | None:
    """Return the covariance over both standard deviations, beyond 1 where the noise takes it there."""
    half, sum_a, sum_b, sum_aa, sum_bb, sum_ab = (float(x) for x in total[:6])
    n = 2 * half
    if n < FEWEST_CHILDREN:
        return None
    var_a, var_b = sum_aa / n - (sum_a / n) ** 2, sum_bb / n - (sum_b / n) ** 2
    if min(var_a, var_b) < _SMALLEST_VARIANCE:
        return None
    return (sum_ab / n - sum_a * sum_b / n**2) / math.sqrt(var_a * var_b)


def noise_sd_of_mae(children: float, noise_sd: float, *, mae: float) -> float | None:
    """Return the standard deviation that the released noise gives to the mean absolute error.

    The sum of absolute errors is released as |a - b| / 2 with |a - b| in units
    of three steps of GASE, and divided by the number of children, which is
    released as halves: both are noised alike.

    Parameters
    ----------
    children, noise_sd : float
    mae : float
        In steps of GASE.

    Returns
    -------
    float or None
        In steps of GASE; None when no child is left after noise.

    """
    return 2 * noise_sd * math.hypot(HALF_RANGE, mae) / children if children > 0 else None


def _level(gase: int, children: float, total: float, squares: float) -> Level:
    if children < 1:
        return Level(gase, children, None, None)
    mean = total / children
    variance = squares / children - mean**2
    if abs(mean) > 1:
        return Level(gase, children, None, None)
    sd = math.sqrt(variance) * HALF_RANGE if variance >= 0 else None
    return Level(gase, children, GASE_MIDDLE + mean * HALF_RANGE, sd)


def _undefined(
    n: float,
    levels: tuple[Level, ...],
    because: str,
    *,
    errors: tuple[float | None, float | None] = (None, None),
) -> Agreement:
    return Agreement(n, None, None, *errors, None, None, levels, because)
