"""Intercept and slope from five sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.errors import DataError
from esn_core.statistics.recalibration import affine, calibration_rows


def drawn(seed, n, *, intercept=0.3, slope=0.7):
    rng = np.random.default_rng(seed)
    raw = np.clip(rng.normal(0, 1, n), -2.5, 2.5)
    gase = np.clip(np.rint(4 + 1.5 * (intercept + slope * raw) + rng.normal(0, 0.5, n)), 1, 7)
    return raw, gase


@given(st.integers(0, 10**6), st.integers(5, 80))
def test_without_noise_it_is_the_ridge_regression_of_its_definition(seed, n):
    raw, gase = drawn(seed, n)
    y = (gase - 4) / 1.5
    # Two pseudo-children on each of intercept and slope, towards (0, 1).
    X = np.vstack([np.column_stack([np.ones(n), raw]), np.sqrt(2) * np.eye(2)])
    expected = np.linalg.lstsq(X, np.append(y, [0.0, np.sqrt(2)]), rcond=None)[0]
    found = affine(calibration_rows(raw, gase).sum(axis=0), fewest_children=5, noise_sd=0.0)
    assert found == pytest.approx((expected[0], max(expected[1], 0.1)), rel=1e-9, abs=1e-9)


def test_many_children_outweigh_the_prior():
    raw, gase = drawn(1, 5000)
    found = affine(calibration_rows(raw, gase).sum(axis=0), fewest_children=5, noise_sd=0.0)
    assert found == pytest.approx((0.3, 0.7), abs=0.04)


def test_a_release_that_says_nothing_leaves_the_public_calibration():
    assert affine(np.zeros(5), fewest_children=15, noise_sd=1e6) == pytest.approx((0, 1), abs=1e-4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5), st.floats(0, 100))
def test_whatever_the_noise_does_the_slope_is_positive_and_all_is_finite(total, noise_sd):
    intercept, slope = affine(np.array(total), fewest_children=15, noise_sd=noise_sd)
    assert -2 <= intercept <= 2
    assert slope >= 0.1
    assert np.isfinite(slope)


@pytest.mark.parametrize("total", [np.zeros(4), np.full(5, np.inf), np.zeros((5, 1))])
def test_a_sum_of_another_shape_is_refused(total):
    with pytest.raises(DataError, match="a calibration sum holds 5 finite numbers"):
        affine(total, fewest_children=5, noise_sd=0.0)
