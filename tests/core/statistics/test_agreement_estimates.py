"""Estimates of agreement hold the truth as often as they say, whatever the noise did to the sums."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from esn_core.statistics.agreement import evaluation_rows
from esn_core.statistics.agreement_estimates import _moments, estimates, estimates_of_all, posterior
from esn_core.statistics.intervals import Z_95, fisher_interval

RULES = {"fewest_children": 20.0}


def children(n=60, r=0.8, seed=0):
    rng = np.random.default_rng(seed)
    severity, other = rng.normal(size=(2, n))
    gase = np.clip(np.rint(4 + 1.2 * severity), 1, 7)
    return np.clip(4 + 1.2 * r * (r * severity + math.sqrt(1 - r**2) * other), 1, 7), gase


def found_of(cohort, noise_sd, seed=0, **more):
    rng = np.random.default_rng(seed)
    total = evaluation_rows(*cohort).sum(axis=0)
    return estimates(total + rng.normal(0, noise_sd, 28), noise_sd=noise_sd, rng=rng, **{**RULES, **more})


@given(st.integers(0, 2**32 - 1), st.integers(8, 80))
def test_estimates_of_exact_sums_are_those_of_the_pooled_children(seed, n):
    prediction, gase = children(n, seed=seed)
    if gase.std() < 0.3:
        return
    found = found_of((prediction, gase), 0.0)
    line = sm.OLS(gase, sm.add_constant(prediction)).fit()
    error = np.abs(prediction - gase)
    # Moments of numbers up to 1 with variances above .01.
    close = {"rel": 1e-7, "abs": 1e-8}
    assert found.r.value == pytest.approx(np.corrcoef(prediction, gase)[0, 1], **close)
    assert found.r.interval == pytest.approx(fisher_interval(found.r.value, n), **close)
    assert (found.intercept.value, found.slope.value) == pytest.approx(tuple(line.params), **close)
    assert [found.intercept.interval, found.slope.interval] == pytest.approx(line.conf_int(), **close)
    half = Z_95 * error.std() / math.sqrt(n)
    assert found.mae.interval == pytest.approx((max(error.mean() - half, 0), error.mean() + half), **close)
    square = (error**2).sum()
    ends = np.sqrt(square / stats.chi2.ppf([0.975, 0.025], n))
    assert found.rmse.interval == pytest.approx(tuple(ends), **close)


def test_a_little_noise_moves_the_estimates_a_little():
    cohort = children(200)
    exact, noised = found_of(cohort, 0.0), found_of(cohort, 0.02)
    for name in ("r", "mae", "rmse", "slope", "intercept"):
        before, after = getattr(exact, name), getattr(noised, name)
        width = before.interval[1] - before.interval[0]
        # 6,000 draws in chains: an end is known to a few hundredths of the width.
        assert after.interval == pytest.approx(before.interval, abs=0.08 * width), name
        assert after.value == pytest.approx(before.value, abs=0.08 * width), name
    assert noised.children.value == pytest.approx(200, abs=0.2)


def test_the_posterior_is_that_of_its_definition():
    noise_sd = 6.0
    total = evaluation_rows(*children(50, 0.6)).sum(axis=0) + np.random.default_rng(5).normal(0, noise_sd, 28)
    drawn = posterior(total[None], noise_sd=noise_sd, rng=np.random.default_rng(1), **RULES)
    # All that can be true, each as likely as the other, weighed by the noise's density.
    rng, many = np.random.default_rng(2), 400_000
    n = rng.uniform(20, 160, many)
    mean_a, mean_b, r = rng.uniform(-1, 1, (3, many))
    sd_a, sd_b = rng.uniform(0.02, 1, (2, many))
    possible = (sd_a**2 + mean_a**2 <= 1) & (sd_b**2 + mean_b**2 <= 1)
    squares = [sd_a**2 + mean_a**2, sd_b**2 + mean_b**2, r * sd_a * sd_b + mean_a * mean_b]
    sums = n[:, None] * np.column_stack([np.ones(many), mean_a, mean_b, *squares])
    middle, covariance = _moments(total[None], noise_sd)
    away = sums - middle
    weights = possible * np.exp(-np.einsum("ci,ij,cj->c", away, np.linalg.inv(covariance), away) / 2)
    assert weights.sum() ** 2 / (weights**2).sum() > 1000
    for ours, theirs in zip(drawn, (n, mean_a, mean_b, sd_a, sd_b, r), strict=True):
        order = np.argsort(theirs)
        share = np.cumsum(weights[order]) / weights.sum()
        wanted = theirs[order][np.searchsorted(share, [0.1, 0.5, 0.9])]
        spread = wanted[2] - wanted[0]
        # About a thousand weighed draws, and chains that take a few steps to forget.
        assert np.quantile(ours, [0.1, 0.5, 0.9]) == pytest.approx(wanted, abs=0.12 * spread)


def test_both_places_of_a_moment_are_used_by_their_noise():
    rng, noise_sd = np.random.default_rng(0), 2.0
    total = evaluation_rows(*children(80)).sum(axis=0)
    clean, _ = _moments(total[None], 1.0)
    noised, covariance = _moments(total + rng.normal(0, noise_sd, (4000, 28)), noise_sd)
    # Of 4,000 draws a covariance is known to some hundredths of its variances.
    assert np.cov(noised.T) == pytest.approx(covariance, abs=0.07 * covariance.max())
    assert noised.mean(axis=0) == pytest.approx(clean[0], abs=0.15)
    prediction, gase = ((x - 4) / 3 for x in children(80))
    definition = [80, prediction.sum(), gase.sum(), (prediction**2).sum(), (gase**2).sum(), prediction @ gase]
    assert clean[0] == pytest.approx(definition, abs=1e-9)
    # The levels' counts say how many children there are once more: less noise than either place alone.
    assert covariance[0, 0] < 4 * noise_sd**2


@settings(max_examples=15)
@given(arrays(np.float64, (3, 28), elements=st.floats(-200, 200)), st.floats(0.5, 60))
def test_an_estimate_is_never_undefined_nor_beyond_what_can_be_true(totals, noise_sd):
    for found in estimates_of_all(totals, noise_sd=noise_sd, rng=np.random.default_rng(0), **RULES):
        assert found.children.interval[0] >= 20
        for figure, low, high in ((found.r, -1, 1), (found.mae, 0, 6.5), (found.rmse, 0, 30)):
            assert low <= figure.interval[0] <= figure.value <= figure.interval[1] <= high
        assert np.isfinite([*found.slope.interval, *found.intercept.interval]).all()


def test_noise_that_leaves_nothing_leaves_an_interval_that_says_so():
    found = found_of(children(36), 100.0)
    assert found.r.interval[0] < -0.85
    assert found.r.interval[1] > 0.85


@pytest.mark.parametrize("noise_sd", [2.0, 4.5])
def test_intervals_hold_the_truth_under_noise_at_thirty_six_children(noise_sd):
    rng = np.random.default_rng(3)
    totals = np.array([evaluation_rows(*children(36, 0.8, seed)).sum(axis=0) for seed in range(120)])
    found = estimates_of_all(
        totals + rng.normal(0, noise_sd, totals.shape), noise_sd=noise_sd, rng=rng, **RULES
    )
    many = children(200_000, 0.8, seed=-1 % 2**32)
    truth = {"r": np.corrcoef(*many)[0, 1], "mae": np.abs(many[0] - many[1]).mean()}
    for name, true in truth.items():
        ends = [getattr(each, name).interval for each in found]
        held = np.mean([low <= true <= high for low, high in ends])
        # Nominal .95; of 120 studies, within two and a half standard errors.
        assert held >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / 120), name


def test_a_prediction_that_does_not_vary_has_errors_and_no_r():
    gase = children(40)[1]
    found = found_of((np.full(40, 4.0), gase), 0.0)
    assert (found.r, found.slope, found.intercept) == (None, None, None)
    assert found.mae.value == pytest.approx(np.abs(gase - 4).mean())
    few = found_of((np.array([1.0, 2, 3]), np.array([1.0, 2, 3])), 0.0)
    assert (few.r, few.mae, few.rmse) == (None, None, None)
