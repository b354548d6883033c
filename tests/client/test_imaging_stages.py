"""Tests of single imaging stages against closed forms and slow definitions."""

import numpy as np
import pytest
from dipy.data import get_sphere
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_client.imaging.connectivity import connect
from esn_client.imaging.fodf import amplitudes, fit_fodf
from esn_client.imaging.gradients import Gradients
from esn_client.imaging.mask import find_brain
from esn_client.imaging.parcellation import grow_regions
from esn_client.imaging.response import Response, estimate_response
from esn_client.imaging.tensor import TensorMaps, fit_tensor
from esn_client.imaging.tracking import track_ends
from esn_core.atlas import Atlas, Region
from esn_core.errors import DataError
from esn_core.recipe import ImagingRecipe

ALONG, ACROSS = 1.7e-3, 0.3e-3
PAIR = Atlas("pair", (Region(7, "a", "L", -1, 0, 0, "m"), Region(3, "b", "R", 1, 0, 0, "n")))
RECIPE = ImagingRecipe(
    atlas="pair",
    sh_order_max=4,
    response_voxels=20,
    fa_seed_threshold=0.2,
    fa_stop_threshold=0.1,
    fodf_threshold=0.1,
    step_size_mm=1.0,
    max_angle_deg=30,
    min_length_mm=5,
    max_length_mm=100,
    seeds=200,
    random_seed=12345,
    label_growth_mm=2.0,
    sphere="repulsion100",
)


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


def test_the_response_is_the_mean_of_the_most_anisotropic_voxels():
    response = estimate_response(maps_of([1.6e-3, 0.4e-3, 0.2e-3]), voxels=50)
    # All voxels are equal: only rounding differs.
    assert response.eigenvalues_mm2_per_s == pytest.approx([1.6e-3, 0.3e-3, 0.3e-3], rel=1e-12)
    assert response.b0 == 500


def test_a_round_response_is_refused():
    with pytest.raises(DataError, match=r"is 1\.00 times as long as wide; 1\.5 or more is needed"):
        estimate_response(maps_of([1e-3, 1e-3, 1e-3]), voxels=50)


def test_a_response_of_more_voxels_than_there_are_is_refused():
    with pytest.raises(DataError, match="a response of 5000 voxels is asked for; the brain has 1000"):
        estimate_response(maps_of([1.6e-3, 0.3e-3, 0.3e-3]), voxels=5000)


def fodf_of(signal, table, where):
    response = Response(np.array([ALONG, ACROSS, ACROSS]), 1000.0)
    return fit_fodf(signal, table, response=response, where=where, sh_order_max=RECIPE.sh_order_max)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_fodf_points_along_the_fibres(axis):
    table, sphere = gradients(), get_sphere(name="repulsion724")
    direction = np.eye(3)[axis]
    signal = fibre_signal(table, direction).reshape(1, 1, 1, -1).astype(np.float32)
    fodf = fodf_of(signal, table, np.ones((1, 1, 1), dtype=bool))
    amplitude = amplitudes(fodf[0, 0], sphere)[0]
    # 724 directions lie some 8 degrees apart: the nearest is within 5, and the peak is the nearest or next.
    assert abs(sphere.vertices[amplitude.argmax()] @ direction) > np.cos(np.radians(8))


def test_streamlines_run_along_the_bar_and_end_at_its_ends(bar):
    signal, table = bar
    maps = fit_tensor(signal, table)
    affine = np.diag([2.0, 2, 2, 1])
    fodf = fodf_of(signal, table, maps.fa > 0.1)
    ends = track_ends(fodf, maps.fa, affine, RECIPE)
    length = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
    assert len(ends) > 100
    # The bar is 40 mm long; a wandering streamline may leave it at a side.
    assert np.median(np.abs(ends[:, 0, 0] - ends[:, 1, 0])) > 30
    assert length.max() < 45
    assert np.array_equal(ends, track_ends(fodf, maps.fa, affine, RECIPE))
    other = RECIPE.model_copy(update={"random_seed": 54321})
    assert not np.array_equal(ends[:50], track_ends(fodf, maps.fa, affine, other)[:50])


def test_every_streamline_is_a_seed_of_its_own(bar):
    signal, table = bar
    maps = fit_tensor(signal, table)
    fodf = fodf_of(signal, table, maps.fa > 0.1)
    ends = track_ends(fodf, maps.fa, np.diag([2.0, 2, 2, 1]), RECIPE)
    assert len(np.unique(ends.reshape(len(ends), -1), axis=0)) == len(ends)


def test_a_brain_without_fibres_has_nowhere_to_start():
    with pytest.raises(DataError, match=r"no voxel reaches fa_seed_threshold 0\.2; the most is 0\.15"):
        track_ends(np.ones((5, 5, 5, 15)), np.full((5, 5, 5), 0.15), np.eye(4), RECIPE)


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


def test_ends_are_looked_up_in_the_voxel_that_holds_them():
    regions = np.full((4, 1, 1), -1)
    regions[0], regions[3] = 0, 1
    affine = np.array([[-2.0, 0, 0, 6], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])  # stored right to left
    ends = np.array([[[6.9, 0, 0], [-0.9, 0.9, 0]], [[5.1, 0, 0], [3.0, 0, 0]], [[6, 0, 0], [6, 0, -0.9]]])
    counts = connect(ends, regions, affine=affine, atlas=PAIR).counts
    # The second streamline ends between the regions; the third stays in region a.
    assert counts.tolist() == [[1, 1], [1, 0]]


def test_a_tractogram_that_joins_nothing_is_refused():
    with pytest.raises(
        DataError, match="none of 2 streamlines joins two regions; check gradients and labels"
    ):
        connect(np.zeros((2, 2, 3)), np.zeros((1, 1, 1), dtype=int), affine=np.eye(4), atlas=PAIR)
