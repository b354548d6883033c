"""Tests of fibre orientations and tracking on fibres whose course is known, and against slow definitions."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.data import get_sphere
from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from esn_client.imaging import compilation
from esn_client.imaging.fibres.directions import spread_directions
from esn_client.imaging.fibres.fodf import Fodf, fit_fodf
from esn_client.imaging.fibres.response import Response
from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.tracking.propagation import (
    GOLDEN,
    draw_uniform,
    interpolate_stop,
    propagate,
    scramble,
)
from esn_client.imaging.tracking.streamlines import Streamlines
from esn_client.imaging.tracking.tracking import TrackingRules, find_reach, find_seeds, track
from esn_client.imaging.tracking.tractogram import write_tractogram
from esn_core.errors import DataError

ALONG, ACROSS = 1.7e-3, 0.3e-3
RESPONSE = Response(np.array([ALONG, ACROSS, ACROSS]), 1000.0)
SIZE_MM = np.array([2.0, 2.0, 2.0])
RULES = TrackingRules(
    step_size_mm=1.0,
    max_angle_deg=30.0,
    min_length_mm=5.0,
    max_length_mm=100.0,
    stop_threshold=0.1,
    fodf_threshold=0.1,
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


def deconvolve(signal, table, where, order=4):
    return fit_fodf(signal, table, response=RESPONSE, where=where, sh_order_max=order)


@pytest.fixture(scope="module")
def bar():
    """A block of fibres along x in a dark box: its fODFs and FA."""
    table = gradients()
    signal = np.zeros((24, 14, 14, 31), dtype=np.float32)
    signal[2:22, 3:11, 3:11] = fibre_signal(table, (1, 0, 0))
    maps = fit_tensor(signal, table)
    where = find_reach(maps.fa, maps.mask, stop_threshold=RULES.stop_threshold)
    return deconvolve(signal, table, where), maps.fa


def follow(bar, *, rules=RULES, seeds=200, random_seed=1, size_mm=SIZE_MM):
    fodf, fa = bar
    settings = {"rules": rules, "seeds": seeds, "random_seed": random_seed}
    return list(track(fodf, fa, seed_mask=fa > 0.2, voxel_size_mm=size_mm, **settings))


def lines_of(batches):
    return [b.points[i:j] for b in batches for i, j in pairwise(b.offsets)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_fodf_points_along_the_fibres(axis):
    table, sphere = gradients(), get_sphere(name="repulsion724")
    direction = np.eye(3)[axis]
    signal = fibre_signal(table, direction).reshape(1, 1, 1, -1).astype(np.float32)
    fodf = deconvolve(signal, table, np.ones((1, 1, 1), dtype=bool))
    amplitude = fodf.amplitudes(sphere.vertices)[0]
    # 724 directions lie some 8 degrees apart: the nearest is within 5, and the peak is the nearest or next.
    assert abs(sphere.vertices[amplitude.argmax()] @ direction) > np.cos(np.radians(8))
    assert amplitude.min() >= 0


@pytest.mark.parametrize(("order", "directions"), [(4, 20), (6, 30), (8, 64), (8, 45)])
def test_batched_deconvolution_equals_dipys_voxel_by_voxel(order, directions):
    table, rng = gradients(directions), np.random.default_rng(order + directions)
    axes = rng.normal(size=(300, 2, 3))
    axes /= np.linalg.norm(axes, axis=2, keepdims=True)
    signal = np.array([(fibre_signal(table, a) + fibre_signal(table, b)) / 2 for a, b in axes])
    signal = np.abs(signal + rng.normal(scale=40, size=signal.shape)).astype(np.float32).reshape(10, 5, 6, -1)
    found = deconvolve(signal, table, np.ones((10, 5, 6), dtype=bool), order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announces its legacy basis, and voxels that swing for ever
        model = ConstrainedSphericalDeconvModel(
            gradient_table(table.b_values_s_per_mm2, bvecs=table.directions),
            (RESPONSE.eigenvalues_mm2_per_s, RESPONSE.b0),
            reg_sphere=get_sphere(name="repulsion100"),
            sh_order_max=order,
        )
        expected = model.fit(signal.astype(np.float64)).shm_coeff.reshape(300, -1)
    scale = np.abs(expected).max(axis=1, keepdims=True)
    # Coefficients are kept as float32. A voxel whose fODF touches the threshold within rounding may settle
    # on another set of small directions: one in a hundred at most.
    agree = (np.abs(found.coefficients - expected) <= 1e-6 * scale).all(axis=1)
    assert agree.mean() >= 0.99


def test_an_fodf_has_a_row_for_each_voxel_that_needs_one():
    where = np.zeros((3, 2, 2), dtype=bool)
    where[0, 1, 0] = where[2, 0, 1] = True
    fodf = Fodf(where, np.zeros((2, 15), dtype=np.float32))
    assert fodf.row_of[0, 1, 0] == 0
    assert fodf.row_of[2, 0, 1] == 1
    assert (fodf.row_of >= 0).sum() == 2
    with pytest.raises(DataError, match="2 voxels must have an fODF each; there are 3"):
        Fodf(where, np.zeros((3, 15), dtype=np.float32))


@pytest.mark.parametrize("name", ["repulsion100", "repulsion200", "symmetric362"])
@pytest.mark.parametrize("max_angle_deg", [10.0, 30.0, 90.0])
def test_a_streamline_may_turn_to_the_axes_within_the_angle(name, max_angle_deg):
    directions = spread_directions(name, max_angle_deg=max_angle_deg)
    vertices = get_sphere(name=name).vertices
    assert len(directions.vectors) == len(vertices) // 2
    for axis, vector in enumerate(directions.vectors):
        near = directions.near[axis, : directions.count[axis]]
        sign = np.where(directions.same_way[axis, : len(near)], 1, -1)
        reached = {tuple(np.round(v, 6)) for v in sign[:, None] * directions.vectors[near]}
        allowed = vertices[vertices @ vector >= np.cos(np.radians(max_angle_deg)) - 1e-9]
        if max_angle_deg < 90:  # at a right angle either of two opposite vertices will do
            assert reached == {tuple(np.round(v, 6)) for v in allowed}
        assert axis in near


def test_random_numbers_equal_the_published_generator():
    """SplitMix64 in Python's integers, which do not overflow."""
    mask, state = 2**64 - 1, 1234567
    stream = np.array([state], dtype=np.uint64)
    for _ in range(5):
        state = (state + int(GOLDEN)) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        assert int(scramble(np.uint64(state))) == z
        assert draw_uniform(stream) == (z >> 11) * 2.0**-53


