"""Intervals of 95 %: the normal quantile that all of them use, and that of a correlation."""

import math

from scipy.stats import norm

from esn_core.errors import DataError

Z_95 = float(norm.ppf(0.975))
"""Standard errors from the middle of a normal interval of 95 % to its ends."""


def fisher_interval(r: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a correlation by Fisher's transformation (Fisher 1921).

    atanh(r) is nearly normal with standard error 1 / sqrt(n - 3).

    Raises
    ------
    DataError
        There are three children or fewer.

    """
    if n <= 3:
        raise DataError(f"Fisher's interval needs more than 3 children, not {n:.1f}")
    if abs(r) == 1:
        return r, r
    z, half = math.atanh(r), Z_95 / math.sqrt(n - 3)
    return math.tanh(z - half), math.tanh(z + half)
