"""Tests of registration: a template that was turned, shrunk and stored otherwise gets its labels back."""

import logging

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, binary_fill_holes
from scipy.spatial.transform import Rotation

from esn_client.imaging.regions.atlas_volume import read_image, read_labels
from esn_client.imaging.regions.registration import misplaced_fraction, register_atlas, turn_and_scale
from esn_core.connectome.atlas import SHIPPED, Atlas, Region, label_volume, load_atlas
from esn_core.errors import DataError

DK = load_atlas("desikan-killiany-83")
GRID = np.array([[-3.5, 0, 0, 84], [0, 3.5, 0, -105], [0, 0, 3.5, -70], [0, 0, 0, 1]])  # LAS
SHAPE = (48, 60, 44)
TURN_DEG, SCALE = 9.0, 0.92
PLACED = np.eye(4)
PLACED[:3, :3] = SCALE * Rotation.from_rotvec(np.radians([7.0, 4.0, -4.0])).as_matrix()
PLACED[:3, 3] = [4.0, -6.0, 8.0]
"""From the template's mm to the subject's."""


def place(image, affine, order):
    at = np.linalg.inv(affine) @ np.linalg.inv(PLACED) @ GRID
    return affine_transform(image, at[:3, :3], at[:3, 3], output_shape=SHAPE, order=order)


@pytest.fixture(scope="module")
def subject():
    """The FA template as another head, with noise, its mask and its true labels."""
    template, grid = read_image(SHIPPED / "mni-fa-2mm.nii.gz")
    labels, labels_affine = read_labels(label_volume(DK.name), DK)
    fa = place(template, grid, 1)
    mask = binary_fill_holes(fa > 0.03)
    noisy = np.clip(fa + np.random.default_rng(0).normal(0, 0.04, SHAPE), 0, 1) * mask
    return noisy, mask, place(labels.astype(np.float64), labels_affine, 0).astype(int)


@pytest.fixture(scope="module")
def commentary():
    """What DIPY says while it works, where it is as talkative as it is outside of tests."""
    said, log = [], logging.getLogger("dipy")
    handler, level = logging.Handler(), log.level
    handler.emit = said.append
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield said
    log.removeHandler(handler)
    log.setLevel(level)


@pytest.fixture(scope="module")
def registration(subject, commentary):
    return register_atlas(subject[0], subject[1], GRID, atlas=DK)


def test_dipy_does_not_comment_on_stdout_where_results_go(registration, commentary):
    assert commentary == []
    logging.getLogger("dipy").info("heard again")
    assert len(commentary) == 1


def test_the_labels_lie_where_they_were_put(subject, registration):
    truth = subject[2]
    dice = [
        2
        * ((registration.labels == r.index) & (truth == r.index)).sum()
        / ((registration.labels == r.index).sum() + (truth == r.index).sum())
        for r in DK.regions
    ]
    # The cortex is one voxel thick on this grid: half a voxel aside costs a quarter of the overlap.
    assert np.median(dice) > 0.7
    centroids = [
        np.linalg.norm(
            3.5
            * (np.argwhere(registration.labels == r.index).mean(0) - np.argwhere(truth == r.index).mean(0))
        )
        for r in DK.regions
    ]
    # Within a voxel of 3.5 mm, and nowhere near a neighbouring gyrus.
    assert np.median(centroids) < 2.5
    assert max(centroids) < 10


def test_the_numbers_for_quality_control_tell_what_was_done(registration):
    assert registration.correlation > 0.9
    assert registration.rotation_deg == pytest.approx(TURN_DEG, abs=1.5)
    assert registration.scale == pytest.approx(SCALE**3, rel=0.06)
    assert registration.missing == ()
    assert registration.misplaced_fraction < 0.05
    # The subject's rim is left out and the template's is not: the bend draws the labels in, by a tenth. Other
    # noise and other last digits move that by a hundredth or two; without the scale it were 0.67.
    assert np.median(registration.volume_ratio) == pytest.approx(0.9, abs=0.1)
    assert registration.volume_ratio.shape == (83,)


def test_the_left_is_on_the_left(registration):
    x_mm = np.argwhere(registration.labels > 0) @ GRID[0, :3] + GRID[0, 3]
    indices = registration.labels[registration.labels > 0]
    for region in DK.regions:
        if region.hemisphere != "M":
            assert (x_mm[indices == region.index].mean() - PLACED[0, 3] < 0) == (region.hemisphere == "L")