@given(st.tuples(*[st.floats(-1, 4)] * 3))
@settings(deadline=None)
def test_the_stop_map_is_interpolated_between_eight_voxels(position):
    stop_map = np.random.default_rng(0).random((4, 3, 5)).astype(np.float32)
    expected, low = 0.0, np.floor(position).astype(int)
    if (low < 0).any() or (low + 1 >= stop_map.shape).any():
        expected = -1.0
    else:
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod([1 - abs(p - v) for p, v in zip(position, low + corner, strict=True)])
            expected += weight * stop_map[tuple(low + corner)]
    # Only the order of the multiplications differs.
    assert interpolate_stop(np.array(position), stop_map) == pytest.approx(expected, abs=1e-12)


def test_streamlines_run_along_the_bar_and_end_at_its_ends(bar):
    lines = lines_of(follow(bar))
    reach_mm = np.array([abs(line[0, 0] - line[-1, 0]) * 2 for line in lines])
    assert len(lines) > 150
    # The bar is 40 mm long; a wandering streamline may leave it at a side.
    assert np.median(reach_mm) > 30
    assert reach_mm.max() < 45


def test_every_step_has_its_length_and_turns_no_further_than_allowed(bar):
    size_mm = np.array([2.0, 1.5, 3.0])
    for line in lines_of(follow(bar, size_mm=size_mm)):
        steps = np.diff(line, axis=0) * size_mm
        length = np.linalg.norm(steps, axis=1)
        # Points are float32 voxel coordinates of up to 24: steps of 1 mm keep five digits.
        assert length == pytest.approx(1.0, abs=1e-5)
        cosine = (steps[1:] * steps[:-1]).sum(axis=1)
        assert (cosine >= np.cos(np.radians(30)) - 1e-4).all()


