"""Images: NIfTI files, read whole, with the side that their header names."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError, SerializableImage
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from esn_client.imaging.bids.orientation import Orientation, read_orientation
from esn_core.errors import DataError

UNREADABLE = (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError)
"""What nibabel raises for a file that is damaged or no image."""

_CHUNK_BYTES = 1 << 20
_KINDS = {
    "c": "complex numbers: give the magnitude",
    "V": "colours: give the scan itself, not a picture of it",
}


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
        with LoggingOutputSuppressor():  # what it corrects in a header has no name of a file
            image = cast("SpatialImage", nib.load(path))
        kind, ceiling = image.get_data_dtype(), None
        if not (np.issubdtype(kind, np.integer) or np.issubdtype(kind, np.floating)):
            raise DataError(
                f"{path.name}: one real number for each voxel is needed; found {_KINDS.get(kind.kind, kind)}"
            )
        with LoggingOutputSuppressor(), np.errstate(over="ignore"):  # infinite voxels are refused elsewhere
            image, voxels = _voxels_of(path, image)
        if np.issubdtype(kind, np.integer):
            stored: Any = image.dataobj
            ends = np.iinfo(kind)
            ceiling = float(max(end * stored.slope + stored.inter for end in (ends.min, ends.max)))
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


def _voxels_of(path: Path, image: SpatialImage) -> tuple[SpatialImage, NDArray[np.float32]]:
    """Read the voxels; of a packed file to its very end, where the sum of its bytes is checked.

    nibabel stops behind the last voxel: a bit that fell over on a disk would be a voxel of the scan.
    """
    if not (path.name.lower().endswith((".gz", ".mgz")) and isinstance(image, SerializableImage)):
        return image, np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    with gzip.open(path) as stream:
        image = type(image).from_stream(stream)
        voxels = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
        while stream.read(_CHUNK_BYTES):
            pass
    return image, voxels


def _orientation_of_mgh(header: MGHHeader, *, name: str) -> Orientation:
    """Read where FreeSurfer's own format says that left is."""
    if int(header["goodRASFlag"]) != 1:
        raise DataError(f"{name}: its header does not tell left from right (goodRASFlag is 0)")
    axes = "".join(nib.orientations.aff2axcodes(header.get_affine()))
    return Orientation(axes, "goodRASFlag", ())


def shape_of(path: Path) -> tuple[int, ...] | None:
    """Read an image's shape from its header; None where it cannot be read."""
    try:
        with LoggingOutputSuppressor():
            return tuple(cast("SpatialImage", nib.load(path)).shape)
    except UNREADABLE:
        return None
