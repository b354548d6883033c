"""Parcellations: which region of the atlas each voxel belongs to."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from esn_core.connectome.atlas import Atlas


def grow_regions(
    labels: NDArray[np.int64], atlas: Atlas, *, voxel_size_mm: NDArray[np.float64], growth_mm: float
) -> NDArray[np.int64]:
    """Give unlabelled voxels to the nearest region, up to a distance.

    Parameters
    ----------
    labels : (X, Y, Z) int64
        Region indices of the atlas, 0 elsewhere.
    atlas : Atlas
    voxel_size_mm : (3,) float64
    growth_mm : float
        Between voxel centres.

    Returns
    -------
    (X, Y, Z) int64
        Position of the region in the atlas, or -1.

    """
    position = _position_of(atlas)
    distance_mm, nearest = distance_transform_edt(
        labels == 0, sampling=tuple(voxel_size_mm.tolist()), return_indices=True
    )
    grown = np.where(distance_mm <= growth_mm, labels[tuple(nearest)], 0)
    return position[grown]


def measure_volumes(
    labels: NDArray[np.int64], atlas: Atlas, *, voxel_size_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Measure the volume of each region.

    Parameters
    ----------
    labels : (X, Y, Z) int64
        Region indices of the atlas, 0 elsewhere.
    atlas : Atlas
    voxel_size_mm : (3,) float64

    Returns
    -------
    (R,) float64
        In mm³; 0 for a region that is not there.

    """
    place = _position_of(atlas)[labels[labels > 0]]
    voxels = np.bincount(place, minlength=len(atlas.regions)).astype(np.float64)
    return voxels * float(np.prod(voxel_size_mm))


def _position_of(atlas: Atlas) -> NDArray[np.int64]:
    """Give the place in the atlas of each region index; -1 where there is none."""
    position = np.full(max(region.index for region in atlas.regions) + 1, -1, dtype=np.int64)
    for place, region in enumerate(atlas.regions):
        position[region.index] = place
    return position
