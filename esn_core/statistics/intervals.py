"""Intervals of 95 %: the normal quantiles that all of them use, and that of a correlation."""

import math

import numpy as np
from scipy.special import ndtri

from esn_core.arrays import Floats
from esn_core.errors import DataError

Z_95 = float(ndtri(0.975))
"""Standard errors from the middle of a normal interval of 95 % to its ends."""

DETECTED = Z_95 + float(ndtri(0.8))
"""Standard errors that a difference has to measure for a test at 5 % to find it in four of five studies."""

# Of a correlation of exact sums, which lie on a grid.
_ROUNDING = 1e-9


def fisher_interval(r: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a correlation by Fisher's transformation (Fisher 1921).

    atanh(r) is nearly normal with standard error 1 / sqrt(n - 3). A correlation of 1 or -1 has no atanh, and
    is of few children, or of scores with few values: its other end is that of 1 - 1/2n, as if half a child
    did not go along.

    Raises
    ------
    DataError
        There are three children or fewer.

    """
    if n <= 3:
        raise DataError(f"Fisher's interval needs more than 3 children, not {n:.1f}")
    half = Z_95 / math.sqrt(n - 3)
    if 1 - abs(r) < _ROUNDING:
        inner = math.tanh(math.atanh(1 - 1 / (2 * n)) - half)
        return (inner, 1.0) if r > 0 else (-1.0, -inner)
    z = math.atanh(r)
    return math.tanh(z - half), math.tanh(z + half)


def share_interval(count: float, of: float, *, noise_sd: float = 0.0) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson (1927), as statsmodels computes it, and its noise.

    The limits of both are put together by MOVER (Zou & Donner 2008, Statistics in Medicine 27:1693, equation
    3).

    Parameters
    ----------
    count, of : float
        Children, and of how many; held to what can be true.
    noise_sd : float
        Of the share.

    """
    # Imported here: statsmodels takes a second, and most programs need no share.
    from statsmodels.stats.proportion import proportion_confint

    share = min(max(count / of, 0.0), 1.0)
    low, high = (float(np.clip(x, 0.0, 1.0)) for x in proportion_confint(share * of, of, method="wilson"))
    if noise_sd == 0:
        return low, high
    noise = Z_95 * noise_sd
    return max(share - math.hypot(share - low, noise), 0.0), min(share + math.hypot(high - share, noise), 1.0)


def noise_floor(noise_sd: float, size: int) -> float:
    """Return the largest eigenvalue of a symmetric matrix of noise, 2 sd sqrt(p) (Wigner 1955)."""
    return 2 * noise_sd * math.sqrt(size)


def noise_in_ratio(
    standard_errors: Floats, noise_sd: Floats, step: Floats, *, quantile: float = Z_95
) -> Floats:
    """Return the standard deviation that the noise gives to coefficients that solve (H + E) step = s + e.

    A true coefficient b holds (found - b)^2 <= z^2 (error^2 + noise^2 (1 + |b - start|^2)), as the noise E of
    the curvature is multiplied by the true way from the start, not by the one that was found (Fieller 1954,
    Journal of the Royal Statistical Society B 16:175). The further of its two ends decides.

    Parameters
    ----------
    standard_errors, noise_sd : (p,) float64
        Of each coefficient for the choice of people, and for noise e alone.
    step : (p,) float64
        The way that was found, from where the sums were taken.
    quantile : float
        z, of the interval.

    Returns
    -------
    (p,) float64
        Infinite where the noise leaves no interval.

    """
    squares = noise_sd**2
    share = quantile**2 * squares
    # In x = b - found: (1 - share) x^2 - 2 share step x = rest.
    rest = quantile**2 * (standard_errors**2 + squares * (1 + float(step @ step)))
    left = np.where(share < 1, 1 - share, np.nan)
    half = (share * np.abs(step) + np.sqrt((share * step) ** 2 + left * rest)) / left
    wide = np.sqrt(np.maximum((half / quantile) ** 2 - standard_errors**2, 0.0))
    return np.where(squares == 0, 0.0, np.where(share < 1, wide, np.inf))
