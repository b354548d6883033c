"""Tests of labels in T1 space: they come to lie where the head was, and FreeSurfer's numbers are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from esn_client.imaging.regions.freesurfer import from_freesurfer, has_freesurfers_regions
from esn_client.imaging.regions.t1_labels import T1Anatomy, brain_of, lay_t1_labels
from esn_core.connectome.atlas import Atlas, Region, load_atlas
from esn_core.errors import DataError

DK = load_atlas("desikan-killiany-83")
PAIR = Atlas("pair", (Region(1, "a", "L", -1, 0, 0, "m"), Region(2, "b", "R", 1, 0, 0, "n")))
CROWNED = Atlas("crowned", (*PAIR.regions, Region(3, "top", "L", 0, 0, 1, "o")))
SHAPE, SIZE_MM = (48, 56, 44), 3.0
T1_AFFINE = np.array([[-3.0, 0, 0, 70], [0, 3.0, 0, -84], [0, 0, 3.0, -60], [0, 0, 0, 1]])
SCAN_AFFINE = np.array([[4.0, 0, 0, -74], [0, 4.0, 0, -88], [0, 0, 4.0, -64], [0, 0, 0, 1]])
SCAN_SHAPE = (38, 44, 34)


def head(points):
    """A brain by its mm: grey around white around two ventricles, long, higher in front; and its labels."""
    x, y, z = points
    inside = (x / 55) ** 2 + (y / 70) ** 2 + ((z - 0.1 * y) / 48) ** 2 < 1
    white = (x / 43) ** 2 + (y / 57) ** 2 + ((z - 0.1 * y) / 36) ** 2 < 1
    fluid = ((np.abs(x) - 10) / 7) ** 2 + ((y + 5) / 28) ** 2 + ((z - 5) / 9) ** 2 < 1
    labels = np.where(inside & ~white, np.where(x < 0, 1, 2), 0)
    return inside, white, fluid, labels


def points_of(affine, shape):
    return np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape)) + affine[:3, 3][:, None, None, None]


@pytest.fixture(scope="module")
def moved():
    """A T1w image, and a b0 of the head 8 degrees turned and some mm away, with the opposite contrast."""
    rng = np.random.default_rng(0)
    inside, white, fluid, labels = head(points_of(T1_AFFINE, SHAPE))
    t1 = np.select([fluid & inside, white, inside], [20.0, 110.0, 75.0], 0.0)
    image = gaussian_filter(t1, 0.5) + rng.normal(0, 3, SHAPE)
    turn = Rotation.from_rotvec(np.radians([6.0, -4.0, 3.0]))
    shift = np.array([5.0, -7.0, 4.0])
    back = (
        turn.inv()
        .apply(points_of(SCAN_AFFINE, SCAN_SHAPE).reshape(3, -1).T - shift)
        .T.reshape(3, *SCAN_SHAPE)
    )
    there, white_there, fluid_there, truth = head(back)
    b0 = np.select([fluid_there & there, white_there, there], [600.0, 220.0, 320.0], 0.0)
    b0 = gaussian_filter(b0, 0.5) + rng.normal(0, 10, SCAN_SHAPE)
    anatomy = T1Anatomy(image, labels, brain_of(labels > 0), T1_AFFINE)
    return anatomy, b0, there, truth, turn.magnitude()


def test_labels_come_to_lie_where_the_head_was(moved):
    anatomy, b0, mask, truth, angle = moved
    found = lay_t1_labels(anatomy, b0, mask, SCAN_AFFINE, atlas=PAIR)
    for label in (1, 2):
        here, there = found.labels == label, truth == label
        # A shell of three voxels: a third of a voxel aside costs a tenth of the overlap.
        assert 2 * (here & there).sum() / (here.sum() + there.sum()) > 0.85
    assert np.radians(found.rotation_deg) == pytest.approx(angle, abs=np.radians(1.5))
    assert found.overlap > 0.95
    # A symmetric head says nothing of its sides.
    assert abs(found.sides_margin_percent) < 2
    assert found.misplaced_fraction < 0.03
    # Nearest voxels: what is lost at one side of a shell is won at the other.
    assert found.volume_ratio == pytest.approx([1, 1], abs=0.06)


@pytest.mark.parametrize(("mirror", "refused"), [(1, False), (-1, True)])
def test_a_t1w_image_that_says_another_side_than_the_scan_is_refused(moved, mirror, refused):
    """The head of the fixture is symmetric; a cavity on its right says which side is which."""
    anatomy = moved[0]
    x, y, z = points_of(T1_AFFINE, SHAPE)
    cavity = ((x - 30) ** 2 + (y - 20) ** 2 + z**2 < 15**2) & anatomy.brain
    one_sided = replace(anatomy, image=np.where(cavity, 20.0, anatomy.image))
    # The scan: every second voxel of the same head, by a header that is right or mirrored.
    thin = (slice(None, None, 2),) * 3
    mask = anatomy.brain[thin]
    scan = np.where(mask, 600.0 - 3.5 * one_sided.image[thin], 0.0)
    affine = np.diag([mirror, 1, 1, 1.0]) @ T1_AFFINE @ np.diag([2.0, 2, 2, 1])
    if refused:
        with pytest.raises(DataError, match="better mirrored than as it is: one of the two headers has left"):
            lay_t1_labels(one_sided, scan, mask, affine, atlas=PAIR)
    else:
        assert lay_t1_labels(one_sided, scan, mask, affine, atlas=PAIR).sides_margin_percent > 5


def test_another_head_is_refused(moved):
    anatomy, b0, mask, *_ = moved
    small = mask & (points_of(SCAN_AFFINE, SCAN_SHAPE)[2] > 12)
    with pytest.raises(DataError, match=r"overlap by .* of the same head and session, and whole"):
        lay_t1_labels(anatomy, b0, small, SCAN_AFFINE, atlas=PAIR)


@pytest.mark.parametrize(("cut", "refused"), [(0, False), (9, True)])
def test_a_region_of_the_t1w_image_that_the_scan_cuts_off_is_refused_as_an_atlass_is(moved, cut, refused):
    """A crown of the head is a region of its own; the scan ends below it, and still overlaps enough."""
    anatomy, b0, mask, *_ = moved
    crown = anatomy.labels * (points_of(T1_AFFINE, SHAPE)[2] > 40) > 0
    anatomy = replace(anatomy, labels=np.where(crown, 3, anatomy.labels))
    kept = (..., slice(None, SCAN_SHAPE[2] - cut))
    if refused:
        with pytest.raises(DataError, match=r"1 regions of atlas crowned lie outside of the scan, .* top;"):
            lay_t1_labels(anatomy, b0[kept], mask[kept], SCAN_AFFINE, atlas=CROWNED)
    else:
        found = lay_t1_labels(anatomy, b0[kept], mask[kept], SCAN_AFFINE, atlas=CROWNED)
        assert (found.volume_ratio > 0).all()


def test_a_region_that_the_t1w_image_lacks_is_no_fault(moved):
    anatomy, b0, mask, *_ = moved
    assert lay_t1_labels(anatomy, b0, mask, SCAN_AFFINE, atlas=CROWNED).volume_ratio[2] == 0


def test_a_segmentation_becomes_a_brain_without_gaps(moved):
    anatomy, *_ = moved
    inside, *_ = head(points_of(T1_AFFINE, SHAPE))
    brain = brain_of(anatomy.labels > 0)
    assert 2 * (brain & inside).sum() / (brain.sum() + inside.sum()) > 0.97


def numbers():
    """FreeSurfer's own, as its colour table has them."""
    return {
        "L_bankssts": 1001, "R_bankssts": 2001, "L_cuneus": 1005, "R_insula": 2035, "L_superiorfrontal": 1028,
        "R_temporalpole": 2033, "L_hippocampus": 17, "R_hippocampus": 53, "L_thalamusproper": 10,
        "R_accumbensarea": 58, "brainstem": 16, "R_amygdala": 54, "L_pallidum": 13,
    }  # fmt: skip


