"""Agreement from sums equals what statistics software computes from pooled rows."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from esn_core.errors import DataError
from esn_core.privacy.fixed_point import add_up, sum_rows
from esn_core.privacy.release import clip_rows
from esn_core.statistics.agreement import (
    EVALUATION,
    agreement,
    evaluation_rows,
    noise_sd_of_mae,
    noise_sd_of_r,
)
from esn_core.statistics.intervals import fisher_interval


@st.composite
def cohorts(draw):
    n = draw(st.integers(4, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    gase = rng.integers(1, 8, n).astype(float)
    prediction = np.clip(gase + rng.normal(0, draw(st.floats(0.3, 4)), n), 1, 7)
    assume(gase.std() > 0.3 and prediction.std() > 0.3)
    return prediction, gase


def check_against_pooled(found, prediction, gase, tolerance):
    line = stats.linregress(prediction, gase)
    error = prediction - gase
    assert found.children == pytest.approx(len(gase), abs=1e-9)
    assert found.r == pytest.approx(stats.pearsonr(prediction, gase).statistic, abs=tolerance)
    assert found.mae == pytest.approx(np.abs(error).mean(), abs=tolerance)
    assert found.rmse**2 == pytest.approx((error**2).mean(), abs=10 * tolerance)
    assert found.slope == pytest.approx(line.slope, abs=10 * tolerance)
    assert found.intercept == pytest.approx(line.intercept, abs=30 * tolerance)


@given(cohorts())
def test_agreement_equals_the_pooled_computation(cohort):
    # float64: moments of numbers up to 1 with variances above 0.01.
    check_against_pooled(agreement(evaluation_rows(*cohort).sum(axis=0)), *cohort, tolerance=1e-12)


@given(cohorts(), st.lists(st.integers(0, 60), max_size=4))
def test_agreement_from_any_split_over_sites_equals_the_pooled_computation(cohort, cuts):
    rows = clip_rows(evaluation_rows(*cohort), EVALUATION.l2_bound)
    sites = np.split(rows, sorted(min(cut, len(rows)) for cut in cuts))
    total = add_up([sum_rows(site, EVALUATION) for site in sites], EVALUATION)
    # Each of 60 rows is rounded to 2^-41; r divides by variances above 0.01.
    check_against_pooled(agreement(total), *cohort, tolerance=1e-9)


def test_a_perfect_prediction_is_perfect():
    gase = np.array([1.0, 2, 3, 5, 7])
    found = agreement(evaluation_rows(gase, gase).sum(axis=0))
    assert found.r == pytest.approx(1, abs=1e-15)
    assert (found.mae, found.rmse) == (0, pytest.approx(0, abs=1e-7))  # the root of a rounding
    assert (found.slope, found.intercept) == (pytest.approx(1), pytest.approx(0, abs=1e-14))


def test_a_reversed_prediction_has_a_negative_correlation():
    gase = np.array([1.0, 2, 3, 5, 7])
    assert agreement(evaluation_rows(8 - gase, gase).sum(axis=0)).r == pytest.approx(-1, abs=1e-14)


def test_each_level_has_its_own_mean_and_spread():
    found = agreement(
        evaluation_rows(np.array([2.0, 4.0, 5.0, 6.0, 6.5]), np.array([2.0, 2, 5, 6, 6])).sum(0)
    )
    by_gase = {level.gase: level for level in found.levels}
    assert (by_gase[2].children, by_gase[2].mean_prediction) == (2, pytest.approx(3))
    assert by_gase[2].sd_prediction == pytest.approx(1)
    assert (by_gase[1].children, by_gase[1].mean_prediction, by_gase[1].sd_prediction) == (0, None, None)


# scipy's own interval by Fisher's transformation, of the same children.
@given(cohorts())
def test_the_interval_equals_a_reference(cohort):
    result = stats.pearsonr(*cohort)
    assume(abs(result.statistic) < 0.999 and len(cohort[0]) > 4)
    low, high = fisher_interval(result.statistic, len(cohort[0]))
    reference = result.confidence_interval(0.95)
    assert (low, high) == (pytest.approx(reference.low, abs=1e-12), pytest.approx(reference.high, abs=1e-12))


# Fisher's z by hand: r 0.5, n 28: atanh 0.549306, standard error 1/5: tanh(0.549306 -+ 0.391993).
def test_the_interval_has_the_known_value():
    assert fisher_interval(0.5, 28) == (pytest.approx(0.1560, abs=5e-5), pytest.approx(0.7358, abs=5e-5))


def test_a_correlation_of_one_in_few_children_is_not_sure():
    # Two of each: of the 6 ways to lay out the scores 2 are a line. By permutation four children in a line
    # are one of twelve, five one of sixty.
    gase = np.array([2.0, 2, 5, 5])
    low, high = agreement(evaluation_rows(gase * 0.9, gase).sum(axis=0)).r_interval
    assert high == 1
    assert low < 0 < fisher_interval(1.0, 5)[0]
    assert fisher_interval(1 - 1e-12, 300)[0] == pytest.approx(0.9979, abs=5e-5)
    assert fisher_interval(-1.0, 30) == tuple(-x for x in reversed(fisher_interval(1.0, 30)))


def test_three_children_have_no_interval():
    with pytest.raises(DataError, match=r"more than 3 children, not 3\.0"):
        fisher_interval(0.5, 3)


def test_three_children_have_no_correlation():
    found = agreement(evaluation_rows(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])).sum(axis=0))
    assert (found.r, found.r_interval, found.mae) == (None, None, None)
    assert "3.0 children are left" in found.undefined_because


def test_identical_predictions_have_no_correlation():
    found = agreement(evaluation_rows(np.full(6, 3.3), np.array([1.0, 2, 3, 4, 5, 6])).sum(axis=0))
    assert found.r is None
    assert "do not vary" in found.undefined_because


def test_identical_scores_have_no_correlation():
    found = agreement(evaluation_rows(np.array([1.0, 2, 3, 4, 5]), np.full(5, 4.0)).sum(axis=0))
    assert found.r is None
    assert "do not vary" in found.undefined_because


def test_noise_above_the_variance_leaves_no_correlation():
    total = evaluation_rows(np.array([3.9, 4.0, 4.1, 4.0]), np.array([1.0, 3, 5, 7])).sum(axis=0)
    total[3] -= 2  # the sum of the squared predictions, less than their mean allows
    found = agreement(total)
    assert found.r is None
    assert "r would be" in found.undefined_because or "do not vary" in found.undefined_because


@given(st.integers(0, 2**32), st.floats(0, 30))
def test_whatever_the_noise_does_every_number_is_possible_or_undefined(seed, scale):
    rng = np.random.default_rng(seed)
    total = evaluation_rows(np.array([2.0, 3, 5, 6]), np.array([2.0, 3, 5, 7])).sum(axis=0)
    found = agreement(total + rng.normal(0, scale, total.shape))
    assert (found.r is None) == (found.undefined_because is not None) == (found.r_interval is None)
    if found.r is not None:
        low, high = found.r_interval
        assert -1 <= low <= found.r <= high <= 1
        assert found.mae is None or found.mae >= 0
    for level in found.levels:
        assert level.mean_prediction is None or 1 <= level.mean_prediction <= 7


@pytest.mark.parametrize("total", [np.zeros(27), np.full(28, np.nan), np.zeros((28, 1))])
def test_a_sum_of_another_shape_is_refused(total):
    with pytest.raises(DataError, match="holds 28 finite numbers"):
        agreement(total)


@pytest.fixture
def clear_total():
    rng = np.random.default_rng(5)
    gase = rng.integers(1, 8, 200).astype(float)
    return evaluation_rows(np.clip(gase + rng.normal(0, 1.5, 200), 1, 7), gase).sum(axis=0)


def test_the_noise_of_r_is_what_adding_noise_to_the_true_sum_does(clear_total):
    sd = 1.0
    rng = np.random.default_rng(6)
    brute = np.std([agreement(clear_total + rng.normal(0, sd, 28)).r for _ in range(4000)])
    released = clear_total + np.random.default_rng(7).normal(0, sd, 28)
    estimate = noise_sd_of_r(released, sd, rng=np.random.default_rng(8), draws=4000)
    # Both have a sampling error of 1.1 %; the released sum differs from the true one as well.
    assert estimate == pytest.approx(brute, rel=0.15)


def test_no_noise_does_nothing_to_r(clear_total):
    assert noise_sd_of_r(clear_total, 0.0, rng=np.random.default_rng(0)) == 0


def test_the_noise_of_an_undefined_r_is_undefined(clear_total):
    assert noise_sd_of_r(np.zeros(28), 1.0, rng=np.random.default_rng(0)) is None
    assert noise_sd_of_r(clear_total, 1e3, rng=np.random.default_rng(0)) is None


def test_more_noise_does_more_to_r(clear_total):
    sds = [noise_sd_of_r(clear_total, sd, rng=np.random.default_rng(0)) for sd in (0.1, 0.5, 2.0)]
    assert sds == sorted(sds)
    assert all(math.isfinite(sd) for sd in sds)


def test_the_noise_in_the_mean_error_is_what_repeated_noise_shows(clear_total):
    sd, rng = 0.5, np.random.default_rng(3)
    found = agreement(clear_total)
    # A large error, so that the noise in the number of children counts as much as that in the errors.
    for apart in (clear_total[6], 12 * clear_total[6]):
        total = np.r_[clear_total[:6], apart, clear_total[7:]]
        again = [agreement(total + rng.normal(0, sd, 28)).mae for _ in range(4000)]
        # The sampling error of a standard deviation of 4,000 draws is 1.1 %.
        claimed = noise_sd_of_mae(found.children, sd, mae=agreement(total).mae)
        assert claimed == pytest.approx(np.std(again), rel=0.05)
    assert noise_sd_of_mae(0.0, sd, mae=1.0) is None


def test_the_mean_error_stands_where_r_does_not():
    gase = np.array([1.0, 2.0, 5.0, 7.0, 7.0])
    found = agreement(evaluation_rows(np.full(5, 4.0), gase).sum(axis=0))
    assert found.r is None
    assert found.mae == pytest.approx(np.abs(gase - 4).mean(), rel=1e-14)  # a few float64 roundings
    assert found.rmse == pytest.approx(np.sqrt(((gase - 4) ** 2).mean()), rel=1e-14)


def test_an_r_near_one_has_a_noise_too():
    rng = np.random.default_rng(11)
    gase = rng.integers(1, 8, 130).astype(float)
    total = evaluation_rows(np.clip(gase + rng.normal(0, 1.0, 130), 1, 7), gase).sum(axis=0)
    sd = 2.0
    drawn = [agreement(total + rng.normal(0, sd, 28)).r for _ in range(500)]
    # Noise takes r beyond 1, where it is undefined, now and then; near that the noise is known all the same.
    assert 0.02 < np.mean([r is None for r in drawn]) < 0.3
    highest = next(
        t for t in (total + rng.normal(0, sd, 28) for _ in range(10_000)) if 0.95 < (agreement(t).r or 0) < 1
    )
    near = noise_sd_of_r(highest, sd, rng=np.random.default_rng(12))
    # r is cut at 1 in `drawn`, so its spread is a little too small.
    assert near == pytest.approx(np.std([r for r in drawn if r is not None]), rel=0.5)
