"""Tests of denoising against the definitions, written out one voxel and one window at a time."""

import numpy as np
import pytest

from esn_client.imaging.preprocessing.denoise import denoise, divide_bias, remove_gibbs_ringing
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mppca import project_windows, separate_noise, window_edge
from esn_core.errors import DataError

VOLUMES, B0S, SD = 30, 3, 20.0


@pytest.fixture(scope="module")
def scan():
    """A smooth object of four components with noise, its truth, its table and a mask of nearly all of it."""
    rng = np.random.default_rng(3)
    shape = (12, 11, 10)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    maps = [np.ones(shape), grid[0], grid[1] * grid[2], grid[1]]
    profiles = rng.uniform(50, 150, (4, VOLUMES)) * np.array([8, 1, 1, 1])[:, None]
    truth = np.einsum("kxyz,kv->xyzv", np.array(maps), profiles)
    signal = (truth + rng.normal(0, SD, truth.shape)).astype(np.float32)
    b = np.r_[np.zeros(B0S), np.full(VOLUMES - B0S, 1000.0)]
    vectors = rng.normal(size=(VOLUMES, 3))
    vectors[:B0S] = 0
    mask = np.ones(shape, dtype=bool)
    mask[0] = False
    return signal, truth, Gradients(b, vectors), mask


def rms(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def test_patch2self_is_the_regression_of_each_volume_on_the_others(scan):
    signal, _, gradients, mask = scan
    clean = denoise(signal, gradients, mask, method="patch2self")
    inside = signal[mask].astype(np.float64)
    for group in (np.arange(B0S), np.arange(B0S, VOLUMES)):
        for v in group:
            others = np.column_stack([np.ones(len(inside)), inside[:, group[group != v]]])
            expected = others @ np.linalg.lstsq(others, inside[:, v])[0]
            # The signal is stored in float32: seven digits of some 1000 units.
            assert clean.signal[mask][:, v] == pytest.approx(np.maximum(expected, 0), abs=0.01)
    taken = inside[:, B0S:] - clean.signal[mask][:, B0S:]
    assert clean.noise_sd[mask] == pytest.approx(np.sqrt((taken**2).mean(axis=1)), rel=1e-4)


def test_patch2self_agrees_with_dipy(scan):
    dipy = pytest.importorskip("dipy.denoise.patch2self")
    pytest.importorskip("sklearn", reason="DIPY's patch2self needs scikit-learn")
    signal, truth, gradients, _ = scan
    everywhere = np.ones(signal.shape[:3], dtype=bool)
    ours = denoise(signal, gradients, everywhere, method="patch2self").signal
    theirs = dipy.patch2self(
        signal, gradients.b_values_s_per_mm2, version=1, shift_intensity=False, patch_radius=(0, 0, 0)
    )
    # DIPY does the same regressions one by one, and leaves out the mean of each volume; both store float32.
    assert rms((ours - theirs) - (ours - theirs).mean(axis=(0, 1, 2))) < 0.001 * SD
    assert rms((ours - truth)[..., B0S:]) < 0.5 * SD


def project_one_by_one(signal, mask):
    """The definition of MP-PCA with windows at every second voxel: singular values, and loops."""
    total, weight = np.zeros(signal.shape), np.zeros(signal.shape[:3])
    variance = np.zeros(signal.shape[:3])
    edge = window_edge(signal.shape[3])
    starts = [sorted({min(s, n - edge) for s in range(0, n - edge + 2, 2)}) for n in mask.shape]
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                box = (slice(x, x + edge), slice(y, y + edge), slice(z, z + edge))
                inside = mask[box]
                if not inside.any():
                    continue
                matrix = signal[box][inside].astype(np.float64)
                u, s, vt = np.linalg.svd(matrix, full_matrices=False)
                rank, larger = min(matrix.shape), max(matrix.shape)
                lam = s[::-1][:rank] ** 2 / larger
                sigma2, noise = 0.0, 0
                for p in range(rank):
                    mean = lam[: p + 1].mean()
                    width = (lam[p] - lam[0]) / (4 * np.sqrt((p + 1) / (larger - (rank - p - 1))))
                    if width < mean:
                        sigma2, noise = mean, p + 1
                s[rank - noise :] = 0
                clean = np.zeros((*inside.shape, signal.shape[3]))
                clean[inside] = (u * s) @ vt
                total[box] += inside.sum() * clean
                weight[box] += inside.sum()
                variance[box] += inside.sum() * sigma2
    result = signal.astype(np.float64)
    result[mask] = np.maximum(total[mask] / weight[mask][:, None], 0)
    return result, np.where(mask, np.sqrt(variance / np.maximum(weight, 1)), 0)


@pytest.mark.parametrize("hole", [False, True])
def test_mppca_equals_its_definition_window_by_window(scan, hole):
    signal, _, _, mask = scan
    if hole:  # windows with fewer voxels than volumes
        mask = mask.copy()
        mask[4:, 4:] = False
    clean, noise_sd = project_windows(signal, mask)
    expected, expected_sd = project_one_by_one(signal, mask)
    # Eigenvalues of products in float64 and projections in float32 against singular values.
    assert clean == pytest.approx(expected, abs=0.05)
    assert noise_sd == pytest.approx(expected_sd, rel=1e-3, abs=1e-3)


def test_mppca_takes_the_noise_and_leaves_the_object(scan):
    signal, truth, gradients, mask = scan
    clean = denoise(signal, gradients, mask, method="mppca")
    # Four components of thirty hold the object: sqrt(4 / 30) of the noise remains before windows overlap.
    assert rms((clean.signal - truth)[mask]) < 0.4 * SD
    assert np.median(clean.noise_sd[mask]) == pytest.approx(SD, rel=0.05)
    assert np.array_equal(clean.signal[~mask], signal[~mask])
    assert not clean.noise_sd[~mask].any()


def test_pure_noise_has_no_component():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 7.0, (20, 125, 40))
    keep, variance = separate_noise(np.linalg.eigvalsh(noise.transpose(0, 2, 1) @ noise), np.full(20, 125))
    # The edge of the law is met on average only: a component in some windows.
    assert keep.sum(axis=1).mean() < 2
    assert np.sqrt(variance.mean()) == pytest.approx(7.0, rel=0.03)


