"""Connectivity: from the ends of streamlines to a connectome."""

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from esn_core.atlas import Atlas
from esn_core.connectome import Connectome, from_end_regions
from esn_core.errors import DataError


def connect(
    ends_mm: NDArray[np.float64], regions: NDArray[np.int64], *, affine: NDArray[np.float64], atlas: Atlas
) -> Connectome:
    """Count the streamlines between regions.

    Parameters
    ----------
    ends_mm : (S, 2, 3) float64
        In RAS+ mm, inside the grid.
    regions : (X, Y, Z) int64
        Position of each voxel's region in the atlas, or -1.
    affine : (4, 4) float64
        Of `regions`.
    atlas : Atlas

    Returns
    -------
    Connectome

    Raises
    ------
    DataError
        No streamline joins two different regions.

    """
    voxels = np.rint(apply_affine(np.linalg.inv(affine), ends_mm)).astype(np.int64)
    ends = regions[voxels[..., 0], voxels[..., 1], voxels[..., 2]].reshape(-1, 2)
    connectome = from_end_regions(ends, atlas.names)
    if not np.triu(connectome.counts, k=1).any():
        raise DataError(f"none of {len(ends_mm)} streamlines joins two regions; check gradients and labels")
    return connectome
