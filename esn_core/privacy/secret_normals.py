"""Standard normal numbers that nobody can draw again: the secret weights of a site's children."""

import os

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

LARGEST = 6.0
"""Larger numbers, one in 5 * 10^8, are held here: the grid of a sum needs a bound."""


def secret_normals(children: int, draws: int) -> NDArray[np.float64]:
    """Draw (children, draws) standard normal numbers from the operating system's entropy.

    They are never kept: what was summed with them is in the ledger, and is sent again from there.
    """
    raw = np.frombuffer(os.urandom(8 * children * draws), dtype=np.uint64)
    # The upper 53 bits, at the middles of as many equal parts of (0, 1); never 0 or 1.
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.clip(ndtri(uniform), -LARGEST, LARGEST).reshape(children, draws)
