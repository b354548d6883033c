"""What one child can add to a sum, whatever its numbers are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from esn_core.analyses.reruns import Rerun, count_unit, read_rerun_association
from esn_core.errors import DataError
from esn_core.gase import standardise_severity
from esn_core.learning.releases import (
    attribution_rows,
    gradient_release,
    gradient_rows,
    local_update_rows,
    read_attribution,
    read_gradient,
    read_local_update,
)
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.severity_network.association import (
    CENTRE,
    association_release,
    association_rows,
    centre_rows,
    read_centre,
)
from esn_core.statistics.agreement import EVALUATION, evaluation_rows
from esn_core.statistics.recalibration import CALIBRATION, calibration_rows

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)
GASE = st.integers(1, 7)
# The clip multiplies and takes one norm: a few float64 roundings; the declared sensitivity allows 2^-20.
ROUNDING = 1 + 1e-14


def lengths(rows):
    """Euclidean norms of rows, by the definition, without overflow."""
    return [math.hypot(*row) for row in rows]


@st.composite
def children(draw, columns=3, numbers=ANY):
    n = draw(st.integers(1, 6))
    scores = draw(arrays(np.float64, (n, columns), elements=numbers))
    gase = np.array(draw(st.lists(GASE, min_size=n, max_size=n)), dtype=float)
    return scores, gase


@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=ANY), st.floats(1e-3, 1e3)
)
def test_no_clipped_row_is_longer_than_its_bound(rows, bound):
    clipped = clip_rows(rows, bound)
    assert np.isfinite(clipped).all()
    assert max(lengths(clipped)) <= bound * ROUNDING


@given(arrays(np.float64, (4, 3), elements=FINITE), st.floats(1e-3, 1e3))
def test_the_clip_keeps_a_rows_direction_and_leaves_short_rows_alone(rows, bound):
    for row, clipped in zip(rows, clip_rows(rows, bound), strict=True):
        length = math.hypot(*row)
        if length <= bound * (1 - 1e-14):
            assert np.array_equal(row, clipped)
        elif math.isfinite(length):
            assert clipped == pytest.approx(row / length * bound, rel=1e-12, abs=1e-300)


def test_a_row_that_is_not_finite_counts_as_zero_and_changes_no_other():
    rows = np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0], [3.0, 4.0]])
    assert np.array_equal(clip_rows(rows, 5.0), [[1, 2], [0, 0], [0, 0], [3, 4]])


@given(children())
def test_no_row_of_the_centre_is_longer_than_its_bound(drawn):
    _, gase = drawn
    assert max(lengths(centre_rows(gase))) <= CENTRE.l2_bound * ROUNDING


@given(children(), FINITE)
def test_no_row_of_the_association_is_longer_than_its_bound(drawn, mean):
    scores, gase = drawn
    rows = association_rows(scores, gase, mean_severity=mean)
    assert max(lengths(rows)) <= association_release(3).l2_bound * ROUNDING


@given(children(), st.floats(1e-3, 1e3), st.data())
def test_no_row_of_the_gradient_is_longer_than_its_bound(drawn, bound, data):
    gradients, gase = drawn
    losses = data.draw(arrays(np.float64, len(gase), elements=FINITE))
    rows = gradient_rows(gradients, losses, max_gradient_norm=bound)
    assert max(lengths(rows)) <= gradient_release(3, max_gradient_norm=bound).l2_bound * ROUNDING


@given(children(columns=1, numbers=FINITE))
def test_no_row_of_the_calibration_is_longer_than_its_bound(drawn):
    raw, gase = drawn
    assert max(lengths(calibration_rows(raw[:, 0], gase))) <= CALIBRATION.l2_bound * ROUNDING


@given(children(columns=1, numbers=FINITE))
def test_no_row_of_the_evaluation_is_longer_than_its_bound(drawn):
    prediction, gase = drawn
    assert max(lengths(evaluation_rows(prediction[:, 0], gase))) <= EVALUATION.l2_bound


@given(st.lists(st.tuples(st.floats(1, 7), GASE), min_size=1, max_size=20))
def test_the_gates_clip_changes_nothing_in_rows_as_they_should_be(pairs):
    prediction, gase = np.array(pairs, dtype=float).T
    raw = (prediction - 4) / 1.5
    for kind, rows in (
        (CENTRE, centre_rows(gase)),
        (CALIBRATION, calibration_rows(raw, gase)),
        (EVALUATION, evaluation_rows(prediction, gase)),
    ):
        # A row that lies on its bound may be rounded once.
        assert clip_rows(rows, kind.l2_bound) == pytest.approx(rows, rel=1e-15, abs=0)


@given(st.lists(st.tuples(st.floats(1, 7), GASE), min_size=2, max_size=20), st.integers(1, 19))
def test_two_sites_rows_are_the_pooled_rows(pairs, cut):
    prediction, gase = np.array(pairs, dtype=float).T
    parts = [evaluation_rows(prediction[s], gase[s]) for s in (slice(None, cut), slice(cut, None))]
    assert np.array_equal(np.concatenate(parts), evaluation_rows(prediction, gase))


@given(st.lists(st.tuples(st.floats(1, 7), GASE), min_size=1, max_size=20))
def test_the_evaluation_rows_hold_the_moments_of_their_definition(pairs):
    prediction, gase = np.array(pairs, dtype=float).T
    total = evaluation_rows(prediction, gase).sum(axis=0)
    a, b = (prediction - 4) / 3, (gase - 4) / 3
    moments = [
        len(a) / 2,
        a.sum(),
        b.sum(),
        (a**2).sum(),
        (b**2).sum(),
        (a * b).sum(),
        np.abs(a - b).sum() / 2,
    ]
    assert total[:7] == pytest.approx(moments, abs=1e-13)  # the order of at most 20 additions
    counts, sums, squares = 2 * total[7:].reshape(7, 3).T
    for level in range(1, 8):
        a = (prediction[gase == level] - 4) / 3
        assert counts[level - 1] == len(a)
        assert sums[level - 1] == pytest.approx(a.sum(), abs=1e-13)
        assert squares[level - 1] == pytest.approx((a**2).sum(), abs=1e-13)


def test_the_longest_evaluation_row_is_as_long_as_the_bound():
    """A prediction at the other end of the scale: 1/4 + 5 + 1 + 3/4."""
    rows = evaluation_rows(np.array([1.0, 7.0, 7.0]), np.array([7.0, 1.0, 7.0]))
    assert lengths(rows) == pytest.approx([math.sqrt(7), math.sqrt(7), math.sqrt(6)], rel=1e-15)


def test_the_mean_gradient_and_the_mean_loss_are_read_back_from_the_sum():
    losses = np.array([0.5, 1.0, 4.0, 9.0])
    gradients = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0], [0.0, 0.0]])
    total = gradient_rows(gradients, losses, max_gradient_norm=2.0).sum(axis=0)
    step = read_gradient(total, 4, max_gradient_norm=2.0)
    # 9 is clipped to 4, and a gradient of length 4 to 2.
    assert step.loss == pytest.approx(9.5 / 4, rel=1e-15)
    assert step.gradient == pytest.approx([0.25, 0.75], rel=1e-15)


def test_the_mean_of_local_updates_is_by_the_children_of_the_sites():
    first = local_update_rows(np.array([1.0, 0.0]), np.array([1.0]), max_gradient_norm=2.0)
    second = local_update_rows(np.array([0.0, 1.0]), np.array([2.0, 3.0, 2.0]), max_gradient_norm=2.0)
    step = read_local_update(first.sum(axis=0) + second.sum(axis=0), max_gradient_norm=2.0)
    assert step.gradient == pytest.approx([0.25, 0.75], rel=1e-15)
    assert step.loss == pytest.approx(2.0, rel=1e-15)


def test_the_centre_is_read_back_and_held_where_noise_carries_it_off():
    gase = np.array([1.0, 4.0, 5.0, 6.0])
    found = read_centre(centre_rows(gase).sum(axis=0), fewest_children=3.0)
    assert found == pytest.approx((4.0, standardise_severity(gase).mean()), rel=1e-15)
    # Fewer children than every site promises, and a sum that no children have.
    assert read_centre(np.array([-2.0, 40.0]), fewest_children=15.0) == (15.0, 1.0)


def test_the_mean_attribution_is_in_steps_of_gase():
    values = np.array([[0.2, 0.0], [0.4, -0.1]])
    total = attribution_rows(values).sum(axis=0)
    found = read_attribution(total, fewest_children=1.0, noise_sd=0.5)
    assert found.mean == pytest.approx(1.5 * values.mean(axis=0), rel=1e-15)
    assert found.noise_sd == pytest.approx(1.5 * 0.5 / 2, rel=1e-15)
    assert read_attribution(total, fewest_children=10.0, noise_sd=0.0).mean == pytest.approx(
        0.15 * values.sum(axis=0), rel=1e-15
    )


def test_the_mean_attributions_vary_no_more_than_is_said():
    rng = np.random.default_rng(0)
    for length in (0.2, 1.0, 5.0):
        children = attribution_rows(length * (0.3 + rng.normal(size=(4000, 12))) / math.sqrt(12))
        found = read_attribution(children.sum(axis=0), fewest_children=1.0, noise_sd=0.0)
        drawn = 1.5 * children[:, 1:].std(axis=0) / math.sqrt(4000)
        assert math.sqrt(np.mean(drawn**2)) <= found.sampling_sd * (1 + 1e-9)
    # Children whose vectors are as long as can be reach the bound.
    assert math.sqrt(np.mean(drawn**2)) == pytest.approx(found.sampling_sd, rel=0.01)
    noised = read_attribution(
        children.sum(axis=0) + rng.normal(0, 60, 13), fewest_children=1.0, noise_sd=60.0
    )
    assert noised.sampling_sd == pytest.approx(found.sampling_sd, rel=0.05)


def test_the_association_of_each_rerun_is_read_back_with_its_children():
    reruns, unit = (Rerun(draw=0), Rerun(draw=1)), count_unit(3)
    total = np.array([7 * unit, 1.0, 2.0, 3.0, 2 * unit, 4.0, 5.0, 6.0])
    first, second = read_rerun_association(total, reruns, 3, fewest_children=4.0)
    assert first[0].tolist() == [1.0, 2.0, 3.0]
    assert second[0].tolist() == [4.0, 5.0, 6.0]
    assert (first[1], second[1]) == (pytest.approx(7.0, rel=1e-15), 4.0)


def test_severity_is_standardised_with_public_numbers():
    assert np.array_equal(standardise_severity(np.array([1.0, 4.0, 7.0])), [-2, 0, 2])


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_release_without_a_bound_is_refused(bound):
    with pytest.raises(DataError, match="release x: the bound must lie between"):
        ReleaseKind("x", "training", 2, bound)


def test_a_release_of_nothing_is_refused():
    with pytest.raises(DataError, match="a row has at least one number, not 0"):
        ReleaseKind("x", "training", 0, 1.0)
