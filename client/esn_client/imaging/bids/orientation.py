"""Orientation: which side of an image is the patient's left, by what its header says."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from esn_core.errors import DataError

EXACT_DEG, EXACT_MM, EXACT_SHARE = 0.1, 0.1, 1e-3
"""Both orientations are float32, one of them a quaternion: they agree to less than this."""
MOST_APART_DEG = 5.0
"""A head is tilted by more between two scans; an image has one orientation, not two."""
MOST_APART_SHARE = 0.02
"""Lengths of streamlines go with the voxel: so much of it is still small beside a head's growth in a year."""
VOXEL_MM = (0.1, 20.0)
"""Edges of voxels that images of heads have; others are in another unit of length."""
_UNITS = ("meter", "mm", "micron")
LEAST_SPAN = 1e-3
"""Volume of the cube that three axes of length 1 span."""
MOST_SHEAR = 0.02
"""Cosine between two axes of the grid: stages take them to be at right angles; 1.1 degrees."""


@dataclass(frozen=True)
class Orientation:
    """What a header says of an image's axes.

    Attributes
    ----------
    axes : str
        Where the voxel axes lead, such as ``LPS``: the first one to the left.
    source : str
        Which of the header's two orientations says so.
    warnings : tuple of str
        Small disagreements.

    """

    axes: str
    source: str
    warnings: tuple[str, ...]


def read_orientation(header: Nifti1Header, *, name: str) -> Orientation:
    """Read where an image's axes lead, and refuse a header that does not say, or says two things.

    Nothing in a brain tells its sides: where the header is silent (``sform_code`` and ``qform_code`` 0), a
    reader guesses, and one in two guesses mirrors the patient.

    Parameters
    ----------
    header : Nifti1Header
        Of NIfTI-1 or NIfTI-2.
    name : str
        Of the file, for messages.

    Returns
    -------
    Orientation

    Raises
    ------
    DataError
        There is no orientation, its axes are no grid at right angles, or the two orientations (or the sform
        and the voxel size) are not of one image.

    """
    forms = {"sform": header.get_sform(coded=True), "qform": header.get_qform(coded=True)}
    known = {what: affine for what, (affine, code) in forms.items() if code > 0 and affine is not None}
    if not known:
        raise DataError(
            f"{name}: its header names no orientation (sform_code and qform_code are 0), so nothing tells "
            "left from right; convert it again from DICOM, and never repair it by hand"
        )
    for what, affine in known.items():
        _check_grid(affine, f"{name}: the {what}")
    best = next(iter(known.values()))
    size_mm = np.linalg.norm(best[:3, :3], axis=0)
    if size_mm.min() < VOXEL_MM[0] or size_mm.max() > VOXEL_MM[1]:
        unit = header.get_xyzt_units()[0]
        named = unit if unit in _UNITS else "not named"
        raise DataError(
            f"{name}: voxels of {_by(size_mm)} by the {next(iter(known))}, and it must be in mm; the "
            f"header's unit of length is {named}: convert it again from DICOM"
        )
    off = float(np.abs(size_mm / np.asarray(header.get_zooms()[:3], dtype=np.float64) - 1).max())
    if off > MOST_APART_SHARE:
        raise DataError(
            f"{name}: voxels of {_by(size_mm)} mm by the {next(iter(known))}, of "
            f"{_by(header.get_zooms()[:3])} mm by pixdim; the two must be equal: convert it again from DICOM"
        )
    warnings = []
    if off > EXACT_SHARE:
        warnings.append(f"{name}: its two voxel sizes differ by {off:.1%}; the {next(iter(known))}'s is used")
    if len(known) == 2:
        middle = (np.array(header.get_data_shape()[:3]) - 1) / 2
        warnings += _compare(known["sform"], known["qform"], middle, name)
    source = " and ".join(f"{what} (code {forms[what][1]})" for what in known)
    return Orientation("".join(nib.aff2axcodes(best)), source, tuple(warnings))


def _compare(
    sform: NDArray[np.float64], qform: NDArray[np.float64], middle: NDArray[np.float64], name: str
) -> list[str]:
    """Refuse two orientations that contradict each other; say where they differ a little."""
    axes = ["".join(nib.aff2axcodes(affine)) for affine in (sform, qform)]
    turns = [_axes_of(affine) for affine in (sform, qform)]
    if np.linalg.det(turns[0]) * np.linalg.det(turns[1]) < 0:
        raise DataError(
            f"{name}: sform ({axes[0]}) and qform ({axes[1]}) have opposite handedness: by one of them "
            "left is right; convert it again from DICOM, and never repair it by hand"
        )
    apart_deg = float(np.degrees(Rotation.from_matrix(turns[0] @ turns[1].T).magnitude()))
    if apart_deg > MOST_APART_DEG:
        raise DataError(
            f"{name}: sform ({axes[0]}) and qform ({axes[1]}) are {apart_deg:.0f} degrees apart; an image "
            f"has one orientation, {MOST_APART_DEG:g} degrees at most are let pass"
        )
    shift_mm = float(np.linalg.norm((sform - qform)[:3] @ np.append(middle, 1.0)))
    said = []
    if apart_deg > EXACT_DEG:
        said.append(f"{apart_deg:.1f} degrees")
    if shift_mm > EXACT_MM:
        said.append(f"{shift_mm:.1f} mm")
    return [f"{name}: sform and qform are {' and '.join(said)} apart; the sform is used"] if said else []


def _check_grid(affine: NDArray[np.float64], what: str) -> None:
    """Refuse an affine whose axes are not three at right angles."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / np.where(lengths > 0, lengths, 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes)) < LEAST_SPAN:
        raise DataError(f"{what} is no orientation: its three axes do not span a space")
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MOST_SHEAR:
        raise DataError(
            f"{what} is sheared: two axes of the grid meet at {np.degrees(np.arccos(min(shear, 1.0))):.0f} "
            "degrees, and not at 90; give the scan on the grid that it was taken on"
        )


def _axes_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the nearest orthogonal matrix to an affine's axes."""
    return np.asarray(polar(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))[0], dtype=np.float64)


def _by(size_mm: object) -> str:
    return " x ".join(f"{side:.3g}" for side in np.asarray(size_mm))
