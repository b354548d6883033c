"""Images: NIfTI files, read whole, with the side that their header names."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from esn_client.imaging.bids.orientation import Orientation, read_orientation
from esn_core.errors import DataError

UNREADABLE = (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError)
"""What nibabel raises for a file that is damaged or no image."""


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes
    ----------
    voxels : (X, Y, Z) or (X, Y, Z, V) float32
    affine : (4, 4) float64
        Voxels to millimetres, RAS+.
    orientation : Orientation
    ceiling : float or None
        The largest value that its integers can hold, after scaling; None for floating point.

    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    orientation: Orientation
    ceiling: float | None


def read_image(path: Path) -> Image:
    """Read a whole NIfTI image.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Image

    Raises
    ------
    DataError
        The file is damaged, or its header does not tell left from right.

    """
    try:
        image = cast("SpatialImage", nib.load(path))
        voxels = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
        kind, ceiling = image.get_data_dtype(), None
        if np.issubdtype(kind, np.integer):
            stored: Any = image.dataobj
            ceiling = float(np.iinfo(kind).max * stored.slope + stored.inter)
    except UNREADABLE as error:
        raise DataError(f"{path.name}: not a whole NIfTI image: {error}") from None
    if isinstance(image.header, MGHHeader):
        orientation = _orientation_of_mgh(image.header, name=path.name)
    elif isinstance(image.header, Nifti1Header):
        orientation = read_orientation(image.header, name=path.name)
    else:
        raise DataError(f"{path.name}: a NIfTI image is needed; found {type(image).__name__}")
    if voxels.ndim > 4:  # NIfTI's fifth axis is for vectors, and converters leave axes of length 1 there
        voxels = voxels.reshape(*voxels.shape[:3], *(side for side in voxels.shape[3:] if side > 1))
    return Image(voxels, np.asarray(image.affine, dtype=np.float64), orientation, ceiling)


def _orientation_of_mgh(header: MGHHeader, *, name: str) -> Orientation:
    """Read where FreeSurfer's own format says that left is."""
    if int(header["goodRASFlag"]) != 1:
        raise DataError(f"{name}: its header does not tell left from right (goodRASFlag is 0)")
    axes = "".join(nib.orientations.aff2axcodes(header.get_affine()))
    return Orientation(axes, "goodRASFlag", ())


def shape_of(path: Path) -> tuple[int, ...] | None:
    """Read an image's shape from its header; None where it cannot be read."""
    try:
        return tuple(cast("SpatialImage", nib.load(path)).shape)
    except UNREADABLE:
        return None
