"""Tests of single imaging stages against closed forms and slow definitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_client.imaging.fibres.response import estimate_response
from esn_client.imaging.fibres.tensor import TensorMaps, fit_tensor
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mask import find_brain
from esn_client.imaging.regions.parcellation import grow_regions, measure_volumes
from esn_core.connectome.atlas import Atlas, Region
from esn_core.errors import DataError

ALONG, ACROSS = 1.7e-3, 0.3e-3
PAIR = Atlas("pair", (Region(7, "a", "L", -1, 0, 0, "m"), Region(3, "b", "R", 1, 0, 0, "n")))


def gradients(count=30):
    k = np.arange(count)
    z, angle = 1 - (k + 0.5) / count, np.pi * (3 - np.sqrt(5)) * k
    weighted = np.column_stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z])
    return Gradients(np.r_[0.0, np.full(count, 1000.0)], np.vstack([np.zeros(3), weighted]))


def fibre_signal(table, direction):
    cosine = table.directions @ np.asarray(direction)
    diffusivity = ACROSS + (ALONG - ACROSS) * cosine**2
    return 1000 * np.exp(-table.b_values_s_per_mm2 * diffusivity)


@pytest.fixture
def bar():
    """A block of fibres along x in a dark box."""
    table = gradients()
    signal = np.zeros((24, 14, 14, 31), dtype=np.float32)
    signal[2:22, 3:11, 3:11] = fibre_signal(table, (1, 0, 0))
    return signal, table


def test_fa_equals_the_closed_form(bar):
    maps = fit_tensor(*bar)
    mean = (ALONG + 2 * ACROSS) / 3
    expected = np.sqrt(1.5 * ((ALONG - mean) ** 2 + 2 * (ACROSS - mean) ** 2) / (ALONG**2 + 2 * ACROSS**2))
    # The signal is stored as float32: seven digits of it, amplified by the logarithm and the fit.
    assert maps.fa[10, 6, 6] == pytest.approx(expected, rel=1e-4)
    assert maps.eigenvalues_mm2_per_s[10, 6, 6] == pytest.approx([ALONG, ACROSS, ACROSS], rel=1e-3)
    assert maps.fa[0, 0, 0] == 0


def test_the_brain_is_the_largest_bright_piece_without_holes():
    b0 = np.full((16, 16, 16), 5.0)
    b0[2:12, 2:12, 2:12] = 1000
    b0[6, 6, 6] = 5
    b0[13:16, 13:16, 13:16] = 1000
    brain = find_brain(b0)
    assert brain[6, 6, 6]
    assert not brain[14, 14, 14]
    # The median filter rounds the cube's edges: twelve edges of ten voxels at most.
    assert 1000 - 120 <= brain.sum() <= 1000


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_an_empty_image_has_no_brain(level):
    with pytest.raises(DataError, match="the brain has 0 voxels in the b0; 500 or more are needed"):
        find_brain(np.full((10, 10, 10), level))


def maps_of(eigenvalues):
    shape = (12, 12, 12)
    return TensorMaps(
        np.ones(shape, dtype=bool),
        np.broadcast_to(eigenvalues, (*shape, 3)),
        np.random.default_rng(0).uniform(size=shape),
        np.full(shape, 500.0),
    )


def test_the_response_is_the_median_of_the_most_anisotropic_voxels():
    response = estimate_response(maps_of([1.6e-3, 0.4e-3, 0.2e-3]), voxels=50)
    # All voxels are equal: only rounding differs.
    assert response.eigenvalues_mm2_per_s == pytest.approx([1.6e-3, 0.3e-3, 0.3e-3], rel=1e-12)
    assert response.b0 == 500


@pytest.mark.parametrize(
    ("eigenvalues", "message"),
    [
        ([1e-3, 1e-3, 1e-3], r"is 1\.00 times as long as wide; 1\.5 or more is needed"),
        ([1.7e-3, 5e-5, 5e-5], "is 34 times as long as wide; 20 or less is possible"),
        ([1.7e-9, 0.3e-9, 0.3e-9], r"along the fibres is 1\.7e-09 mm2/s; .* are the b-values in s/mm2\?"),
        ([4e-3, 1e-3, 1e-3], "the brain has 0 off its surface that look like tissue"),
    ],
)
def test_a_response_that_no_tissue_has_is_refused(eigenvalues, message):
    with pytest.raises(DataError, match=message):
        estimate_response(maps_of(eigenvalues), voxels=50)


def test_a_response_from_voxels_with_another_b0_than_the_brain_is_refused():
    maps = maps_of([1.6e-3, 0.3e-3, 0.3e-3])
    bright = np.where(maps.fa > np.quantile(maps.fa, 0.8), 9000.0, 500.0)
    with pytest.raises(DataError, match="single-fibre voxels is 9000 and the brain's median is 500"):
        estimate_response(replace(maps, b0=bright), voxels=50)


def test_voxels_without_signal_or_with_impossible_diffusion_do_not_move_the_response():
    maps = maps_of([1.6e-3, 0.3e-3, 0.3e-3])
    values, fa, b0 = maps.eigenvalues_mm2_per_s.copy(), maps.fa.copy(), maps.b0.copy()
    values[3], fa[3] = [9e-3, 1e-3, 1e-3], 0.999
    values[5, 4:6], fa[5, 4:6] = [1.6e-3, 0, 0], 1.0
    b0[7], fa[7] = 0, 0.99
    response = estimate_response(replace(maps, eigenvalues_mm2_per_s=values, fa=fa, b0=b0), voxels=50)
    assert response.eigenvalues_mm2_per_s == pytest.approx([1.6e-3, 0.3e-3, 0.3e-3], rel=1e-12)


def test_a_response_of_more_voxels_than_there_are_is_refused():
    with pytest.raises(DataError, match="a response of 5000 voxels is asked for; the brain has 1000"):
        estimate_response(maps_of([1.6e-3, 0.3e-3, 0.3e-3]), voxels=5000)


def grow_voxel_by_voxel(labels, voxel_size_mm, growth_mm):
    """For each voxel, the set of regions that it may be given to."""
    labelled = np.argwhere(labels > 0)
    allowed = np.empty(labels.shape, dtype=object)
    for voxel in np.ndindex(labels.shape):
        distance = np.linalg.norm((labelled - voxel) * voxel_size_mm, axis=1)
        # Ties within rounding are free.
        near = labelled[(distance <= growth_mm) & (distance <= distance.min() + 1e-9)]
        allowed[voxel] = {{7: 0, 3: 1}[labels[tuple(v)]] for v in near} or {-1}
    return allowed


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.int64, (4, 3, 5), elements=st.sampled_from([0, 0, 0, 7, 3])).filter(lambda a: a.any()),
    st.sampled_from([0.0, 1.5, 2.5, 3.9]),
)
def test_growth_gives_voxels_to_the_nearest_region_in_reach(labels, growth_mm):
    size = np.array([2.0, 2.4, 1.1])
    grown = grow_regions(labels, PAIR, voxel_size_mm=size, growth_mm=growth_mm)
    allowed = grow_voxel_by_voxel(labels, size, growth_mm)
    assert all(grown[voxel] in allowed[voxel] for voxel in np.ndindex(labels.shape))


def test_volumes_are_counted_before_regions_grow():
    labels = np.zeros((4, 3, 2), dtype=np.int64)
    labels[0], labels[1, 0] = 7, 3
    volumes = measure_volumes(labels, PAIR, voxel_size_mm=np.array([2.0, 1.0, 1.5]))
    assert volumes.tolist() == [18.0, 6.0]
