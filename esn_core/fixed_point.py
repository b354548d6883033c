"""Sums as integers on a fixed-point grid, so that adding them is exact and noise can be discrete."""

import math

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import GateError, ProtocolError
from esn_core.releases import ReleaseKind

FRACTION_BITS = 40
UNITS_PER_ONE = 1 << FRACTION_BITS

# Sums of all sites together must stay inside int64 with noise: twice this from each site of
# the largest consortium is 2^62.
LARGEST_SITES = 512
LARGEST_UNITS = (1 << 61) // LARGEST_SITES
_LARGEST = LARGEST_UNITS / UNITS_PER_ONE

# A sum and sixteen standard deviations of noise stay inside twice the largest sum.
_LARGEST_NOISE_UNITS = LARGEST_UNITS / 16


def quantise(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round numbers to the grid.

    Raises
    ------
    GateError
        A number is not finite, or too large for the grid.

    """
    # Compared before the scaling, which could overflow; NaN compares as false.
    if not (np.abs(numbers) <= _LARGEST).all():
        raise GateError(f"a row holds numbers that are not finite or above {_LARGEST:g}")
    return np.rint(numbers * UNITS_PER_ONE).astype(np.int64)


def sum_rows(rows: NDArray[np.float64], kind: ReleaseKind) -> NDArray[np.int64]:
    """Round each of (n, d) `rows`, clipped to the bound of `kind`, to the grid; add them up there, exactly.

    A sum of float64 rows would depend on their order, and on every child, by
    more than a child's bound allows (Casacuberta et al. 2022,
    arXiv:2207.10635). A sum beyond the grid is held at its end: that moves
    neighbouring sums no further apart, whereas a refusal would tell something
    about the children.

    Returns
    -------
    (d,) int64

    Raises
    ------
    GateError
        A number is not finite or too large, or so many rows of this kind might overflow.

    """
    if len(rows) * kind.l2_bound * UNITS_PER_ONE > 1 << 62:
        raise GateError(f"release {kind.name}: a sum over {len(rows)} children might overflow")
    units = quantise(rows)
    total: NDArray[np.int64] = units.sum(axis=0, dtype=np.int64)
    return np.clip(total, -LARGEST_UNITS, LARGEST_UNITS)


def sensitivity_units(kind: ReleaseKind) -> float:
    """Return the L2 sensitivity of `sum_rows`, in grid units.

    Rounding moves each number of a child's row by half a unit at most:
    sqrt(d) / 2 units in all. One part in 2^20 covers the float64 rounding of
    the clip, a few parts in 2^52.
    """
    return kind.l2_bound * UNITS_PER_ONE * (1 + 2.0**-20) + math.sqrt(kind.dimension) / 2


def noise_units(kind: ReleaseKind, noise_multiplier: float) -> float:
    """Return the standard deviation of one site's noise in each number of its sum, in grid units.

    Raises
    ------
    GateError
        It is so large that the noised sum might leave the grid.

    """
    units = noise_multiplier * sensitivity_units(kind)
    if units > _LARGEST_NOISE_UNITS:
        raise GateError(
            f"release {kind.name} would need noise of standard deviation {units / UNITS_PER_ONE:g}; "
            f"the grid allows {_LARGEST_NOISE_UNITS / UNITS_PER_ONE:g}: the budget is too small"
        )
    return units


def noise_sd(kind: ReleaseKind, noise_multiplier: float) -> float:
    """Return the standard deviation of one site's noise in each number of its sum."""
    return noise_units(kind, noise_multiplier) / UNITS_PER_ONE


def add_up(totals: list[NDArray[np.int64]], kind: ReleaseKind) -> NDArray[np.float64]:
    """Add the sites' sums and leave the grid.

    Raises
    ------
    ProtocolError
        There is no sum; or one has another length than the release, or numbers beyond the grid's range.

    """
    for total in totals:
        if total.shape != (kind.dimension,):
            raise ProtocolError(f"release {kind.name} holds {kind.dimension} numbers, not {total.shape}")
        # Compared on both sides: the absolute value of the smallest int64 is negative.
        if total.size and (total.min() < -2 * LARGEST_UNITS or total.max() > 2 * LARGEST_UNITS):
            raise ProtocolError(f"release {kind.name} holds numbers beyond the range of the grid")
    if len(totals) > LARGEST_SITES:
        raise ProtocolError(f"at most {LARGEST_SITES} sites can be added up, not {len(totals)}")
    if not totals:
        raise ProtocolError(f"release {kind.name}: there is no sum to add up")
    pooled: NDArray[np.int64] = np.sum(np.stack(totals), axis=0, dtype=np.int64)
    return pooled.astype(np.float64) / UNITS_PER_ONE
