"""Tests of raw diffusion phantoms."""

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.bundles import (
    MEAN_AREA_MM2,
    MOST_AREA_MM2,
    REFERENCE_LOG_WEIGHT,
    excess_log_weight,
)
from esn_core.simulation.diffusion import (
    FIBRE_MM2_PER_S,
    PACKING,
    SIGNAL_B0,
    Scheme,
    draw_phantom,
)

ATLAS = load_atlas("phantom-28")
AXES = Scheme(np.array([0.0, 1000.0, 1000.0, 1000.0]), np.vstack([np.zeros(3), np.eye(3)]))
HOMOTOPIC = int(np.flatnonzero((ATLAS.edges == (4, 18)).all(axis=1))[0])  # between the precentral regions
SILENT = np.full(len(ATLAS.edges), -9.0)


def phantom(log_weights=SILENT, seed=0, **settings):
    chosen = {"voxel_size_mm": 5.0, "signal_to_noise": 1e9} | settings
    return draw_phantom(ATLAS, log_weights, AXES, rng=np.random.default_rng(seed), **chosen)


def one_bundle(log_weight=REFERENCE_LOG_WEIGHT):
    weights = SILENT.copy()
    weights[HOMOTOPIC] = log_weight
    return weights


def test_one_seed_gives_one_scan():
    settings = {"signal_to_noise": 20, "motion_mm": 0.2}
    first, second = phantom(one_bundle(), **settings), phantom(one_bundle(), **settings)
    assert np.array_equal(first.signal, second.signal)
    assert not np.array_equal(first.signal, phantom(one_bundle(), seed=1, **settings).signal)


def test_every_region_has_voxels_on_its_own_side():
    drawn = phantom()
    x_mm = drawn.affine[0, 0] * np.arange(drawn.labels.shape[0]) + drawn.affine[0, 3]
    for region in ATLAS.regions:
        where = np.argwhere(drawn.labels == region.index)
        assert len(where) > 20
        assert np.sign(x_mm[where[:, 0]].mean()) == np.sign(region.x_mm)
    assert not drawn.labels[~drawn.brain].any()


@pytest.mark.parametrize("name", ["desikan-killiany-83", "aal-116"])
def test_an_atlas_of_real_brains_has_voxels_in_every_region_and_room_for_its_bundles(name):
    atlas = load_atlas(name)
    mean = anatomy(atlas).mean
    drawn = draw_phantom(
        atlas, mean, AXES, voxel_size_mm=5.0, signal_to_noise=20, rng=np.random.default_rng(0)
    )
    assert set(np.unique(drawn.labels)) == {0, *(region.index for region in atlas.regions)}
    # Deep nuclei lie in the shell as all regions do, as their bundles end there.
    laid = MEAN_AREA_MM2 * np.exp(mean[drawn.bundles] - excess_log_weight(atlas) - REFERENCE_LOG_WEIGHT)
    assert 6000 < laid.sum() <= MOST_AREA_MM2 * 1.001
    assert len(drawn.bundles) > 200


def test_the_phantoms_own_atlas_is_drawn_as_it_ever_was():
    assert excess_log_weight(ATLAS) == 0


def test_the_volume_of_a_bundle_is_proportional_to_its_weight():
    volumes = [phantom(one_bundle(w)).fractions.sum(dtype=np.float64) for w in (2.0, 3.0)]
    # Both are thin enough not to fill a voxel; the tube bends, so its strands' lengths differ a little.
    assert volumes[1] / volumes[0] == pytest.approx(np.e, rel=0.02)


def test_voxels_are_never_more_than_full():
    crowded = phantom(np.full(len(ATLAS.edges), REFERENCE_LOG_WEIGHT))
    # Fractions are stored as float32.
    assert crowded.fractions.sum(axis=3).max() == pytest.approx(PACKING, abs=1e-5)
    assert len(crowded.bundles) == len(ATLAS.edges)


def test_weak_bundles_are_not_drawn():
    assert phantom(one_bundle(0.5)).bundles.size == 0


def test_the_unweighted_signal_is_flat_in_the_brain():
    drawn = phantom(one_bundle())
    assert drawn.signal[drawn.brain][:, 0] == pytest.approx(SIGNAL_B0, rel=1e-6)
    # Noise of 1e-9 of the signal is all there is in the air.
    assert drawn.signal[~drawn.brain].max() < 1e-3


def test_fibres_attenuate_by_the_tensor_model():
    thick = phantom(one_bundle(REFERENCE_LOG_WEIGHT + 2))
    full = np.argwhere(thick.fractions[..., 0] > PACKING - 1e-4)
    # At the midline a homotopic bundle runs from left to right, turned by the head's few degrees.
    middle = full[np.abs(full[:, 0] - (thick.labels.shape[0] - 1) / 2) < 1]
    signal = thick.signal[tuple(middle.T)].mean(axis=0) / SIGNAL_B0
    along, across = (np.exp(-1000 * d) for d in FIBRE_MM2_PER_S)
    tissue = 0.97 * np.exp(-0.8) + 0.03 * np.exp(-3.0)
    expected = [PACKING * e + (1 - PACKING) * tissue for e in (along, across, across)]
    # Directions within the tube and the head's turn of a few degrees: a few per cent of the signal.
    assert signal[1:] == pytest.approx(expected, abs=0.05)


def test_noise_is_rician():
    drawn = phantom(signal_to_noise=20)
    sd = SIGNAL_B0 / 20
    air, brain = drawn.signal[~drawn.brain], drawn.signal[drawn.brain][:, 0]
    # Rayleigh in air; in the brain the magnitude is raised by sd^2 / 2S. 4,000 voxels or more: 1 %.
    assert air.mean() == pytest.approx(sd * np.sqrt(np.pi / 2), rel=0.02)
    assert brain.mean() == pytest.approx(SIGNAL_B0 + sd**2 / (2 * SIGNAL_B0), abs=3)
    assert brain.std() == pytest.approx(sd, rel=0.05)


def test_motion_moves_volumes_against_each_other():
    still, moved = phantom(one_bundle()), phantom(one_bundle(), motion_mm=1.0)
    edge = np.abs(moved.signal[..., 0] - still.signal[..., 0]) > 1
    assert edge.sum() > 100


def test_weights_of_another_atlas_are_refused():
    with pytest.raises(DataError, match=r"log_weights must have shape \(378,\), not \(10,\)"):
        phantom(np.zeros(10))


def test_directions_that_are_no_unit_vectors_are_refused():
    with pytest.raises(DataError, match="must be unit vectors"):
        Scheme(np.array([0.0, 1000.0]), np.array([[0, 0, 0], [1.0, 1.0, 0]]))
