"""Streamline density: how many streamlines pass through each voxel."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

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
    flat = density.reshape(-1)
    for batch in batches:
        voxel = np.ravel_multi_index(
            tuple(np.rint(batch.points).astype(np.int64).T), density.shape, mode="clip"
        )
        owner = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
        # A streamline leaves a voxel at its next point, or comes back and counts again: both are seldom.
        entered = np.ones(len(voxel), dtype=bool)
        entered[1:] = (voxel[1:] != voxel[:-1]) | (owner[1:] != owner[:-1])
        flat += np.bincount(voxel[entered], minlength=flat.size).astype(np.uint32)
        yield batch