@pytest.fixture
def aparc():
    """Every region once, each with FreeSurfer's number, white matter and ventricles between."""
    cortex = [n for n in range(1, 36) if n != 4]
    deep = [10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58, 16, 2, 41, 4, 43]
    values = [*(1000 + n for n in cortex), *(2000 + n for n in cortex), *deep, 1004, 0]
    return np.array(values, dtype=np.float64).reshape(-1, 1, 1)


def test_freesurfers_numbers_become_the_atlas(aparc):
    found = from_freesurfer(aparc, DK, name="aparc+aseg.mgz")
    index = {region.name: region.index for region in DK.regions}
    for name, number in numbers().items():
        assert (found[aparc == number] == index[name]).all(), name
    assert set(np.unique(found)) == {0, *index.values()}
    assert not found[np.isin(aparc, [2, 41, 4, 43, 1004])].any()
    assert has_freesurfers_regions(DK)
    assert not has_freesurfers_regions(load_atlas("aal-116"))


def test_a_resection_lacks_on_one_side_and_another_atlas_on_both(aparc):
    operated = np.where(np.isin(aparc, [53, 54, 2033]), 2, aparc)
    found = from_freesurfer(operated, DK, name="aparc+aseg.mgz")
    assert {r.name for r in DK.regions} - {DK.names[i - 1] for i in np.unique(found) if i} == {
        "R_hippocampus", "R_amygdala", "R_temporalpole",
    }  # fmt: skip
    dkt = np.where(np.isin(aparc, [1001, 2001, 1032, 2032, 1033, 2033]), 2, aparc)
    with pytest.raises(DataError, match=r"bankssts is on neither side; aparc.aseg of FreeSurfer"):
        from_freesurfer(dkt, DK, name="aparc.DKTatlas+aseg.mgz")
    with pytest.raises(DataError, match="labels must be whole numbers"):
        from_freesurfer(aparc + 0.5, DK, name="x.mgz")
