"""Calibration of predicted probabilities from sums equals its definition on the pooled children."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from esn_core.errors import DataError
from esn_core.statistics.calibration_curve import judge_reliability, reliability, reliability_rows
from esn_core.statistics.intervals import Z_95
from esn_core.statistics.logistic_exact import ExactLogistic
from esn_core.statistics.logistic_fit import ROUNDS
from esn_core.statistics.logistic_sums import EXACT_LOGIT_CLIP, newton_rows

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)


def children(seed=0, n=200):
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return p, rng.random(n) < p


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_the_curve_equals_its_definition(seed, sites):
    p, y = children(seed)
    total = sum(reliability_rows(p[k::sites], y[k::sites], groups=5).sum(axis=0) for k in range(sites))
    found = judge_reliability(total)
    assert found.in_the_large == pytest.approx(y.mean() - p.mean(), abs=1e-12)
    assert found.brier == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    statistic = 0.0
    for k, group in enumerate(found.groups):
        inside = (p >= k / 5) & (p < (k + 1) / 5)
        assert group.children == inside.sum()
        assert group.predicted == pytest.approx(p[inside].mean(), abs=1e-12)
        assert group.observed == pytest.approx(y[inside].mean(), abs=1e-12)
        wilson = proportion_confint(y[inside].sum(), inside.sum(), method="wilson")
        assert group.interval == pytest.approx(wilson, abs=1e-12)
        share = p[inside].mean()
        statistic += (y[inside].sum() - p[inside].sum()) ** 2 / (inside.sum() * share * (1 - share))
    assert found.hosmer_lemeshow == pytest.approx(statistic, abs=1e-10)
    assert found.p_value == pytest.approx(stats.chi2.sf(statistic, 3), abs=1e-10)


def test_the_calibration_slope_is_a_logistic_model_on_the_logit():
    p, y = children(1)
    odds = np.clip(np.log(p / (1 - p)), -6, 6)
    x = np.column_stack([np.ones(len(p)), odds])
    rules = {"feature_norm": 8.0, "logit_clip": EXACT_LOGIT_CLIP}
    model = ExactLogistic(("intercept", "logit"), **rules)
    for _ in range(ROUNDS):
        rows = [newton_rows(x, y, coefficients=at, thirds=True, **rules) for at in model.coefficients]
        model.step(np.concatenate(rows, axis=1).sum(axis=0))
    reference = sm.Logit(y.astype(float), sm.add_constant(odds)).fit(disp=0, tol=1e-14)
    assert model.fit().coefficients == pytest.approx(reference.params, abs=1e-8)


@given(
    arrays(np.float64, 6, elements=ANY),
    arrays(np.float64, 6, elements=st.sampled_from([0.0, 1.0, math.nan])),
    st.integers(1, 12),
)
def test_no_row_is_longer_than_its_bound(probability, outcome, groups):
    rows = reliability_rows(probability, outcome, groups=groups)
    assert rows.shape == (6, reliability(groups).dimension)
    assert np.isfinite(rows).all()
    assert max(math.hypot(*row) for row in rows) <= reliability(groups).l2_bound
    unknown = np.isnan(probability) | np.isnan(outcome)
    assert not rows[unknown].any()


def test_noise_widens_the_interval_and_forbids_the_test():
    total = reliability_rows(*children(2), groups=5).sum(axis=0)
    exact, noisy = judge_reliability(total), judge_reliability(total, noise_sd=5.0)
    assert noisy.in_the_large_interval[1] > exact.in_the_large_interval[1]
    assert (noisy.hosmer_lemeshow, noisy.p_value) == (None, None)


def test_an_empty_group_has_no_share():
    found = judge_reliability(
        reliability_rows(np.array([0.1, 0.9]), np.array([False, True]), groups=3).sum(0)
    )
    assert [group.observed for group in found.groups] == [0, None, 1]
    assert found.hosmer_lemeshow is None


def test_what_cannot_be_judged_is_refused_with_words():
    with pytest.raises(DataError, match="four finite numbers a group"):
        judge_reliability(np.zeros(5))
    with pytest.raises(DataError, match=r"needs 1 children or more, not 0\.0"):
        judge_reliability(np.zeros(8))
    with pytest.raises(DataError, match=r"needs 28\.3 children or more, not 20\.0"):
        judge_reliability(np.array([10.0, 2, 2, 1, 10, 7, 7, 1]), noise_sd=10.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 19))
def test_operating_points_equal_their_definition(seed, k):
    p, y = children(seed, 120)
    found = judge_reliability(reliability_rows(p, y, groups=20).sum(axis=0)).thresholds[k - 1]
    called = np.floor(p * 20) >= k
    assert found.threshold == pytest.approx(k / 20)
    for share, of, those in (
        (found.sensitivity, y, called),
        (found.specificity, ~y, ~called),
        (found.positive_predictive_value, called, y),
        (found.negative_predictive_value, ~called, ~y),
    ):
        if not of.any():
            assert share is None
            continue
        assert share.value == pytest.approx(those[of].mean(), abs=1e-12)
        wilson = proportion_confint((those & of).sum(), of.sum(), method="wilson")
        assert share.interval == pytest.approx(np.clip(wilson, 0, 1), abs=1e-9)
    odds = found.threshold / (1 - found.threshold)
    benefit = (y & called).mean() - odds * (~y & called).mean()
    assert found.net_benefit == pytest.approx(benefit, abs=1e-12)
    assert found.net_benefit_of_all == pytest.approx(y.mean() - odds * (1 - y.mean()), abs=1e-12)
    each = np.where(called, np.where(y, 1.0, -odds), 0.0)
    half = Z_95 * each.std() / math.sqrt(len(y))
    assert found.net_benefit_interval == pytest.approx((benefit - half, benefit + half), abs=1e-9)


def test_the_interval_of_the_brier_score_is_that_of_its_childrens_squares():
    p, y = children(5, 300)
    found = judge_reliability(reliability_rows(p, y, groups=20).sum(axis=0))
    squares = (p - y) ** 2
    half = Z_95 * squares.std() / math.sqrt(300)
    # Each child at the mean probability of its twentieth.
    assert found.brier_interval == pytest.approx((squares.mean() - half, squares.mean() + half), abs=0.002)


def test_a_brier_score_that_cannot_be_true_is_lost_and_shares_in_the_noise_are_none():
    total = reliability_rows(*children(6, 100), groups=20).sum(axis=0)
    squares = np.zeros((20, 4))
    squares[0, 3] = 3 * total.reshape(-1, 4)[:, 3].sum()
    impossible = judge_reliability(total - squares.ravel(), noise_sd=1.0)
    assert (impossible.brier, impossible.brier_interval) == (None, None)
    drowned = judge_reliability(total, noise_sd=10.0)
    assert all(group.observed is None or group.children > 20 for group in drowned.groups)
    assert drowned.thresholds[0].negative_predictive_value is None
    exact = judge_reliability(total).thresholds[9]
    noisy = judge_reliability(total, noise_sd=1.0).thresholds[9]
    assert noisy.sensitivity.interval[0] < exact.sensitivity.interval[0]
