"""Tests of brain masks and of what no scan of a brain looks like."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mask import check_brain, cut_shares, find_brain
from esn_client.imaging.preprocessing.signal_check import check_signal
from esn_core.errors import DataError

SIZE_MM = 4.0
RAS = np.array([[4.0, 0, 0, -96], [0, 4, 0, -110], [0, 0, 4, -80], [0, 0, 0, 1]])
SHAPE = (48, 56, 40)


def ball(centre, radii):
    points = np.indices(SHAPE).reshape(3, -1).T
    return (np.linalg.norm((points - centre) / np.asarray(radii), axis=1) < 1).reshape(SHAPE)


BRAIN = ball((24, 26, 20), (15, 19, 13))


@pytest.fixture
def head():
    """A brain with an eye on a thin nerve and scalp around; noise everywhere."""
    eye = ball((24, 51, 20), (3, 3, 3))
    nerve = ball((24, 47, 20), (1.2, 4, 1.2))
    scalp = ball((24, 26, 20), (19, 23, 17)) & ~ball((24, 26, 20), (17.5, 21.5, 15.5))
    b0 = 900 * BRAIN + 900 * (eye | nerve) + 250 * scalp
    rng = np.random.default_rng(0)
    return np.abs(gaussian_filter(b0.astype(float), 0.6) + rng.normal(0, 20, SHAPE))


def test_the_mask_is_the_brain_without_eye_and_scalp(head):
    found = find_brain(head)
    assert 2 * (found & BRAIN).sum() / (found.sum() + BRAIN.sum()) > 0.95
    assert not found[24, 51, 20]
    assert not found[24, 26, 36]


def test_a_part_that_is_dark_in_the_b0_is_found_in_the_weighted_volumes(head):
    stem = ball((24, 20, 9), (4, 4, 5)) & BRAIN
    b0 = np.where(stem, 60.0, head)
    weighted = np.where(BRAIN, 400.0, 10.0)
    assert find_brain(b0)[stem].mean() < 0.5
    assert find_brain(b0, weighted)[stem].mean() > 0.95


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_mask_turns_with_the_image(head, axis):
    assert np.array_equal(find_brain(np.flip(head, axis)), np.flip(find_brain(head), axis))


def test_a_whole_brain_passes():
    check_brain(BRAIN, RAS)
    assert set(cut_shares(BRAIN, RAS).values()) == {0.0}


@pytest.mark.parametrize(
    ("side", "cut"),
    [
        ("above", np.s_[:, :, :22]),
        ("left", np.s_[22:]),
        ("right", np.s_[:26]),
        ("in front", np.s_[:, :30]),
        ("behind", np.s_[:, 24:]),
    ],
)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_brain_cut_off_is_refused_with_the_side(side, cut, flipped):
    mask, affine = BRAIN[cut], RAS
    if flipped:
        mask, affine = mask[::-1, ::-1, ::-1], RAS @ np.diag([-1.0, -1, -1, 1])
    with pytest.raises(DataError, match=rf"cut off {side}: its section at the edge of the image has \d+% of"):
        check_brain(mask, affine)


def test_the_lower_end_may_be_cut():
    mask = BRAIN[:, :, 12:]
    assert cut_shares(mask, RAS)["below"] > 0.25
    check_brain(mask, RAS)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (BRAIN & False, "the brain mask is empty"),
        (ball((24, 26, 20), (6, 6, 6)), r"has \d+ mL; a brain has 400 to 2500 mL"),
        (ball((24, 28, 20), (23, 27, 19)), r"has \d+ mL; a brain has 400 to 2500 mL"),
    ],
)
def test_what_has_no_brains_size_is_refused(mask, message):
    with pytest.raises(DataError, match=message):
        check_brain(mask, RAS)


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    table = Gradients(np.r_[0.0, 0.0, np.full(8, 1000.0)], np.vstack([np.zeros((2, 3)), np.eye(3)[[0] * 8]]))
    level = np.where(table.is_b0, 1000, 450)
    return (rng.uniform(0.5, 1, (8, 8, 8, 1)) * level + 1).astype(np.float32), table


def test_a_scan_passes_as_it_is(scan):
    sound = check_signal(*scan, name="s.nii.gz", ceiling=32767)
    assert sound.signal is scan[0]
    assert sound.remarks == ()


def noisy(signal, *, sd=20.0, air=6):
    """A head in air, with the noise of a real-valued image: half of the air is negative."""
    big = np.pad(signal, [(air, air)] * 3 + [(0, 0)])
    return (big + np.random.default_rng(1).normal(0, sd, big.shape)).astype(np.float32)


def test_negative_voxels_are_judged_by_their_depth_and_counted(scan):
    signal, table = scan
    real = noisy(signal)
    share = np.mean(real < 0)
    assert share > 0.4
    sound = check_signal(real, table, name="s.nii.gz")
    assert np.array_equal(sound.signal, np.maximum(real, 0))
    assert sound.remarks[0].startswith(f"{share:.2%} of the voxels were negative")


def test_a_few_deep_voxels_are_let_pass(scan):
    signal, table = scan
    few = noisy(signal)
    few.reshape(-1)[: few.size // 2000] = -900
    assert check_signal(few, table, name="s.nii.gz").signal.min() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s - 300,  # an offset
        lambda s: np.where(np.arange(s.shape[0])[:, None, None, None] % 5 == 0, -s, s),  # signs lost
        lambda s: np.random.default_rng(0).uniform(-4096, 4096, s.shape),  # a phase image
        lambda s: np.where(s > 900, s - 1800, s),  # an overflow
    ],
)
def test_deeply_negative_voxels_are_refused(scan, change):
    signal, table = scan
    with pytest.raises(DataError, match=r"% of the voxels are negative, \d+\.\d% by more than \d+, as after"):
        check_signal(change(noisy(signal)).astype(np.float32), table, name="s.nii.gz")


def test_nan_outside_the_field_of_view_counts_as_0(scan):
    signal, table = scan
    seen = noisy(signal)
    nan = seen.copy()
    nan[:3] = np.nan
    nan[:, :, -2:, 4] = np.nan  # one volume saw less: nobody did
    sound = check_signal(nan, table, name="s.nii.gz")
    outside = np.isnan(nan).any(axis=3)
    assert not sound.signal[outside].any()
    assert np.array_equal(sound.signal[~outside], np.maximum(seen[~outside], 0))
    assert sound.remarks[0] == (
        f"{outside.mean():.1%} of the voxels are NaN, outside of the field of view; they count as 0"
    )


def a_hole(s):
    s[9:11, 9:11, 9:11] = np.nan
    return s


def half_a_head(s):
    s[:, :10, :, 3] = np.nan
    return s


def no_volume(s):
    s[..., 4] = np.nan
    return s


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            a_hole,
            r"80 voxels are NaN or infinite, the first at \(9, 9, 9\) of volume 0, counted from 0; all",
        ),
        (half_a_head, "% of the head is NaN in some volumes and not in others; 1% at most"),
        (no_volume, r"the first at \(0, 0, 0\) of volume 4, counted"),
        (lambda s: np.where(np.arange(s.shape[0])[:, None, None, None] < 2, np.inf, s), "NaN or infinite"),
    ],
)
def test_nan_inside_of_the_image_is_refused(scan, change, message):
    signal, table = scan
    with pytest.raises(DataError, match=message):
        check_signal(change(noisy(signal)).astype(np.float32), table, name="s.nii.gz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[..., 0], r"a series of volumes \(4-D\) is needed; found shape \(8, 8, 8\)"),
        (lambda s: np.where(s > 990, np.nan, s), r"s.nii.gz: \d+ voxels are NaN or infinite"),
        (lambda s: np.where(s > 990, np.inf, s), r"\d+ voxels are NaN or infinite"),
        (lambda s: s * 0 + 3, "all voxels have the value 3"),
        (
            lambda s: (s * 60).astype(np.int32).astype(np.int16),
            r"\d+\.\d% of the voxels are negative, \d+\.\d% by more than \d+, as after",
        ),
        (lambda s: np.minimum(s * 50, 32767), r"have the largest value that the file can hold, 32767"),
        (lambda s: s * (np.arange(10) != 4), "volume 4 is empty"),
        (lambda s: s[..., ::-1], r"the b0s are \d\.\d\d times as bright as the weighted volumes"),
    ],
)
def test_voxels_of_no_scan_are_refused(scan, change, message):
    signal, table = scan
    with pytest.raises(DataError, match=message):
        check_signal(change(signal).astype(np.float32), table, name="s.nii.gz", ceiling=32767)
