"""Tests of orientation: a header that does not tell left from right is refused."""

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from esn_client.imaging.bids.orientation import read_orientation
from esn_core.errors import DataError

LAS = np.diag([-2.0, 2, 2, 1])
LAS[:3, 3] = [90, -110, -70]
RAS = LAS @ np.array([[-1.0, 0, 0, 91], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def header(sform=None, qform=None, *, kind=nib.Nifti1Header, size_mm=(2.0, 2.0, 2.0)):
    made = kind()
    made.set_data_shape((92, 110, 70))
    made.set_zooms(size_mm)
    if qform is not None:
        made.set_qform(qform, code=1)
    made.set_sform(np.zeros((4, 4)) if sform is None else sform, code=0 if sform is None else 1)
    made["pixdim"][1:4] = size_mm
    return made


def turned(affine, degrees, axis=2):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz"[axis], degrees, degrees=True).as_matrix()
    return turn @ affine


def read(*forms, **how):
    return read_orientation(header(*forms, **how), name="s_dwi.nii.gz")


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize(("affine", "axes"), [(LAS, "LAS"), (RAS, "RAS"), (turned(LAS, 180), "RPS")])
def test_one_orientation_suffices_and_two_that_agree_are_one(kind, affine, axes):
    for forms, source in [((affine, None), "sform"), ((None, affine), "qform"), ((affine, affine), "sform")]:
        found = read(*forms, kind=kind)
        assert (found.axes, found.warnings) == (axes, ())
        assert found.source.startswith(f"{source} (code 1)")


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_a_header_without_an_orientation_is_refused(kind):
    with pytest.raises(DataError, match=r"s_dwi\.nii\.gz: its header names no orientation .* never repair"):
        read(kind=kind)


@pytest.mark.parametrize(
    ("sform", "qform", "words"),
    [
        (LAS, RAS, r"sform \(LAS\) and qform \(RAS\) have opposite handedness: by one of them left is right"),
        (turned(RAS, 30), LAS, "have opposite handedness"),
        (LAS, turned(LAS, 180), r"sform \(LAS\) and qform \(RPS\) are 180 degrees apart"),
        (LAS, turned(LAS, 90), "are 90 degrees apart"),
        (LAS, turned(LAS, 20), "are 20 degrees apart; an image has one orientation, 5 degrees at most"),
        (turned(LAS, 6, axis=0), LAS, "are 6 degrees apart"),
    ],
)
def test_two_orientations_that_contradict_each_other_are_refused(sform, qform, words):
    with pytest.raises(DataError, match=words):
        read(sform, qform)


def test_a_small_disagreement_is_named():
    moved = turned(LAS, 2)
    moved[0, 3] += 30
    (warning,) = read(moved, LAS).warnings
    assert warning.startswith("s_dwi.nii.gz: sform and qform are 2.0 degrees and ")
    assert warning.endswith(" mm apart; the sform is used")


def test_rounding_is_no_disagreement():
    """A quaternion of float32 does not give an oblique matrix back to the last digit."""
    oblique = turned(turned(turned(LAS, 13, 0), -7, 1), 21, 2)
    assert read(oblique.astype(np.float32), oblique).warnings == ()


@pytest.mark.parametrize(
    ("affine", "size_mm", "words"),
    [
        (np.diag([2.0, 0, 2, 1]), (2, 2, 2), "the sform is no orientation: its three axes do not span"),
        (LAS * np.nan, (2, 2, 2), "the sform is no orientation"),
        (LAS + 0.5 * np.eye(4)[[1, 2, 3, 0]] * [[1], [0], [0], [0]], (2, 2, 2), "sheared: .* meet at 76"),
        (LAS, (2, 2, 2.5), "voxels of 2 x 2 x 2 mm by the sform, of 2 x 2 x 2.5 mm by pixdim"),
    ],
)
def test_an_affine_that_is_no_grid_of_these_voxels_is_refused(affine, size_mm, words):
    with pytest.raises(DataError, match=words):
        read(affine, size_mm=size_mm)


def test_a_voxel_size_that_differs_a_little_is_named():
    (warning,) = read(LAS, size_mm=(2, 2, 2.02)).warnings
    assert "its two voxel sizes differ by 1.0%; the sform's is used" in warning


@pytest.mark.parametrize(
    ("factor", "unit", "words"),
    [
        (
            1e-3,
            "meter",
            "voxels of 0.002 x 0.002 x 0.002 .* must be in mm; the header's unit of length is meter",
        ),
        (1e3, "micron", "voxels of 2e[+]03 .* unit of length is micron"),
        (1e-3, None, "unit of length is not named"),
    ],
)
def test_an_image_in_another_unit_of_length_is_refused_as_that(factor, unit, words):
    affine = LAS * np.array([[factor]] * 3 + [[1.0]])
    made = header(affine, size_mm=(2 * factor,) * 3)
    if unit:
        made.set_xyzt_units(unit)
    with pytest.raises(DataError, match=words):
        read_orientation(made, name="s_dwi.nii.gz")
