"""The centre makes the clipped residuals sum to zero, so that scores of one sign leak into no association."""

import math
from fractions import Fraction

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from esn_core.gase import standardise_severity
from esn_core.privacy.fixed_point import add_up, sum_rows
from esn_core.privacy.release import clip_rows
from esn_core.severity_network.association import RESIDUAL_CLIP, association_rows, rows_of_residuals
from esn_core.severity_network.centring import (
    ADJUSTED,
    ADJUSTED_CLIP,
    LARGEST_ADJUSTMENT,
    LEVELS,
    adjusted_rows,
    centre_of,
    centre_release,
    covariates,
    level_rows,
    residuals,
    rows_to_centre,
    weight_of_slope,
    without_small_levels,
)
from esn_core.severity_network.selection import select

COUNTS = st.lists(st.integers(0, 60), min_size=7, max_size=7)
SEVERITY = standardise_severity(np.arange(1.0, 8.0))


def found(counts, fewest=0.0):
    children, (centre,) = centre_of(np.array(counts, dtype=float), centring="levels", fewest_children=fewest)
    return children, centre


def residual_sum(counts, centre):
    return float(np.array(counts) @ np.clip(SEVERITY - centre, -RESIDUAL_CLIP, RESIDUAL_CLIP))


@given(COUNTS)
def test_the_clipped_residuals_sum_to_zero_at_the_centre(counts):
    children, centre = found(counts)
    assert children == sum(counts)
    # Sums of up to 420 children, each rounded in the last place.
    assert residual_sum(counts, centre) == pytest.approx(0.0, abs=1e-11)
    assert -2 <= centre <= 2


@given(COUNTS.filter(lambda c: sum(c) > 0))
def test_the_centre_is_a_root_that_another_method_finds_and_the_middle_of_all(counts):
    _, centre = found(counts)
    # Where residuals of one sign or the other outweigh by a thousandth of a child's.
    low, high = (
        brentq(lambda c, s=side: residual_sum(counts, c) + s, -3, 3, xtol=1e-13) for side in (-1e-9, 1e-9)
    )
    assert centre == pytest.approx((low + high) / 2, abs=1e-7)


def test_symmetric_scores_have_the_middle_of_the_scale_and_so_have_none():
    assert found([1, 2, 5, 9, 5, 2, 1])[1] == pytest.approx(0.0, abs=1e-15)
    assert found([0] * 7, fewest=15.0) == (15.0, 0.0)
    assert found([0, 0, 0, 0, 0, 0, 9])[1] == pytest.approx(2.0)
    # Two values apart by more than both clips: every place between them is a root.
    assert found([5, 0, 0, 0, 0, 0, 5])[1] == pytest.approx(0.0, abs=1e-15)


def test_counts_below_zero_are_noise_of_none():
    assert found([-3.0, 4.5, 10.2, 3.3, -1.0, 0.4, 0.2])[1] == found([0, 4.5, 10.2, 3.3, 0, 0.4, 0.2])[1]
    children, _ = found([-3.0, 4.5, 10.2, 3.3, -1.0, 0.4, 0.2])
    # The number of children keeps all of the noise, which has no bias.
    assert children == pytest.approx(14.6)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=30))
def test_a_row_marks_the_childs_own_level_and_is_as_long_as_its_bound(gase):
    rows = level_rows(np.array(gase, dtype=float))
    assert np.array_equal(np.linalg.norm(rows, axis=1), np.full(len(gase), LEVELS.l2_bound))
    assert np.array_equal(np.argmax(rows, axis=1) + 1, gase)
    assert np.array_equal(clip_rows(rows, LEVELS.l2_bound), rows)
    halves = [sum_rows(rows[k::2], LEVELS) for k in range(2)]
    assert np.array_equal(add_up(halves, LEVELS), rows.sum(axis=0))


def test_a_protocol_that_does_not_say_otherwise_is_centred_at_the_mean():
    assert centre_release("mean").dimension == 2
    assert centre_of(np.array([4.0, 1.0]), centring="mean", fewest_children=1.0) == (4.0, [0.25])


@given(st.lists(st.integers(1, 7), min_size=5, max_size=40), st.integers(2, 5))
def test_no_level_of_exact_sums_is_shared_by_a_few(gase, fewest):
    rows = level_rows(np.array(gase, dtype=float))
    held = without_small_levels(rows, fewest=fewest)
    counts = held.sum(axis=0)
    assert counts.sum() == len(gase)
    assert np.array_equal(held.sum(axis=1), np.ones(len(gase)))
    assert all(count == 0 or count >= fewest for count in counts)
    untouched = rows.sum(axis=0)
    if all(count == 0 or count >= fewest for count in untouched):
        assert np.array_equal(held, rows)


