"""Sums on the grid are exact, and no further apart than the declared sensitivity."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.errors import GateError, ProtocolError
from esn_core.privacy.fixed_point import (
    LARGEST_SITES,
    LARGEST_UNITS,
    add_noise,
    add_up,
    noise_sd,
    noise_units,
    quantise,
    sensitivity_units,
    sum_rows,
    units_per_one,
)
from esn_core.privacy.release import ReleaseKind, clip_rows

PAIR = ReleaseKind("pair", "training", 2, 3.0)
UNITS = units_per_one(PAIR)
LARGEST = 2**14
NUMBERS = st.floats(-LARGEST, LARGEST)
INT64 = np.iinfo(np.int64)


def as_int64(*numbers):
    return np.array(numbers, dtype=np.int64)


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_a_number_is_rounded_to_the_nearest_step_of_the_grid(numbers):
    for number, units in zip(numbers, quantise(np.array(numbers), PAIR), strict=True):
        assert abs(Fraction(number) * UNITS - int(units)) <= Fraction(1, 2)


@given(st.lists(arrays(np.float64, 2, elements=NUMBERS), min_size=1, max_size=8), st.integers(0, 8))
def test_the_sum_does_not_depend_on_how_children_are_split_over_sites(rows, cut):
    kind = ReleaseKind("wide", "training", 2, 500.0)
    rows = clip_rows(np.array(rows), kind.l2_bound)
    pooled = sum_rows(rows, kind).astype(object)
    assert all(
        sum_rows(rows[:cut], kind).astype(object) + sum_rows(rows[cut:], kind).astype(object) == pooled
    )
    assert all(sum_rows(rows[::-1], kind).astype(object) == pooled)


@given(
    arrays(np.float64, (7, 2), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.sampled_from([1e-6, 1e-3, 1.0, 3.0, 1e3]),
)
def test_neighbouring_sums_are_no_further_apart_than_the_sensitivity(rows, bound):
    kind = ReleaseKind("pair", "training", 2, bound)
    clipped = clip_rows(rows, kind.l2_bound)
    apart = sum_rows(clipped, kind) - sum_rows(clipped[1:], kind)
    assert math.hypot(*map(float, apart)) <= sensitivity_units(kind)


def test_the_sensitivity_covers_the_bound_and_the_rounding_and_hardly_more():
    least = PAIR.l2_bound * UNITS + math.sqrt(2) / 2
    assert least <= sensitivity_units(PAIR) <= least * (1 + 1e-6)


def test_the_sensitivity_grows_with_what_rounding_can_move():
    """Half a step in each of d numbers, at right angles: sqrt(d) / 2 steps."""
    long, short = (ReleaseKind("any", "training", d, 1.0) for d in (10**6, 1))
    assert sensitivity_units(long) - sensitivity_units(short) == pytest.approx(500 - 0.5, abs=1e-3)


def test_sums_beyond_the_grid_are_held_at_its_end():
    kind = ReleaseKind("one", "training", 1, 4096.0)
    assert sum_rows(np.full((5000, 1), 4096.0), kind) == LARGEST_UNITS
    assert sum_rows(np.full((5000, 1), -4096.0), kind) == -LARGEST_UNITS


def test_more_rows_than_int64_can_add_are_refused():
    kind = ReleaseKind("one", "training", 1, 4096.0)
    with pytest.raises(GateError, match="a sum over 4194305 children might overflow"):
        sum_rows(np.zeros((2**22 + 1, 1)), kind)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 16384.1, -1e300, 1.7e308])
def test_a_number_that_does_not_fit_the_grid_is_refused(number):
    with pytest.raises(GateError, match="not finite or above 16384"):
        quantise(np.array([0.0, number]), PAIR)


def test_leaving_the_grid_gives_the_sum():
    total = add_up([quantise(np.array([0.1, -2.5]), PAIR), quantise(np.array([0.2, 4.0]), PAIR)], PAIR)
    # Three roundings of half a step each.
    assert total == pytest.approx([0.3, 1.5], abs=1.5 / UNITS)


@pytest.mark.parametrize("number", [INT64.min, INT64.max, 2 * LARGEST_UNITS + 1, -2 * LARGEST_UNITS - 1])
def test_a_sum_beyond_the_range_is_refused(number):
    with pytest.raises(ProtocolError, match="release pair holds numbers beyond the range of the grid"):
        add_up([as_int64(0, number)], PAIR)


def test_the_largest_consortium_does_not_overflow():
    largest = [as_int64(2 * LARGEST_UNITS, -2 * LARGEST_UNITS)] * LARGEST_SITES
    assert add_up(largest, PAIR) == pytest.approx([2 * LARGEST_SITES * LARGEST, -2 * LARGEST_SITES * LARGEST])
    with pytest.raises(ProtocolError, match="at most 512 sites can be added up, not 513"):
        add_up([*largest, as_int64(0, 0)], PAIR)


@pytest.mark.parametrize("total", [as_int64(1), as_int64(1, 2, 3), as_int64(1, 2).reshape(1, 2)])
def test_a_sum_of_another_shape_is_refused(total):
    with pytest.raises(ProtocolError, match="release pair holds 2 numbers"):
        add_up([total], PAIR)


def test_no_sum_at_all_is_refused():
    with pytest.raises(ProtocolError, match="there is no sum to add up"):
        add_up([], PAIR)


def test_noise_is_the_multiplier_times_the_sensitivity():
    assert noise_units(PAIR, 1.7, share=1.0) == 1.7 * sensitivity_units(PAIR)
    assert noise_sd(PAIR, 1.7, share=1.0) == pytest.approx(
        5.1, rel=1e-5
    )  # the slack of the sensitivity, 2^-20
    assert noise_sd(PAIR, 0.0, share=1.0) == 0


def test_noise_that_would_leave_the_grid_is_refused():
    with pytest.raises(GateError, match="the budget is too small"):
        noise_units(PAIR, 1e3, share=1.0)
    # A sum at the end of the grid and sixteen standard deviations still fit what the centre takes.
    assert LARGEST_UNITS + 16 * LARGEST_UNITS / 16 <= 2 * LARGEST_UNITS


def test_noise_that_the_grid_would_show_is_refused():
    with pytest.raises(GateError, match="the budget is too large"):
        noise_units(PAIR, 1e-6, share=1.0)


@given(st.floats(2.0**-20, 2.0**30), st.floats(0.01, 100), st.integers(1, 512), st.integers(1, 10**6))
def test_every_grid_has_room_for_its_sums_and_its_noise(bound, multiplier, sites, dimension):
    """4,096 children at one site and 512 sites: neither the sums nor the noise reach the ends."""
    kind = ReleaseKind("any", "training", dimension, bound)
    per_one = units_per_one(kind)
    assert 4096 * bound * per_one <= LARGEST_UNITS
    assert 4096 * bound * per_one >= LARGEST_UNITS / 4  # and it is as fine as it can be
    if dimension <= 10**5:
        assert noise_units(kind, multiplier, share=1 / sites) < LARGEST_UNITS / 16


@given(st.integers(2, 300), st.floats(0.1, 10))
def test_shares_of_noise_add_up_to_the_whole(sites, multiplier):
    one = noise_units(PAIR, multiplier, share=1 / sites)
    assert sites * one**2 == pytest.approx(noise_units(PAIR, multiplier, share=1.0) ** 2, rel=1e-12)


def test_noise_that_is_far_out_is_held_where_the_sums_still_fit():
    total = as_int64(LARGEST_UNITS, 0)
    held = add_noise(total, as_int64(INT64.max, INT64.min))
    assert held.tolist() == [2 * LARGEST_UNITS, -LARGEST_UNITS]
    assert add_noise(total, as_int64(-5, 7)).tolist() == [LARGEST_UNITS - 5, 7]
