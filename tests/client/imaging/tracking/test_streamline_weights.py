"""Tests of streamline weights: against a dense definition, and on bundles whose size is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esn_client.imaging.fibres.fodf import Fodf, fit_fodf
from esn_client.imaging.fibres.lobes import Lobes, find_lobes
from esn_client.imaging.fibres.response import Response
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.tracking.streamline_weights import Visits, record_visits, weigh_streamlines
from esn_client.imaging.tracking.streamlines import Streamlines
from esn_client.imaging.tracking.tracking import TrackingRules, track
from esn_core.errors import DataError

ALONG, ACROSS = 1.7e-3, 0.3e-3
SIZE_MM = np.array([2.0, 2.0, 2.0])


def gradients(count=45):
    k = np.arange(count)
    z, angle = 1 - (k + 0.5) / count, np.pi * (3 - np.sqrt(5)) * k
    weighted = np.column_stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z])
    return Gradients(np.r_[0.0, np.full(count, 2500.0)], np.vstack([np.zeros(3), weighted]))


def signal_along(table, *directions):
    """Equal parts of fibres along each direction."""
    parts = [
        np.exp(-table.b_values_s_per_mm2 * (ACROSS + (ALONG - ACROSS) * (table.directions @ d) ** 2))
        for d in np.asarray(directions, dtype=float)
    ]
    return 1000 * np.mean(parts, axis=0).astype(np.float32)


def fodf_of(signal, table):
    response = Response(np.array([ALONG, ACROSS, ACROSS]), 1000.0)
    where = signal[..., 0] > 0
    return fit_fodf(signal, table, response=response, where=where, sh_order_max=8)


def test_two_crossing_bundles_are_two_lobes_of_equal_density():
    table = gradients()
    signal = signal_along(table, (1, 0, 0), (0, 1, 0)).reshape(1, 1, 1, -1)
    lobes = find_lobes(fodf_of(signal, table), sphere="repulsion724", least_amplitude=0.3)
    assert len(lobes.density) == 2
    # The directions of the sphere fall differently about the two peaks.
    assert lobes.density[0] == pytest.approx(lobes.density[1], rel=0.1)
    x, y = (np.abs(lobes.vectors[:, axis]).argmax() for axis in (0, 1))
    assert {lobes.lobe_of[0, x], lobes.lobe_of[0, y]} == {0, 1}
    assert lobes.lobe_of[0, np.abs(lobes.vectors[:, 2]).argmax()] == -1


def test_the_lobe_of_an_even_fodf_has_its_integral():
    coefficients = np.zeros((1, 15), dtype=np.float32)
    coefficients[0, 0] = 1.0
    even = Fodf(np.ones((1, 1, 1), dtype=bool), coefficients)
    lobes = find_lobes(even, sphere="repulsion200", least_amplitude=0.0)
    # Y00 is 1 / sqrt(4 pi); rounding in float32 decides where lobes meet, not what they hold together.
    assert lobes.density.sum() == pytest.approx(np.sqrt(4 * np.pi), rel=1e-6)


def hand_made(rng, lobes=7, streamlines=12):
    steps = rng.integers(0, 4, (streamlines, lobes))
    density = rng.uniform(0.5, 2, lobes)
    parts = []
    for rows in (steps[:5], steps[5:]):
        places = [np.flatnonzero(row) for row in rows]
        parts.append(
            Visits(
                np.concatenate(places).astype(np.int32),
                np.concatenate([row[p] for row, p in zip(rows, places, strict=True)]).astype(np.uint16),
                np.r_[0, np.cumsum([len(p) for p in places])],
            )
        )
    empty = np.zeros((0, 3)), np.zeros((1, 1, 1), np.int32), np.zeros((0, 0), np.int32)
    return steps, Lobes(*empty, density), parts


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 5]))
@settings(deadline=None, max_examples=30)
def test_weights_equal_expectation_maximisation_on_the_whole_matrix(seed, iterations):
    steps, lobes, parts = hand_made(np.random.default_rng(seed))
    reached = steps.sum(axis=0) > 0
    wanted = lobes.density * reached
    wanted *= steps.sum() / wanted.sum()
    weights = np.ones(len(steps))
    for _ in range(iterations):
        ratio = np.where(reached, wanted / np.maximum(weights @ steps, 1e-300), 0)
        length = steps.sum(axis=1)
        weights = np.where(length > 0, weights * (steps @ ratio) / np.maximum(length, 1), weights)
    found = weigh_streamlines(parts, lobes, iterations=iterations)
    # Only the order of the additions differs.
    assert found.weights == pytest.approx(weights, rel=1e-10)
    laid = weights @ steps
    assert found.misfit_after == pytest.approx(np.abs(laid - wanted).sum() / (2 * steps.sum()), rel=1e-9)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_weights_are_positive_and_the_likelihood_never_falls(seed):
    steps, lobes, parts = hand_made(np.random.default_rng(seed))
    wanted = np.where(steps.sum(axis=0) > 0, lobes.density, 0)
    wanted *= steps.sum() / wanted.sum()
    gained = []
    for iterations in range(6):
        weights = weigh_streamlines(parts, lobes, iterations=iterations).weights
        laid = weights @ steps
        assert (weights > 0).all()
        gained.append((wanted[wanted > 0] * np.log(laid[wanted > 0])).sum() - laid.sum())
    # Rounding.
    assert (np.diff(gained) >= -1e-9).all()


def test_visits_name_the_lobe_of_every_step():
    vectors = np.eye(3)
    row_of = np.arange(4, dtype=np.int32).reshape(4, 1, 1)
    lobe_of = np.array([[0, 1, -1], [2, -1, -1], [3, -1, -1], [-1, -1, -1]], dtype=np.int32)
    lobes = Lobes(vectors, row_of, lobe_of, np.ones(4))
    points = np.array([[0.1, 0, 0], [0.3, 0, 0], [0.45, 0, 0], [1, 0, 0], [1, 0.2, 0], [2.2, 0.2, 0]])
    streamlines = Streamlines(points.astype(np.float32), np.array([0, 6]), 1.0)
    visits = []
    assert list(record_visits([streamlines], lobes, voxel_size_mm=SIZE_MM, into=visits)) == [streamlines]
    # Midpoints .2, .375 in voxel 0; .725 in voxel 1; a step along y where there is no lobe; 1.6 in voxel 2.
    assert visits[0].lobes.tolist() == [0, 2, 3]
    assert visits[0].steps.tolist() == [2, 1, 1]
    assert visits[0].offsets.tolist() == [0, 3]


def test_streamlines_outside_every_lobe_are_refused():
    _, lobes, _ = hand_made(np.random.default_rng(0))
    nothing = Visits(np.zeros(0, np.int32), np.zeros(0, np.uint16), np.zeros(4, np.int64))
    with pytest.raises(DataError, match="no streamline passes through a lobe"):
        weigh_streamlines([nothing], lobes, iterations=3)


def test_a_long_and_a_short_bundle_of_the_same_size_weigh_the_same():
    table = gradients()
    signal = np.zeros((44, 20, 10, 46), dtype=np.float32)
    signal[2:42, 3:7, 3:7] = signal_along(table, (1, 0, 0))
    signal[2:14, 13:17, 3:7] = signal_along(table, (1, 0, 0))
    fodf = fodf_of(signal, table)
    white = (signal[..., 0] > 0).astype(float)
    rules = TrackingRules(1.0, 20.0, 10.0, 200.0, 0.5, 0.2, "repulsion200")
    lobes = find_lobes(fodf, sphere="repulsion200", least_amplitude=0.5)
    visits, is_long = [], []
    batches = track(
        fodf, white, seed_mask=white > 0, voxel_size_mm=SIZE_MM, rules=rules, seeds=6000, random_seed=1
    )
    for batch in record_visits(batches, lobes, voxel_size_mm=SIZE_MM, into=visits):
        is_long += (batch.ends[:, 0, 1] < 10).tolist()
    is_long = np.array(is_long)
    found = weigh_streamlines(visits, lobes, iterations=20)
    assert found.misfit_after < found.misfit_before
    plain = is_long.sum() / (~is_long).sum()
    weighted = found.weights[is_long].sum() / found.weights[~is_long].sum()
    # The long bundle has 40 voxels to start in, the short one 12; both are 16 voxels across. Streamlines that
    # leave a bundle early are shorter than it: more of them are needed in the long one.
    assert plain > 2.5
    assert 0.6 < weighted < 1.7
