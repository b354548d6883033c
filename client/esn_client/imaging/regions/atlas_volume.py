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

_DAMAGED = (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError)


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
    return _whole_labels(*read_image(path), atlas, name=path.name)


def unpacked_labels(
    volume: bytes, atlas: Atlas, *, name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the label volume that came with a protocol; otherwise as `read_labels`.

    Parameters
    ----------
    volume : bytes
        A gzipped NIfTI file, looked at by `check_volume`.
    atlas : Atlas
    name : str
        Of the file, for words.

    """
    try:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(volume))
        values, affine = _voxels(image)
    except _DAMAGED as error:
        raise DataError(f"{name}: not a whole NIfTI image: {error}") from None
    return _whole_labels(values, affine, atlas, name=name)


def _whole_labels(
    values: NDArray[np.float64], affine: NDArray[np.float64], atlas: Atlas, *, name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    labels = checked_labels(values, atlas, name=name)
    missing = {region.index for region in atlas.regions} - {int(value) for value in np.unique(labels)}
    if missing:
        raise DataError(f"{name}: region {min(missing)} of atlas {atlas.name} has no voxel")
    return labels, affine


def checked_labels(values: NDArray[np.float64], atlas: Atlas, *, name: str) -> NDArray[np.int64]:
    """Take a volume for an atlas's labels; a region may be missing, after a resection.

    Parameters
    ----------
    values : (X, Y, Z) float64
    atlas : Atlas
    name : str
        Of the file, for words.

    Returns
    -------
    (X, Y, Z) int64

    Raises
    ------
    DataError
        The volume is not 3-D, or a label is not the atlas's.

    """
    if values.ndim != 3:
        raise DataError(f"{name}: a 3-D label volume is needed; found shape {values.shape}")
    require_whole_numbers(values, name=name)
    strange = {int(value) for value in np.unique(values)} - {0, *(region.index for region in atlas.regions)}
    if strange:
        raise DataError(f"{name}: label {min(strange)} is not in atlas {atlas.name}")
    return values.astype(np.int64)


def require_whole_numbers(values: NDArray[np.float64], *, name: str) -> None:
    """Raise `DataError` where a volume of any shape holds anything but whole numbers."""
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise DataError(f"{name}: labels must be whole numbers")


def read_image(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the voxels and the affine of a NIfTI image.

    Raises
    ------
    DataError
        The file is missing or not a whole image.

    """
    try:
        return _voxels(cast("SpatialImage", nib.load(path)))
    except _DAMAGED as error:
        raise DataError(f"{path.name}: not a whole NIfTI image: {error}") from None


def _voxels(image: SpatialImage) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(image.get_fdata(caching="unchanged"), dtype=np.float64), np.asarray(image.affine)