@pytest.mark.long
def test_a_coarse_grid_is_large_enough_to_be_bent():
    """At 4.8 mm a head has some thirty slices, and DIPY's coarsest level compares windows of nine."""
    coarse = GRID @ np.diag([4.8 / 3.5] * 3 + [1])
    at = np.linalg.inv(GRID) @ coarse
    template, grid = read_image(SHIPPED / "mni-fa-2mm.nii.gz")
    shape = (36, 44, 32)
    fa = affine_transform(place(template, grid, 1), at[:3, :3], at[:3, 3], output_shape=shape, order=1)
    found = register_atlas(fa, binary_fill_holes(fa > 0.03), coarse, atlas=DK)
    assert found.labels.shape == shape
    assert found.correlation > 0.9
    assert found.misplaced_fraction < 0.05


def test_a_mirrored_label_volume_is_misplaced_altogether():
    labels, affine = read_labels(label_volume(DK.name), DK)
    assert misplaced_fraction(labels, DK, affine) < 0.03
    mirrored = affine.copy()
    mirrored[0] *= -1
    assert misplaced_fraction(labels, DK, mirrored) > 0.97
    assert misplaced_fraction(np.where(labels > 41, labels, 0), DK, affine) == 1.0


@pytest.mark.parametrize("angle", [0.0, 12.0, 170.0])
def test_the_rotation_is_what_is_left_of_stretch_and_shear(angle):
    rotation = Rotation.from_rotvec(np.radians(angle) * np.array([0.6, 0, 0.8])).as_matrix()
    stretch = np.array([[1.1, 0.05, 0], [0.05, 0.9, 0.02], [0, 0.02, 1.0]])
    linear = np.eye(4)
    linear[:3, :3] = rotation @ stretch
    turn, scale = turn_and_scale(linear)
    assert turn == pytest.approx(angle, abs=1e-6)
    assert scale == pytest.approx(1 / np.linalg.det(stretch))


def test_a_reflection_is_a_half_turn():
    assert turn_and_scale(np.diag([-1.0, 1, 1, 1])) == (180.0, 1.0)


def tiny_atlas(tmp_path, labels):
    nib.save(nib.Nifti1Image(np.asarray(labels, dtype=np.float32), np.eye(4)), tmp_path / "own.nii.gz")
    return Atlas("own", (Region(1, "a", "L", -1, 0, 0, "m"), Region(2, "b", "R", 1, 0, 0, "n")))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((3, 3, 3)), "own.nii.gz: region 2 of atlas own has no voxel"),
        (np.arange(27).reshape(3, 3, 3) % 4, "own.nii.gz: label 3 is not in atlas own"),
        (np.full((3, 3, 3), 1.5), "labels must be whole numbers"),
        (np.full((3, 3, 3), np.nan), "labels must be whole numbers"),
        (np.ones((3, 3, 3, 2)), r"a 3-D label volume is needed; found shape \(3, 3, 3, 2\)"),
    ],
)
def test_a_label_volume_that_does_not_fit_its_table_is_refused(tmp_path, labels, message):
    atlas = tiny_atlas(tmp_path, labels)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "own.nii.gz", atlas)


@pytest.mark.long
def test_an_own_atlas_of_two_regions_is_laid_over_a_subject(subject, tmp_path):
    labels, affine = read_labels(label_volume(DK.name), DK)
    side = np.select([(labels > 0) & (labels < 42), (labels > 41) & (labels < 83)], [1, 2], 0)
    atlas = tiny_atlas(tmp_path, np.ones((2, 2, 2)))
    nib.save(nib.Nifti1Image(side.astype(np.int16), affine), tmp_path / "own.nii.gz")
    fa, mask, _ = subject
    laid = register_atlas(fa, mask, GRID, atlas=atlas, volume=(tmp_path / "own.nii.gz").read_bytes())
    assert set(np.unique(laid.labels)) == {0, 1, 2}
    assert laid.volume_ratio == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fa, m: (fa, m[1:]), "do not fit"),
        (lambda fa, m: (fa * np.nan, m), "not finite"),
        (lambda fa, m: (fa, m & False), "to 0 voxels of brain"),
        (lambda fa, m: (fa * 0 + 0.3, m), "with FA of 0.3 to 0.3"),
    ],
)
def test_a_brain_that_cannot_be_registered_is_refused(subject, change, message):
    fa, mask = change(*subject[:2])
    with pytest.raises(DataError, match=message):
        register_atlas(fa, mask, GRID, atlas=DK)


def test_a_damaged_volume_is_refused(tmp_path):
    atlas = tiny_atlas(tmp_path, np.ones((2, 2, 2)))
    (tmp_path / "own.nii.gz").write_bytes((tmp_path / "own.nii.gz").read_bytes()[:40])
    with pytest.raises(DataError, match=r"own.nii.gz: not a whole NIfTI image"):
        read_labels(tmp_path / "own.nii.gz", atlas)
