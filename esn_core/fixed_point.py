"""Sums as integers on a fixed-point grid, so that adding them is exact and noise can be discrete."""

import math

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import GateError, ProtocolError
from esn_core.releases import ReleaseKind

FRACTION_BITS = 40
UNITS_PER_ONE = 2**FRACTION_BITS

# Sums of all sites together must stay inside int64 with noise: half of it for one site,
# divided by the largest consortium.
LARGEST_SITES = 1024
LARGEST_UNITS = 2**62 // LARGEST_SITES


def quantise(total: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round a (d,) sum to the grid.

    Raises
    ------
    GateError
        A number is not finite, or too large for the grid.

    """
    units = np.rint(total * UNITS_PER_ONE)
    if not np.isfinite(units).all() or np.abs(units).max(initial=0) > LARGEST_UNITS:
        limit = LARGEST_UNITS / UNITS_PER_ONE
        raise GateError(f"a sum holds numbers that are not finite or above {limit:g}")
    return units.astype(np.int64)


def sensitivity_units(kind: ReleaseKind) -> float:
    """Return the L2 sensitivity of the quantised sum, in grid units.

    Rounding moves each number by half a unit at most, on both of two
    neighbouring sums: sqrt(d) units in all. One more unit covers the
    float64 rounding of the sum itself (METHOD's cohorts: below 1e-3 units).
    """
    return kind.l2_bound * UNITS_PER_ONE + math.sqrt(kind.dimension) + 1


def noise_sd(kind: ReleaseKind, noise_multiplier: float) -> float:
    """Return the standard deviation of one site's noise in each number of its sum."""
    return noise_multiplier * sensitivity_units(kind) / UNITS_PER_ONE


def add_up(totals: list[NDArray[np.int64]], kind: ReleaseKind) -> NDArray[np.float64]:
    """Add the sites' sums and leave the grid.

    Raises
    ------
    ProtocolError
        A sum has another length than the release, or numbers beyond the grid's range.

    """
    for total in totals:
        if total.shape != (kind.dimension,):
            raise ProtocolError(f"release {kind.name} holds {kind.dimension} numbers, not {total.shape}")
        # Compared on both sides: the absolute value of the smallest int64 is negative.
        if total.size and not (-2 * LARGEST_UNITS <= total.min() and total.max() <= 2 * LARGEST_UNITS):
            raise ProtocolError(f"release {kind.name} holds numbers beyond the range of the grid")
    if len(totals) > LARGEST_SITES:
        raise ProtocolError(f"at most {LARGEST_SITES} sites can be added up, not {len(totals)}")
    pooled = np.sum(np.stack(totals), axis=0, dtype=np.int64)
    return pooled.astype(np.float64) / UNITS_PER_ONE
