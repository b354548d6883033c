"""Tests of how streamlines become edges, against slow definitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esn_client.imaging.regions.connectivity import PROBE_MM, Assignments, assign, connect
from esn_client.imaging.tracking.streamlines import Streamlines
from esn_core.connectome.atlas import Atlas, Region
from esn_core.errors import DataError

NAMES = ("a", "b", "c")
ATLAS = Atlas("three", tuple(Region(i + 1, n, "L", i, 0, 0, "m") for i, n in enumerate(NAMES)))
SIZE_MM = np.array([2.0, 1.5, 3.0])
SHAPE = (6, 5, 4)


def draw(seed):
    """Random streamlines, regions and FA on a small grid."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, size=12)
    points = rng.uniform(0, np.array(SHAPE) - 1, (sizes.sum(), 3)).astype(np.float32)
    regions = rng.choice([-1, -1, -1, 0, 1, 2], size=SHAPE)
    return Streamlines(points, np.r_[0, np.cumsum(sizes)], 0.5), regions, rng.random(SHAPE)


def look_ahead(line, regions, forward_search_mm):
    """Give the region of a streamline's last point, or the first one straight ahead of it."""
    tip, before = line[-1].astype(float), line[max(len(line) - 3, 0)].astype(float)
    ahead_mm = (tip - before) * SIZE_MM
    for distance_mm in np.arange(0, forward_search_mm + 1e-9, PROBE_MM):
        voxel = np.rint(tip + distance_mm * ahead_mm / np.linalg.norm(ahead_mm) / SIZE_MM).astype(int)
        if (voxel < 0).any() or (voxel >= regions.shape).any():
            return -1
        if regions[tuple(voxel)] >= 0:
            return regions[tuple(voxel)]
    return -1


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 4.0]))
@settings(deadline=None, max_examples=60)
def test_an_end_belongs_to_the_region_that_the_streamline_meets_first(seed, forward_search_mm):
    streamlines, regions, fa = draw(seed)
    found = assign([streamlines], regions, fa=fa, voxel_size_mm=SIZE_MM, forward_search_mm=forward_search_mm)
    for number in range(len(streamlines)):
        line = streamlines.points[streamlines.offsets[number] : streamlines.offsets[number + 1]]
        expected = [look_ahead(side, regions, forward_search_mm) for side in (line[::-1], line)]
        assert found.regions[number].tolist() == expected
        assert found.lengths_mm[number] == (len(line) - 1) * 0.5


def test_mean_fa_is_taken_along_the_streamline():
    fa = np.zeros((5, 2, 2))
    fa[:] = np.array([0.0, 0.2, 0.4, 0.6, 0.8])[:, None, None]
    points = np.array([[0.5, 0, 0], [1.5, 0.5, 0.5], [3.5, 0.9, 0]], dtype=np.float32)
    line = Streamlines(points, np.array([0, 3]), 1.0)
    found = assign([line], np.zeros((5, 2, 2), int), fa=fa, voxel_size_mm=SIZE_MM, forward_search_mm=0.0)
    # FA is linear, and so is its interpolation: 0.1, 0.3 and 0.7. FA is kept as float32.
    assert found.mean_fa == pytest.approx([1.1 / 3], rel=1e-6)


def test_batches_add_up():
    first, regions, fa = draw(1)
    second = replace(draw(2)[0])
    settings = {"fa": fa, "voxel_size_mm": SIZE_MM, "forward_search_mm": 2.0}
    both = assign(iter([first, second]), regions, **settings)
    for name in ("regions", "lengths_mm", "mean_fa"):
        parts = [getattr(assign([batch], regions, **settings), name) for batch in (first, second)]
        assert np.array_equal(getattr(both, name), np.concatenate(parts))


ENDS = st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=40)
VOLUMES = np.array([100.0, 300.0, 50.0])