def test_small_levels_are_counted_at_their_neighbours_on_their_side_of_the_median():
    gase = np.repeat([1.0, 2, 3, 4, 5, 7], [1, 2, 6, 8, 5, 2])
    counts = without_small_levels(level_rows(gase), fewest=5).sum(axis=0)
    assert counts.tolist() == [0, 0, 9, 8, 7, 0, 0]


SKEWED = (0.45, 0.3, 0.1, 0.06, 0.04, 0.03, 0.02)


@pytest.mark.parametrize(("shape", "mean_finds"), [(SKEWED, 8), ((0.72, 0, 0, 0, 0, 0, 0.28), 30)])
def test_scores_that_have_nothing_to_do_with_severity_enter_no_network(shape, mean_finds):
    """Permuted scores: edges whose own mean is far from zero, and children whose GASE is skewed."""
    rng, children, edges = np.random.default_rng(0), 150, 300
    z = np.sign(rng.normal(size=edges)) * rng.uniform(0.5, 1.5, edges) + rng.normal(size=(children, edges))
    false = {"mean": [], "levels": []}
    for _ in range(6):
        gase = rng.choice(np.arange(1.0, 8.0), children, p=shape)
        counts = level_rows(gase).sum(axis=0)
        centres = {"mean": standardise_severity(gase).mean(), "levels": found(counts)[1]}
        for centring, centre in centres.items():
            total = association_rows(z, gase, mean_severity=centre).sum(axis=0)
            network = select(
                total,
                edges=np.arange(edges),
                blocks=np.zeros(edges, np.int64),
                children=float(children),
                noise_sd=0.0,
            )
            false[centring].append(int(network.retained.sum()))
    assert np.mean(false["mean"]) > mean_finds
    # The centre itself is estimated: a few of 300 remain in some draws.
    assert np.mean(false["levels"]) < 3


def test_the_centre_is_exact_arithmetic_up_to_its_last_places():
    """The root in fractions, for counts that are whole: what two machines may differ in is not there."""
    counts = [3, 9, 4, 2, 2, 1, 1]
    y = [Fraction(2 * (g - 4), 3) for g in range(1, 8)]
    clip = Fraction(RESIDUAL_CLIP).limit_denominator(10)

    def total(c):
        return sum(n * min(max(v - c, -clip), clip) for n, v in zip(counts, y, strict=True))

    places = sorted({v + s for v in y for s in (-clip, clip)})
    k = max(i for i, c in enumerate(places) if total(c) > 0)
    a, b = places[k], places[k + 1]
    root = a + (b - a) * total(a) / (total(a) - total(b))
    assert math.isclose(found(counts)[1], float(root), rel_tol=0, abs_tol=1e-14)


def drawn(seed, n=150, *, age_in_severity=0.0, male_in_severity=0.0):
    """GASE and covariates: age from 4 to 18, more severe with age and in boys as asked."""
    rng = np.random.default_rng(seed)
    age, male = rng.uniform(4, 18, n), rng.integers(0, 2, n).astype(float)
    severity = age_in_severity * (age - 11) / 4.04 + male_in_severity * (2 * male - 1) + rng.normal(size=n)
    return np.clip(np.rint(4 + 1.2 * severity), 1, 7), covariates(age, male)


def adjusted(gase, x, *, noise_sd=0.0, seed=0):
    total = adjusted_rows(gase, x).sum(axis=0)
    total = total + np.random.default_rng(seed).normal(0, noise_sd, total.shape)
    return centre_of(total, centring="adjusted", fewest_children=5.0, noise_sd=noise_sd)


