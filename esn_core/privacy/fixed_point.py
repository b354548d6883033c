"""Sums as integers on a fixed-point grid, so that adding them is exact and noise can be discrete.

The grid of a release is as fine as its bound allows (`ReleaseKind.fraction_bits`). Rows enter it at a site,
before they are added up; the total of all sites leaves it at the centre.

>>> ages = ReleaseKind("ages", "training", dimension=2, l2_bound=2.0)
>>> north = sum_rows(np.array([[1.0, 0.25], [1.0, 0.5]]), ages)
>>> south = sum_rows(np.array([[1.0, 0.125]]), ages)
>>> add_up([north, south], ages)
array([3.   , 0.875])
"""

import math

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import GateError, ProtocolError
from esn_core.privacy.release import ReleaseKind

# Sums of all sites together must stay inside int64 with noise: twice this from each site of
# the largest consortium is 2^62.
LARGEST_SITES = 512
LARGEST_UNITS = (1 << 61) // LARGEST_SITES

# A sum and sixteen standard deviations of noise stay inside twice the largest sum.
_LARGEST_NOISE_UNITS = LARGEST_UNITS / 16
# Below this, a discrete Gaussian could be told from a continuous one (`privacy.grid_delta`).
_SMALLEST_NOISE_UNITS = 1 << 20


def units_per_one(kind: ReleaseKind) -> int:
    """Return how many steps of the grid of `kind` make one."""
    return 1 << kind.fraction_bits if kind.fraction_bits >= 0 else 1


def quantise(numbers: NDArray[np.float64], kind: ReleaseKind) -> NDArray[np.int64]:
    """Round numbers to the grid of `kind`.

    Raises
    ------
    GateError
        A number is not finite, or too large for the grid.

    """
    per_one = units_per_one(kind)
    largest = LARGEST_UNITS / per_one
    # Compared before the scaling, which could overflow; NaN compares as false.
    if not (np.abs(numbers) <= largest).all():
        raise GateError(f"a row holds numbers that are not finite or above {largest:g}")
    return np.rint(numbers * per_one).astype(np.int64)


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
    if len(rows) * kind.l2_bound * units_per_one(kind) > 1 << 62:
        raise GateError(f"release {kind.name}: a sum over {len(rows)} children might overflow")
    units = quantise(rows, kind)
    total: NDArray[np.int64] = units.sum(axis=0, dtype=np.int64)
    return np.clip(total, -LARGEST_UNITS, LARGEST_UNITS)


def add_noise(total: NDArray[np.int64], noise: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add noise to a site's sum and hold the result where the sums of all sites still fit int64.

    The hold is post-processing: it costs no privacy. It is sixteen standard deviations away.
    """
    held = np.clip(noise, -LARGEST_UNITS, LARGEST_UNITS)
    noised: NDArray[np.int64] = total + held
    return noised


def sensitivity_units(kind: ReleaseKind) -> float:
    """Return the L2 sensitivity of `sum_rows`, in grid units.

    Rounding moves each number of a child's row by half a unit at most:
    sqrt(d) / 2 units in all. One part in 2^20 covers the float64 rounding of
    the clip, a few parts in 2^52.
    """
    return kind.l2_bound * units_per_one(kind) * (1 + 2.0**-20) + math.sqrt(kind.dimension) / 2


def noise_units(kind: ReleaseKind, noise_multiplier: float, *, share: float) -> float:
    """Return the standard deviation of one site's noise in each number of its sum, in grid units.

    Parameters
    ----------
    kind : ReleaseKind
    noise_multiplier : float
        What protects the release, over its sensitivity.
    share : float
        The part of the variance that this site adds: 1 where each site adds all of it,
        ``1 / m`` where the noise of any ``m`` sites must suffice.

    Raises
    ------
    GateError
        It is so large that the noised sum might leave the grid, or so small that the grid shows.

    """
    units = noise_multiplier * math.sqrt(share) * sensitivity_units(kind)
    per_one = units_per_one(kind)
    if units > _LARGEST_NOISE_UNITS:
        raise GateError(
            f"release {kind.name} would need noise of standard deviation {units / per_one:g}; "
            f"the grid allows {_LARGEST_NOISE_UNITS / per_one:g}: the budget is too small"
        )
    if noise_multiplier and units < _SMALLEST_NOISE_UNITS:
        raise GateError(
            f"release {kind.name} would have noise of standard deviation {units / per_one:g}; the grid "
            f"needs {_SMALLEST_NOISE_UNITS / per_one:g}: the budget is too large"
        )
    return units


def noise_sd(kind: ReleaseKind, noise_multiplier: float, *, share: float) -> float:
    """Return the standard deviation of one site's noise in each number of its sum."""
    return noise_units(kind, noise_multiplier, share=share) / units_per_one(kind)


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
    if not totals:
        raise ProtocolError(f"release {kind.name}: there is no sum to add up")
    for total in totals:
        check_range(total, kind, sites=1)
    if len(totals) > LARGEST_SITES:
        raise ProtocolError(f"at most {LARGEST_SITES} sites can be added up, not {len(totals)}")
    return leave_grid(np.sum(np.stack(totals), axis=0, dtype=np.int64), kind)


def check_range(total: NDArray[np.int64], kind: ReleaseKind, *, sites: int) -> None:
    """Refuse the sum of `sites` sites where it is beyond what these can honestly give.

    Raises
    ------
    ProtocolError
        It holds numbers beyond the range of the grid.

    """
    # Compared on both sides: the absolute value of the smallest int64 is negative.
    largest = 2 * sites * LARGEST_UNITS
    if total.size and (total.min() < -largest or total.max() > largest):
        raise ProtocolError(f"release {kind.name} holds numbers beyond the range of the grid")


def leave_grid(total: NDArray[np.int64], kind: ReleaseKind) -> NDArray[np.float64]:
    """Return a sum as numbers."""
    return total.astype(np.float64) / units_per_one(kind)
