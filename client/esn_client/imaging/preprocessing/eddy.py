"""Eddy currents: the part of an image's movement that follows its gradient, and not its head."""

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.rigid import Place, movement_of, numbers_of

LEAST_STEPS = 9
"""From volume to volume, for the three numbers by which each of a movement's six follows the gradient."""
HUBER_SDS = 1.5
"""Steps beyond so many robust sds are the head's, and count less where the gradient's part is fitted."""


def without_eddy(transforms: NDArray[np.float64], gradients: Gradients, place: Place) -> NDArray[np.float64]:
    """Take out of each weighted volume's movement the part that is linear in its gradient.

    Fitted to the steps from one weighted volume to the next, in which a head that wanders does not add up, by
    least squares with Huber's weights; of each of the six numbers of a movement no more is taken out than
    stands out of chance (James & Stein 1961, positive part).

    Parameters
    ----------
    transforms : (V, 4, 4) float64
        From the still head to the volume, in mm.
    gradients : Gradients
    place : Place

    Returns
    -------
    (V, 4, 4) float64
        Of the head alone; those of b0s, and of all where there are too few volumes to tell, as they were.

    """
    head = transforms.copy()
    weighted = np.flatnonzero(~gradients.is_b0)
    if len(weighted) <= LEAST_STEPS:
        return head
    b = gradients.b_values_s_per_mm2[weighted]
    strength = gradients.directions[weighted] * np.sqrt(b / b.max())[:, None]
    moved = np.array([numbers_of(transforms[v], place) for v in weighted])
    steps, by_gradient = np.diff(moved, axis=0), np.diff(strength, axis=0)
    for number in range(6):
        slope = _slope(by_gradient, steps[:, number])
        moved[:, number] -= strength @ slope
    for v, numbers in zip(weighted, moved, strict=True):
        head[v] = movement_of(numbers[:3], numbers[3:], place.centre_mm)
    return head


def _slope(design: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit values by a (N, 3) design without a constant, robustly, and shrink the (3,) slopes towards 0."""
    weight = np.ones(len(values))
    for _ in range(10):
        root = np.sqrt(weight)
        slope = np.linalg.lstsq(design * root[:, None], values * root, rcond=1e-6)[0]
        rest = np.abs(values - design @ slope)
        limit = HUBER_SDS * 1.4826 * float(np.median(rest))
        if limit == 0:
            break
        weight = np.minimum(1, limit / np.maximum(rest, 1e-12))
    explained = float(weight @ (design @ slope) ** 2)
    variance = float(weight @ rest**2) / (len(values) - design.shape[1])
    keep = max(0.0, 1 - design.shape[1] * variance / explained) if explained > 0 else 0.0
    return np.asarray(keep * slope, dtype=np.float64)