@given(ENDS, st.booleans())
def test_edge_measures_equal_the_definition(ends, weighted):
    rng = np.random.default_rng(len(ends))
    lengths, fa = rng.uniform(10, 200, len(ends)), rng.random(len(ends))
    weights = rng.random(len(ends)) if weighted else np.ones(len(ends))
    assignments = Assignments(np.array(ends), lengths, fa)
    if not any(a != b and min(a, b) >= 0 for a, b in ends):
        with pytest.raises(DataError, match=f"none of {len(ends)} streamlines joins two regions"):
            connect(assignments, atlas=ATLAS, volumes_mm3=VOLUMES)
        return
    found = connect(assignments, atlas=ATLAS, volumes_mm3=VOLUMES, weights=weights if weighted else None)
    for a in range(3):
        for b in range(3):
            mine = [i for i, pair in enumerate(ends) if tuple(sorted(pair)) == (min(a, b), max(a, b))]
            total = sum(weights[i] for i in mine)
            matrices = found.matrices()
            # Only the order of the additions differs.
            assert found.connectome.counts[a, b] == pytest.approx(total, rel=1e-12)
            assert matrices["count_per_volume"][a, b] == pytest.approx(
                2 * total / (VOLUMES[a] + VOLUMES[b]), rel=1e-12
            )
            assert matrices["count_per_length"][a, b] == pytest.approx(
                sum(weights[i] / lengths[i] for i in mine), rel=1e-12
            )
            for name, values in (("mean_length_mm", lengths), ("mean_fa", fa)):
                mean = sum(weights[i] * values[i] for i in mine) / total if mine else 0.0
                assert matrices[name][a, b] == pytest.approx(mean, rel=1e-12)
    assert found.streamlines == len(ends)
    assert found.assigned == sum(min(pair) >= 0 for pair in ends)
    assert found.assigned_fraction == found.assigned / len(ends)
    assert found.density == np.mean([found.connectome.counts[a, b] > 0 for a, b in ((0, 1), (0, 2), (1, 2))])


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_reversing_a_streamline_changes_nothing(seed):
    streamlines, regions, fa = draw(seed)
    backwards = np.concatenate(
        [
            streamlines.points[i:j][::-1]
            for i, j in zip(streamlines.offsets[:-1], streamlines.offsets[1:], strict=True)
        ]
    )
    settings = {"fa": fa, "voxel_size_mm": SIZE_MM, "forward_search_mm": 3.0}
    found = assign([streamlines], regions, **settings)
    reversed_ = assign([replace(streamlines, points=backwards)], regions, **settings)
    assert np.array_equal(found.regions, reversed_.regions[:, ::-1])
    # Only the order of the additions differs.
    assert found.mean_fa == pytest.approx(reversed_.mean_fa, rel=1e-12)


def counts_of(ends):
    """The matrix of counts of streamlines that end so."""
    each = np.ones(len(ends))
    return connect(
        Assignments(np.asarray(ends), 50 * each, 0.5 * each), atlas=ATLAS, volumes_mm3=VOLUMES
    ).connectome.counts


JOINING = ENDS.map(lambda ends: [*ends, (0, 1)])
"""Ends of streamlines one of which, at least, joins two regions."""


@given(JOINING, st.randoms(use_true_random=False))
def test_reversing_streamlines_changes_nothing(ends, random):
    turned = [pair[::-1] if random.random() < 0.5 else pair for pair in ends]
    assert np.array_equal(counts_of(turned), counts_of(ends))


@given(JOINING, st.permutations(range(3)))
def test_renaming_regions_permutes_the_matrix(ends, order):
    renamed = [tuple(-1 if end < 0 else order.index(end) for end in pair) for pair in ends]
    assert np.array_equal(counts_of(renamed), counts_of(ends)[np.ix_(order, order)])


@given(JOINING, JOINING)
def test_two_tractograms_added_equal_one(first, second):
    assert np.array_equal(counts_of([*first, *second]), counts_of(first) + counts_of(second))
