"""Streamlines: the paths that a tracker followed, packed one behind the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Streamlines:
    """Some streamlines of one scan.

    Attributes
    ----------
    points : (P, 3) float32
        Voxel coordinates, within the grid; a voxel's centre has whole numbers.
    offsets : (S + 1,) int64
        Streamline ``s`` is ``points[offsets[s]:offsets[s + 1]]``; each has two points or more.
    step_size_mm : float
        Between neighbouring points.

    """

    points: NDArray[np.float32]
    offsets: NDArray[np.int64]
    step_size_mm: float

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def ends(self) -> NDArray[np.float32]:
        """First and last point of each, (S, 2, 3)."""
        return np.stack([self.points[self.offsets[:-1]], self.points[self.offsets[1:] - 1]], axis=1)

    @property
    def lengths_mm(self) -> NDArray[np.float64]:
        """Length of each, (S,)."""
        return (np.diff(self.offsets) - 1) * self.step_size_mm
