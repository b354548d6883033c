"""Label volumes of atlases, in MNI space, read and checked against their tables."""

import gzip
import zlib
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError


def read_labels(path: Path, atlas: Atlas) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the label volume of an atlas.

    Parameters
    ----------
    path : Path
    atlas : Atlas

    Returns
    -------
    labels : (X, Y, Z) int64
        Region indices, 0 elsewhere.
    affine : (4, 4) float64
        Voxels to mm, RAS+.

    Raises
    ------
    DataError
        The file is not a whole 3-D image, a label is not in the atlas, or a region has no voxel.

    """
    values, affine = read_image(path)
    if values.ndim != 3:
        raise DataError(f"{path.name}: a 3-D label volume is needed; found shape {values.shape}")
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise DataError(f"{path.name}: labels must be whole numbers")
    known = {0, *(region.index for region in atlas.regions)}
    found = {int(value) for value in np.unique(values)}
    if found - known:
        raise DataError(f"{path.name}: label {min(found - known)} is not in atlas {atlas.name}")
    if known - found - {0}:
        raise DataError(f"{path.name}: region {min(known - found - {0})} of atlas {atlas.name} has no voxel")
    return values.astype(np.int64), affine


def read_image(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the voxels and the affine of a NIfTI image.

    Raises
    ------
    DataError
        The file is missing or not a whole image.

    """
    try:
        image = cast("SpatialImage", nib.load(path))
        return np.asarray(image.get_fdata(caching="unchanged"), dtype=np.float64), np.asarray(image.affine)
    except (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError) as error:
        raise DataError(f"{path.name}: not a whole NIfTI image: {error}") from None
