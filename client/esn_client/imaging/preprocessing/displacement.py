"""Displacement: how far an image moved from volume to volume, in one number each."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.rigid import shift_of, turn_of


@dataclass(frozen=True)
class Displacement:
    """How far the image moved, divided by what moved it.

    Framewise displacement: sum of absolute shifts, and of absolute turns times the radius of the head (Power
    et al. 2012, NeuroImage 59:2142).

    Attributes
    ----------
    head_mm : (V,) float64
        The head, from the volume before; 0 for the first.
    eddy_mm : (V,) float64
        The part of each volume's movement that is linear in its gradient: eddy currents shift the image, and
        no head knows the gradient. 0 for b0s.
    b0_mm : (B - 1,) float64
        From b0 to b0, where there are no eddy currents.

    """

    head_mm: NDArray[np.float64]
    eddy_mm: NDArray[np.float64]
    b0_mm: NDArray[np.float64]


def framewise_displacement(
    transforms: NDArray[np.float64], *, centre_mm: NDArray[np.float64], radius_mm: float
) -> NDArray[np.float64]:
    """Sum absolute shifts of the head's centre and turns times its radius, from each volume to the next.

    Parameters
    ----------
    transforms : (V, 4, 4) float64
    centre_mm : (3,) float64
    radius_mm : float

    Returns
    -------
    (V,) float64
        In mm; 0 for the first volume.

    """
    at = np.array([shift_of(movement, centre_mm) for movement in transforms])
    shift = np.abs(np.diff(at, axis=0)).sum(axis=1)
    turns = [turn_of(after @ np.linalg.inv(before)) for before, after in pairwise(transforms)]
    turn = np.abs(np.array(turns).reshape(-1, 3)).sum(axis=1)
    return np.concatenate([[0.0], shift + radius_mm * turn])