def test_streamlines_stay_where_the_stop_map_allows_and_inside_the_grid(bar):
    fodf, fa = bar
    stop_map = fa.astype(np.float32)
    for line in lines_of(follow(bar)):
        assert min(interpolate_stop(point.astype(np.float64), stop_map) for point in line) >= 0.1 - 1e-6
    everywhere = np.ones_like(fa)
    fibres_to_the_edge = Fodf(np.ones(fa.shape, dtype=bool), np.tile(fodf.coefficients[:1], (fa.size, 1)))
    lines = lines_of(follow((fibres_to_the_edge, everywhere), seeds=500))
    points = np.concatenate(lines)
    assert points.min() >= 0
    assert (points.max(axis=0) <= np.array(fa.shape) - 1).all()


def test_streamlines_of_forbidden_length_are_dropped(bar):
    kept = {len(line) - 1 for line in lines_of(follow(bar))}
    assert min(kept) < 20 or max(kept) > 30
    rules = replace(RULES, min_length_mm=20.0, max_length_mm=30.0)
    assert {len(line) - 1 for line in lines_of(follow(bar, rules=rules))} <= set(range(20, 31))


def test_the_same_seed_gives_the_same_streamlines_in_any_batches(bar, monkeypatch):
    whole = lines_of(follow(bar))
    monkeypatch.setattr("esn_client.imaging.tracking.tracking.BATCH_SEEDS", 7)
    batches = follow(bar)
    assert len(batches) == 29
    parts = lines_of(batches)
    assert len(whole) == len(parts)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    others = lines_of(follow(bar, random_seed=2))
    assert not any(np.array_equal(a, b) for a, b in zip(whole, others, strict=False))


def test_every_streamline_is_a_seed_of_its_own(bar):
    lines = lines_of(follow(bar))
    assert len({line.tobytes() for line in lines}) == len(lines)


def test_seeds_are_spread_evenly_over_the_voxels():
    directions = spread_directions("repulsion100", max_angle_deg=30)
    shape = (6, 5, 4)
    start = np.argwhere(np.random.default_rng(0).random(shape) < 0.5).astype(np.int32)
    start = start[((start > 0) & (start < np.array(shape) - 1)).all(axis=1)]
    seeds = 3 * len(start)
    points, bounds = np.zeros((seeds, 1, 3), np.float32), np.zeros((seeds, 2), np.int64)
    propagate(
        np.ones((1, 50), np.float32),
        np.zeros(shape, np.int32),
        np.ones(shape, np.float32),
        0.5,
        0.0,
        directions.vectors,
        directions.near,
        directions.same_way,
        directions.count,
        directions.all_axes,
        np.ones(3),
        start,
        seeds,
        1,
        0,
        seeds,
        points,
        bounds,
    )
    # There is room for the seeds alone. Each third of a voxel's part of the list holds one.
    assert (bounds == [0, 1]).all()
    assert np.array_equal(np.rint(points[:, 0]).astype(int), np.repeat(start, 3, axis=0))
    offset = points[:, 0] - np.repeat(start, 3, axis=0)
    assert np.abs(offset).max() <= 0.5
    assert np.abs(offset.mean(axis=0)).max() < 4 * np.sqrt(1 / 12 / seeds)  # four standard errors