@given(st.integers(0, 2**32 - 1), st.floats(-0.4, 0.4), st.floats(-0.3, 0.3))
def test_the_adjustment_is_the_regression_of_the_clipped_residuals(seed, by_age, by_sex):
    gase, x = drawn(seed, 80, age_in_severity=by_age, male_in_severity=by_sex)
    children, (centre, *adjustment) = adjusted(gase, x)
    held = np.clip(standardise_severity(gase) - centre, -ADJUSTED_CLIP, ADJUSTED_CLIP)
    assert held.sum() == pytest.approx(0.0, abs=1e-10)
    line = sm.OLS(held, sm.add_constant(x)).fit()
    assert children == 80
    assert adjustment == pytest.approx(line.params, abs=1e-9)
    left = held - np.clip(line.fittedvalues, -LARGEST_ADJUSTMENT, LARGEST_ADJUSTMENT)
    assert residuals(gase, x, np.array([centre, *adjustment])) == pytest.approx(left, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_no_row_with_covariates_is_longer_than_its_bound(seed):
    rng = np.random.default_rng(seed)
    x = covariates(rng.uniform(-50, 90, 12), rng.uniform(-1, 2, 12))
    rows = adjusted_rows(rng.integers(1, 8, 12).astype(float), x)
    assert np.linalg.norm(rows, axis=1).max() <= ADJUSTED.l2_bound
    longest = adjusted_rows(np.array([3.0]), np.array([[1.0, -1.0]]))
    assert np.linalg.norm(longest) == pytest.approx(ADJUSTED.l2_bound, rel=1e-15)


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_no_residual_is_larger_than_one_that_is_not_adjusted(severity, seed):
    gase, x = drawn(seed, 20)
    assert np.abs(residuals(gase, x, np.array(severity))).max() <= RESIDUAL_CLIP + 1e-15
    assert np.abs(residuals(gase, x, np.array(severity[:1]))).max() <= RESIDUAL_CLIP


def test_noise_shrinks_the_slopes_that_it_hides():
    gase, x = drawn(1, 400, age_in_severity=0.4)
    exact = adjusted(gase, x)[1][2]
    drowned = [adjusted(gase, x, noise_sd=15.0, seed=seed)[1][2:] for seed in range(40)]
    assert abs(exact) > 0.1
    # The prior's spread is .15; slopes that are all noise have less than that.
    assert np.std(drowned) < 0.15


def test_small_levels_take_their_covariates_along():
    gase, x = drawn(2, 24)
    rows = adjusted_rows(gase, x)
    held = without_small_levels(rows, fewest=5)
    blocks = held[:, :21].reshape(-1, 7, 3)
    assert blocks.sum(axis=1) == pytest.approx(rows[:, :21].reshape(-1, 7, 3).sum(axis=1), abs=1e-15)
    assert np.array_equal(held[:, 21:], rows[:, 21:])
    assert (
        blocks[:, :, 0].sum(axis=0).tolist()
        == without_small_levels(level_rows(gase), fewest=5).sum(axis=0).tolist()
    )


def test_age_that_alone_drives_edges_and_score_makes_no_network():
    children, edges = 200, 300
    false = {"levels": [], "adjusted": []}
    for seed in range(6):
        gase, x = drawn(seed, children, age_in_severity=0.35)
        rng = np.random.default_rng(100 + seed)
        # Every edge changes with age, by as much as real ones do in two decades; none with severity.
        z = 0.8 * x[:, :1] * rng.uniform(0.5, 1, edges) + rng.normal(size=(children, edges))
        severities = {
            "levels": np.array([found(level_rows(gase).sum(axis=0))[1]]),
            "adjusted": adjusted(gase, x)[1],
        }
        for centring, severity in severities.items():
            network = select(
                rows_of_residuals(z, residuals(gase, x, severity)).sum(axis=0),
                edges=np.arange(edges),
                blocks=np.zeros(edges, np.int64),
                children=float(children),
                noise_sd=0.0,
            )
            false[centring].append(int(network.retained.sum()))
    assert np.mean(false["levels"]) > 100
    assert np.mean(false["adjusted"]) < 3


@pytest.mark.parametrize("skewed", [False, True])
def test_a_weight_over_the_weight_of_a_slope_is_the_slope(skewed):
    rng = np.random.default_rng(4)
    share = [0.45, 0.3, 0.1, 0.06, 0.04, 0.03, 0.02] if skewed else [0.05, 0.1, 0.2, 0.3, 0.2, 0.1, 0.05]
    gase = rng.choice(np.arange(1.0, 8.0), 40_000, p=share)
    severity = (gase - 4) / 1.5
    scores = 1.0 - 0.4 * severity + rng.normal(size=len(gase))
    total = rows_to_centre("levels", gase, np.zeros((len(gase), 2))).sum(axis=0)
    _, centre = centre_of(total, centring="levels", fewest_children=5.0)
    weight = (scores * residuals(gase, np.zeros((len(gase), 2)), centre)).mean()
    # Of 40,000 children: a slope's standard error is .006, and .01 where few lie off the lowest step.
    assert weight / weight_of_slope(total, centre[0]) == pytest.approx(-0.4, abs=0.03)
    assert 0.2 < weight_of_slope(total, centre[0]) < 0.7
    assert weight_of_slope(np.full(7, -3.0), 0.0) is None
    assert weight_of_slope(np.array([9.0, 0, 0, 0, 0, 0, 0]), -2.0) is None