def test_windows_grow_with_the_number_of_volumes():
    assert [window_edge(v) for v in (20, 125, 126, 344)] == [5, 5, 7, 9]


def test_a_scan_without_noise_is_left_as_it_is(scan):
    _, truth, gradients, mask = scan
    signal = truth.astype(np.float32)
    for method in ("patch2self", "mppca"):
        clean = denoise(signal, gradients, mask, method=method)
        # Rounding to float32 is noise too, of some 1e-4. Three b0s cannot foretell four components.
        first = B0S if method == "patch2self" else 0
        assert clean.signal[..., first:] == pytest.approx(signal[..., first:], abs=0.02)


def test_repeated_volumes_do_not_break_the_regression(scan):
    signal, _, gradients, mask = scan
    twice = signal.copy()
    twice[..., -1] = twice[..., -2]
    assert np.isfinite(denoise(twice, gradients, mask).signal).all()


def test_gibbs_ringing_beside_an_edge_is_damped():
    edge = np.zeros((64, 64))
    edge[16:48, 16:48] = 1000
    spectrum = np.fft.fftshift(np.fft.fft2(edge))
    kept = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum[16:48, 16:48])) / 4).astype(np.float32)
    ringing = np.repeat(kept[:, :, None, None], 2, axis=2)
    clean = remove_gibbs_ringing(ringing, slice_axis=2)
    inside = (slice(9, 23), slice(9, 23), 0, 0)
    assert clean.shape == ringing.shape
    assert np.ptp(clean[inside]) < 0.6 * np.ptp(ringing[inside])
    # The edge is along another axis if the slices are stacked along it.
    assert not np.allclose(remove_gibbs_ringing(ringing, slice_axis=0), clean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, g, m: (s[1:], g, m), r"signal \(11, 11, 10, 30\), mask \(12, 11, 10\) and 30 gradients"),
        (lambda s, g, m: (s, g, m & False), "the mask is empty"),
        (
            lambda s, g, m: (s, Gradients(g.b_values_s_per_mm2 * (np.arange(30) == 9), g.directions), m),
            "patch2self predicts volumes from each other; found 1 weighted ones",
        ),
        (
            lambda s, g, m: (s, g, m & (np.arange(10) < 1) & (np.arange(11)[:, None] < 2)),
            "fits 27 volumes to 22",
        ),
    ],
)
def test_what_cannot_be_denoised_is_refused(scan, change, message):
    signal, _, gradients, mask = scan
    with pytest.raises(DataError, match=message):
        denoise(*change(signal, gradients, mask))


def test_an_image_smaller_than_a_window_is_refused(scan):
    signal, _, gradients, mask = scan
    with pytest.raises(
        DataError, match=r"windows of 5 voxels a side for 30 volumes; the image has \(12, 11, 4\)"
    ):
        denoise(signal[:, :, :4], gradients, mask[:, :, :4], method="mppca")


def test_a_smooth_field_of_sensitivity_is_divided_out_and_the_ratios_of_volumes_stay():
    rng = np.random.default_rng(0)
    shape = (24, 26, 22)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    mask = np.sum(np.square(grid), axis=0) < 0.9
    field = np.exp(0.5 * grid[1] - 0.3 * grid[0] * grid[2])
    b = np.r_[0.0, 0.0, np.full(6, 1000.0)]
    gradients = Gradients(b, np.vstack([np.zeros((2, 3)), np.eye(3), -np.eye(3)]))
    truth = np.r_[400.0, 400.0, np.linspace(100, 200, 6)]
    signal = (field[..., None] * truth + rng.normal(0, 3, (*shape, 8))).astype(np.float32)
    even = divide_bias(signal, gradients, mask)
    before, after = (volume[mask].std() / volume[mask].mean() for volume in (signal[..., 0], even[..., 0]))
    # The field has a sd of a fourth; the noise alone leaves .008.
    assert before > 0.2
    assert after < 0.02
    # Each voxel is divided by one number: what is float32 has seven digits.
    assert even[mask] / signal[mask] == pytest.approx(np.tile((even / signal)[mask][:, :1], 8), rel=1e-5)
    assert np.array_equal(even[~mask], signal[~mask])
