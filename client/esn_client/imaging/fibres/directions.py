"""Directions: the axes among which a streamline chooses its next step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Directions:
    """Axes spread over the half sphere, and which of them a streamline may turn to.

    Fibre orientations have no sign: an axis stands for both of its directions.

    Attributes
    ----------
    vectors : (H, 3) float64
        Unit vectors, one for each axis.
    near : (H, K) int32
        Axes within the largest angle of each axis, itself included; the first ``count`` hold.
    same_way : (H, K) bool
        Whether the neighbour's vector points the same way; otherwise its opposite is meant.
    count : (H,) int32

    """

    vectors: NDArray[np.float64]
    near: NDArray[np.int32]
    same_way: NDArray[np.bool_]
    count: NDArray[np.int32]

    @property
    def all_axes(self) -> NDArray[np.int32]:
        """The number of each axis, (H,): among them a streamline chooses its first step."""
        return np.arange(len(self.vectors), dtype=np.int32)


def spread_directions(sphere: str, *, max_angle_deg: float) -> Directions:
    """Take one half of a symmetric sphere.

    Parameters
    ----------
    sphere : str
        DIPY's name of it.
    max_angle_deg : float
        Of a turn, at most 90.

    Returns
    -------
    Directions

    """
    from dipy.data import get_sphere

    vectors = _half(get_sphere(name=sphere).vertices)
    cosine = vectors @ vectors.T
    # Rounding must not cost an axis at exactly the largest angle, itself at 0 included.
    allowed = np.abs(cosine) >= np.cos(np.radians(max_angle_deg)) - 1e-9
    count = allowed.sum(axis=1)
    near = np.zeros((len(vectors), count.max()), dtype=np.int32)
    for axis, row in enumerate(allowed):
        near[axis, : count[axis]] = np.flatnonzero(row)
    same_way = np.take_along_axis(cosine, near, axis=1) >= 0
    return Directions(vectors, near, same_way, count.astype(np.int32))


def _half(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep one of each pair of opposite vertices."""
    unit = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    opposite = (unit @ unit.T).argmin(axis=1)
    return np.asarray(unit[np.arange(len(unit)) < opposite], dtype=np.float64)
