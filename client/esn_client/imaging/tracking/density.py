"""Streamline density: how many streamlines pass through each voxel."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.compilation import compiled
from esn_client.imaging.tracking.streamlines import Streamlines


def count_visits(batches: Iterable[Streamlines], density: NDArray[np.uint32]) -> Iterator[Streamlines]:
    """Pass streamlines on, and count each once in every voxel that one of its points lies in.

    Parameters
    ----------
    batches : iterable of Streamlines
    density : (X, Y, Z) uint32
        Counted up.

    Yields
    ------
    Streamlines
        Unchanged.

    """
    for batch in batches:
        _count(batch.points, batch.offsets, density)
        yield batch


@compiled
def _count(points: NDArray[np.float32], offsets: NDArray[np.int64], density: NDArray[np.uint32]) -> None:
    """Count up the voxels that streamlines enter."""
    here, before = np.empty(3, np.int64), np.empty(3, np.int64)
    for number in range(len(offsets) - 1):
        for place in range(offsets[number], offsets[number + 1]):
            entered = place == offsets[number]
            for axis in range(3):
                here[axis] = min(max(np.int64(np.rint(points[place, axis])), 0), density.shape[axis] - 1)
                entered = entered or here[axis] != before[axis]
                before[axis] = here[axis]
            # A streamline leaves a voxel at its next point, or comes back and counts again: both are seldom.
            if entered:
                density[here[0], here[1], here[2]] += 1
