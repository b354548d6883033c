"""Logistic regression from sums equals statsmodels on the pooled rows."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from esn_core.errors import DataError, StudyError
from esn_core.privacy.fixed_point import add_up, sum_rows
from esn_core.statistics.logistic_fit import EXACT_ROUNDS, ROUNDS, SEPARATION_RIDGE, LogisticNewton
from esn_core.statistics.logistic_sums import EXACT_LOGIT_CLIP, log_likelihoods, newton, newton_rows

NORM = 16.0
NAMES = ("intercept", "gase", "age", "sex")


def children(seed, n=150, effects=(-0.5, 1.0, -0.3, 0.4)):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2)), rng.integers(0, 2, n)])
    return x, rng.random(n) < 1 / (1 + np.exp(-x @ np.array(effects)))


def federate(x, y, *, rounds=ROUNDS, sites=3, through_the_grid=False, **settings):
    """Fit as a study does: the same fixed number of rounds, each summed over the sites."""
    names = NAMES[: x.shape[1]]
    model = LogisticNewton(names, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP, **settings)
    kind = newton(x.shape[1], feature_norm=NORM)
    for _ in range(rounds):
        parts = [
            newton_rows(
                x[k::sites],
                y[k::sites],
                coefficients=model.coefficients,
                feature_norm=NORM,
                logit_clip=EXACT_LOGIT_CLIP,
            )
            for k in range(sites)
        ]
        if through_the_grid:
            model.step(add_up([sum_rows(part, kind) for part in parts], kind))
        else:
            model.step(sum(part.sum(axis=0) for part in parts))
    return model.fit()


def pooled(x, y):
    return sm.Logit(y.astype(float), x).fit(disp=0, tol=1e-14, maxiter=100)


def check_against(fit, reference, tolerance):
    assert fit.coefficients == pytest.approx(reference.params, abs=tolerance)
    assert fit.standard_errors == pytest.approx(reference.bse, abs=tolerance)
    assert fit.z == pytest.approx(reference.tvalues, abs=10 * tolerance)
    assert fit.p_values == pytest.approx(reference.pvalues, abs=tolerance)
    assert fit.log_likelihood == pytest.approx(reference.llf, abs=tolerance)
    # statsmodels' own llnull is of a fit that stops earlier.
    alone = pooled(np.ones((len(reference.model.endog), 1)), reference.model.endog)
    assert fit.null_log_likelihood == pytest.approx(alone.llf, abs=tolerance)
    assert fit.aic == pytest.approx(reference.aic, abs=tolerance)
    assert fit.bic == pytest.approx(reference.bic, abs=tolerance)
    assert np.log(fit.odds_ratio_intervals) == pytest.approx(reference.conf_int(), abs=tolerance)
    assert fit.covariance == pytest.approx(reference.cov_params(), abs=tolerance)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(40, 200), st.integers(1, 6))
def test_the_fit_equals_statsmodels(seed, n, sites):
    x, y = children(seed, n)
    fit = federate(x, y, sites=sites, rounds=EXACT_ROUNDS)
    assert fit.converged
    assert fit.guard is None
    # Both stop where the next Newton step is below 1e-8; what is left is its square.
    check_against(fit, pooled(x, y), 1e-8)


def test_the_fit_through_the_gates_grid_equals_statsmodels():
    x, y = children(5)
    # The grid rounds each of 150 rows to 2^-34.
    check_against(federate(x, y, through_the_grid=True), pooled(x, y), 1e-8)


def test_a_rare_outcome_and_a_large_effect_are_fitted_without_a_guard():
    for effects in ((-3.0, 0.5, 0.0, 0.0), (0.0, 4.0, 0.0, 0.0)):
        x, y = children(1, 300, effects)
        fit = federate(x, y, rounds=EXACT_ROUNDS)
        assert (fit.converged, fit.guard) == (True, None)
        check_against(fit, pooled(x, y), 1e-8)


def test_linear_predictors_beyond_the_noisy_clip_do_not_spoil_an_exact_fit():
    x, y = children(2, 120)
    x[0], y[0] = [1, 9.0, 0.0, 0.0], True
    reference = pooled(x, y)
    assert np.abs(x @ reference.params).max() > 6
    check_against(federate(x, y, rounds=EXACT_ROUNDS), reference, 1e-8)


def test_more_rounds_than_needed_change_nothing():
    x, y = children(3)
    few, many = federate(x, y, rounds=ROUNDS), federate(x, y, rounds=3 * ROUNDS)
    # The sums at the same place are averaged: another order of additions.
    assert few.coefficients == pytest.approx(many.coefficients, abs=1e-12)
    assert few.aic == pytest.approx(many.aic, abs=1e-10)


def test_a_child_without_a_feature_or_an_outcome_is_in_no_sum():
    x, y = children(4)
    holes, outcome = x.copy(), y.astype(float)
    holes[3, 1], outcome[8] = np.nan, np.nan
    complete = np.delete(np.arange(len(y)), [3, 8])
    fit = federate(holes, outcome)
    assert (fit.children, fit.positives) == (148, y[complete].sum())
    check_against(fit, pooled(x[complete], y[complete]), 1e-8)


@pytest.mark.parametrize("quasi", [False, True])
def test_separated_children_get_a_small_ridge_that_is_named(quasi):
    rng = np.random.default_rng(6)
    x = np.column_stack([np.ones(60), rng.normal(size=60), rng.integers(0, 2, 60)])
    by_chance = rng.random(60) < 0.4
    # Every boy is impaired, girls by chance; or all above a threshold.
    y = (x[:, 2] == 1) | by_chance if quasi else x[:, 1] > 0.1
    fit = federate(x, y, rounds=EXACT_ROUNDS)
    assert fit.guard == "ridge 0.05"
    assert fit.converged
    # The ridge's own maximum: the penalised score is zero there.
    p = 1 / (1 + np.exp(-x @ fit.coefficients))
    penalty = SEPARATION_RIDGE * np.array([0, 1, 1]) * fit.coefficients
    assert x.T @ (y - p) == pytest.approx(penalty, abs=1e-7)
    assert np.isfinite(fit.odds_ratio_intervals).all()


def test_a_step_that_lowers_the_likelihood_is_halved():
    x, y = children(7)
    model = LogisticNewton(NAMES, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP)
    rows = {"feature_norm": NORM, "logit_clip": EXACT_LOGIT_CLIP}
    model.step(newton_rows(x, y, coefficients=model.coefficients, **rows).sum(axis=0))
    first = model.coefficients
    worse = newton_rows(x, y, coefficients=-9 * first, **rows).sum(axis=0)
    model.step(worse)
    assert model.coefficients == pytest.approx(first / 2, abs=1e-15)
    for _ in range(ROUNDS):
        model.step(newton_rows(x, y, coefficients=model.coefficients, **rows).sum(axis=0))
    check_against(model.fit(), pooled(x, y), 1e-8)


def test_noise_in_the_sums_is_in_the_intervals_and_is_averaged_once_the_fit_stands():
    x, y = children(8, 400)
    rng, sd = np.random.default_rng(0), 2.0
    reference = pooled(x, y)
    estimates, claims = [], []
    for _ in range(60):
        model = LogisticNewton(NAMES, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP, noise_sd=sd)
        for _ in range(ROUNDS):
            sums = newton_rows(
                x, y, coefficients=model.coefficients, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP
            ).sum(axis=0)
            model.step(sums + rng.normal(0, sd, sums.shape))
        fit = model.fit()
        assert "ridge 0.05" in fit.guard
        estimates.append(fit.coefficients)
        claims.append(fit.noise_sd_of_coefficients)
    found, claimed = np.std(estimates, axis=0), np.sqrt(np.mean(np.square(claims), axis=0))
    # 60 fits give a standard deviation to 9 %; the curvature's own noise adds to it.
    assert found == pytest.approx(claimed, rel=0.35)
    assert np.mean(estimates, axis=0) == pytest.approx(reference.params, abs=0.05)
    # One sum alone would give this much.
    alone = sd * np.sqrt((reference.cov_params() ** 2).sum(axis=1))
    assert (claimed < 0.8 * alone).all()
    widths = np.diff(np.log(fit.odds_ratio_intervals), axis=1)[:, 0]
    assert (widths > 2 * 1.9599 * fit.standard_errors).all()


def test_a_curvature_smaller_than_its_noise_is_held_and_named():
    x, y = children(9, 30)
    model = LogisticNewton(NAMES, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP, noise_sd=20.0)
    rng = np.random.default_rng(1)
    for _ in range(ROUNDS):
        sums = newton_rows(
            x, y, coefficients=model.coefficients, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP
        ).sum(axis=0)
        model.step(sums + rng.normal(0, 20.0, sums.shape))
    fit = model.fit()
    assert "curvature held at" in fit.guard
    assert np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("outcome", [True, False])
def test_one_outcome_alone_is_refused(outcome):
    x, _ = children(0, 20)
    with pytest.raises(StudyError, match=r"needs both outcomes; (0|20) of 20 children are impaired"):
        federate(x, np.full(20, outcome))


def test_features_that_are_the_same_are_refused():
    x, y = children(0, 50)
    x[:, 2] = 2 * x[:, 1]
    with pytest.raises(StudyError, match="some features are the same"):
        federate(x, y)


def test_too_few_children_are_refused():
    x, _ = children(0, 4)
    with pytest.raises(StudyError, match=r"needs more than 4 children, not 4\.0"):
        federate(x, np.array([True, False, True, False]))


def test_a_fit_without_a_sum_is_refused():
    with pytest.raises(StudyError, match="has no usable sum"):
        LogisticNewton(NAMES, feature_norm=NORM).fit()


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(DataError, match=r"of 4 features holds 17 finite numbers, not \(3,\)"):
        LogisticNewton(NAMES, feature_norm=NORM).step(np.zeros(3))


def test_each_childs_likelihood_adds_up_to_the_models():
    x, y = children(3)
    reference = pooled(x, y)
    each = log_likelihoods(
        x, y, coefficients=np.asarray(reference.params), feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP
    )
    assert each == pytest.approx(reference.model.loglikeobs(reference.params), abs=1e-12)
    assert math.isclose(each.sum(), reference.llf, abs_tol=1e-10)
