"""Recalibration: intercept and slope that turn a raw prediction into a severity, from five sums.

The release with its bound and the proof of it, its rows, and the reading of its sum (`affine`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError
from esn_core.gase import SEVERITY_CLIP, standardise_severity
from esn_core.privacy.release import ReleaseKind

PREDICTION_CLIP = 2.5
"""Largest standardised raw prediction in the calibration sums."""

CALIBRATION = ReleaseKind("calibration", "training", 5, math.sqrt(5))
"""Row (1, s, s^2, y, s y), s and y each over its clip: every number is at most 1."""


def calibration_rows(raw: NDArray[np.float64], gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 5) rows of `CALIBRATION` for raw predictions in standardised units."""
    s = np.clip(raw, -PREDICTION_CLIP, PREDICTION_CLIP) / PREDICTION_CLIP
    y = standardise_severity(gase) / SEVERITY_CLIP
    return np.column_stack([np.ones(len(s)), s, s**2, y, s * y])


# The pre-trained model predicts standardised severity, so a priori the intercept
# is 0 and the slope 1, each with a standard deviation of a half; a prediction's
# residual variance is about a half as well. Together: two pseudo-children.
_PRIOR_CHILDREN = 2.0
_PRIOR = np.array([0.0, 1.0])

# Signs are in the severity network's weights: a larger raw prediction never means less severe.
_SMALLEST_SLOPE = 0.1


def affine(total: NDArray[np.float64], *, fewest_children: float, noise_sd: float) -> tuple[float, float]:
    """Estimate intercept and slope of severity on the raw prediction.

    Ridge regression towards (0, 1); the ridge grows with the noise, so that a
    release that says nothing leaves the public calibration as it is.

    Parameters
    ----------
    total : (5,) float64
        Sum of `calibration_rows`, noise included.
    fewest_children : float
        A public lower bound on how many children were summed.
    noise_sd : float
        Standard deviation of the noise in each number of `total`.

    Returns
    -------
    intercept, slope : float
        Of standardised severity; the slope is positive.

    Raises
    ------
    DataError
        The sum has another shape or is not finite.

    """
    if total.shape != (CALIBRATION.dimension,) or not np.isfinite(total).all():
        raise DataError(f"a calibration sum holds {CALIBRATION.dimension} finite numbers, not {total.shape}")
    n = max(float(total[0]), fewest_children)
    s, ss = PREDICTION_CLIP * total[1], PREDICTION_CLIP**2 * total[2]
    y, sy = SEVERITY_CLIP * total[3], PREDICTION_CLIP * SEVERITY_CLIP * total[4]
    moments = np.array([[n, s], [s, ss]])
    values, vectors = np.linalg.eigh(moments)
    moments = (vectors * np.maximum(values, 0.0)) @ vectors.T
    ridge = np.diag(_PRIOR_CHILDREN + noise_sd * np.array([1.0, PREDICTION_CLIP**2]))
    intercept, slope = np.linalg.solve(moments + ridge, np.array([y, sy]) + ridge @ _PRIOR)
    return float(np.clip(intercept, -SEVERITY_CLIP, SEVERITY_CLIP)), float(max(slope, _SMALLEST_SLOPE))