def test_a_brain_without_fibres_has_nowhere_to_start():
    mask = np.ones((9, 9, 9), dtype=bool)
    with pytest.raises(DataError, match=r"no voxel reaches an FA of 0\.2 to start from; the most is 0\.15"):
        find_seeds(np.full((9, 9, 9), 0.15), mask, threshold=0.2, depth_voxels=2)


def test_seeds_keep_their_distance_from_the_brains_surface():
    mask = np.ones((9, 9, 9), dtype=bool)
    seeds = find_seeds(np.ones((9, 9, 9)), mask, threshold=0.2, depth_voxels=2)
    assert seeds.sum() == 5**3
    assert seeds[2:7, 2:7, 2:7].all()


def test_fodfs_are_needed_around_every_place_that_a_streamline_can_come_to():
    rng = np.random.default_rng(3)
    stop_map = np.where(rng.random((6, 6, 6)) < 0.1, rng.random((6, 6, 6)), 0.0)
    reach = find_reach(stop_map, np.ones((6, 6, 6), dtype=bool), stop_threshold=0.3)
    for position in rng.uniform(0, 5, (2000, 3)):
        if interpolate_stop(position, stop_map.astype(np.float32)) >= 0.3:
            low = np.floor(position).astype(int)
            assert reach[low[0] : low[0] + 2, low[1] : low[1] + 2, low[2] : low[2] + 2].all()


def test_seeds_without_an_fodf_are_refused(bar):
    fodf, fa = bar
    empty = Fodf(np.zeros(fa.shape, dtype=bool), np.zeros((0, 15), dtype=np.float32))
    with pytest.raises(DataError, match="none of 1 voxels to start in has a fibre orientation"):
        next(
            track(
                empty,
                fa,
                seed_mask=np.arange(fa.size).reshape(fa.shape) == 5,
                voxel_size_mm=SIZE_MM,
                rules=RULES,
                seeds=10,
                random_seed=1,
            )
        )
    assert fodf.where.any()


def test_a_tractogram_is_written_as_streamlines_pass(bar, tmp_path):
    from trx.trx_file_memmap import load

    affine = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -10], [0, 0, 2, -7], [0, 0, 0, 1]])
    path = tmp_path / "sub-001.trx"
    batches = follow(bar)
    passed = []
    for batch in write_tractogram(batches, path, affine=affine, shape=(24, 14, 14)):
        assert not path.exists()
        passed.append(batch)
    assert passed == batches
    assert [entry.name for entry in tmp_path.iterdir()] == ["sub-001.trx"]
    read = load(str(path))
    expected = lines_of(batches)
    assert len(read.streamlines) == len(expected)
    for line, wanted in zip(read.streamlines, expected, strict=True):
        # float32 millimetres.
        assert line == pytest.approx(wanted @ affine[:3, :3].T + affine[:3, 3], abs=1e-4)
    read.close()


def test_an_interrupted_tractogram_leaves_no_file(bar, tmp_path):
    writing = write_tractogram(follow(bar), tmp_path / "a.trx", affine=np.eye(4), shape=(24, 14, 14))
    next(writing)
    writing.close()
    assert list(tmp_path.iterdir()) == []


def test_streamlines_know_their_ends_and_lengths():
    points = np.arange(15, dtype=np.float32).reshape(5, 3)
    streamlines = Streamlines(points, np.array([0, 2, 5]), 0.5)
    assert len(streamlines) == 2
    assert streamlines.lengths_mm.tolist() == [0.5, 1.0]
    assert streamlines.ends.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [12, 13, 14]]]


def test_code_is_compiled_even_where_nothing_can_be_kept(monkeypatch):
    def refuse_to_keep(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return njit(**options)

    monkeypatch.setattr(compilation, "njit", refuse_to_keep)
    assert compilation.compiled(lambda x: x + 1)(1) == 2
