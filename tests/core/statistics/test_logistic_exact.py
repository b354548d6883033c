"""Exact sums give the maximum where there is one, Firth's estimate where there is none, and say which."""

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.stats import chi2

from esn_core.errors import StudyError
from esn_core.statistics.logistic_exact import ExactLogistic, tracks
from esn_core.statistics.logistic_fit import EXACT_ROUNDS
from esn_core.statistics.logistic_sums import (
    EXACT_LOGIT_CLIP,
    LARGEST_COEFFICIENT,
    NewtonSums,
    newton,
    newton_rows,
)

RULES = {"feature_norm": 3.0, "logit_clip": EXACT_LOGIT_CLIP}
NAMES = ("intercept", "gase", "age", "sex")


def fitted(x, y, *, rounds=EXACT_ROUNDS, sites=2, **rules):
    """Fit as a study does: a fixed number of rounds, each summed over the sites, on every track."""
    rules = RULES | rules
    model = ExactLogistic(NAMES[: x.shape[1]], **rules)
    for _ in range(rounds):
        rows = [newton_rows(x, y, coefficients=at, thirds=True, **rules) for at in model.coefficients]
        together = np.concatenate(rows, axis=1)
        model.step(sum(together[k::sites].sum(axis=0) for k in range(sites)))
    return model.fit()


def of(*columns, scale=3.0):
    """Features: the intercept, and scores of GASE in units of half its range."""
    return np.column_stack([np.ones(len(columns[0])), *((np.array(c) - 4) / scale for c in columns)])


def penalised(beta, x, y):
    """Firth's penalised log-likelihood, by its definition."""
    eta = x @ beta
    p = 1 / (1 + np.exp(-eta))
    information = x.T @ (x * (p * (1 - p))[:, None])
    return float(np.sum(y * eta - np.logaddexp(0, eta)) + np.linalg.slogdet(information)[1] / 2)


def best(x, y, fixed=None, objective=penalised):
    """The largest objective by a general optimiser, with one coefficient held where that is asked."""
    free = [k for k in range(x.shape[1]) if fixed is None or k != fixed[0]]

    def whole(part):
        beta = np.zeros(x.shape[1])
        beta[free] = part
        if fixed is not None:
            beta[fixed[0]] = fixed[1]
        return beta

    found = minimize(
        lambda part: -objective(whole(part), x, y), np.zeros(len(free)), method="BFGS", tol=1e-10
    )
    return whole(found.x), -found.fun


def likelihood(beta, x, y):
    eta = x @ beta
    return float(np.sum(y * eta - np.logaddexp(0, eta)))


def profile_end(x, y, k, side, objective):
    """An end of the interval by profile likelihood: the root of its definition."""
    top, largest = best(x, y, objective=objective)
    drop = chi2.ppf(0.95, 1) / 2

    def short(by):
        return largest - best(x, y, (k, top[k] + side * by), objective)[1] - drop

    return top[k] + side * brentq(short, 1e-3, 40.0, xtol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(40, 120))
def test_where_there_is_a_maximum_the_fit_is_that_of_statsmodels(seed, n):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.uniform(-1, 1, (n, 2)), rng.integers(0, 2, n)])
    y = rng.random(n) < 1 / (1 + np.exp(-x @ np.array([-0.5, 2.0, -0.3, 0.4])))
    fit, pooled = fitted(x, y), sm.Logit(y.astype(float), x).fit(disp=0, tol=1e-14, maxiter=100)
    assert (fit.converged, fit.guard, fit.separated, fit.maximum) == (True, None, False, True)
    # Both stop where the next Newton step is below 1e-8; what is left is its square.
    assert fit.coefficients == pytest.approx(pooled.params, abs=1e-8)
    assert fit.standard_errors == pytest.approx(pooled.bse, abs=1e-8)
    assert (fit.log_likelihood, fit.aic, fit.bic) == pytest.approx(
        (pooled.llf, pooled.aic, pooled.bic), abs=1e-8
    )
    assert fit.p_values == pytest.approx(pooled.pvalues, abs=1e-8)
    assert fit.wald_intervals == pytest.approx(pooled.conf_int(), abs=1e-7)


def test_the_interval_by_profile_equals_its_definition():
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(60), rng.uniform(-1, 1, 60), rng.integers(0, 2, 60)])
    y = (rng.random(60) < 1 / (1 + np.exp(-x @ np.array([-1.0, 2.0, 0.5])))).astype(float)
    fit = fitted(x, y)
    assert fit.by_profile.tolist() == [False, True, True]
    for k in (1, 2):
        ends = [profile_end(x, y, k, side, likelihood) for side in (-1, 1)]
        assert fit.intervals[k] == pytest.approx(ends, abs=1e-4)  # of the end's own rule to stop
    assert fit.intervals[0] == pytest.approx(fit.wald_intervals[0])


TIE = [1, 2, 2, 3, 3, 3, 5, 5, 6, 6, 7, 7]
TIE_PREDICTED = [2, 2.5, 3, 3.3, 3.6, 3.95, 4.05, 4.4, 4.8, 5.2, 5.6, 6]
UPPER_HALF = np.repeat([0.0, 1.0], 6)


def test_separated_children_are_known_by_proof_and_get_firths_estimate():
    for scores in (TIE, TIE_PREDICTED):
        x = of(scores)
        fit = fitted(x, UPPER_HALF)
        assert fit.separated
        assert "separate the children" in fit.guard
        # The largest likelihood is 1, whatever the prediction: by AIC it is a tie.
        assert (fit.log_likelihood, fit.aic, fit.maximum) == (0.0, 4.0, True)
        top, largest = best(x, UPPER_HALF)
        assert fit.coefficients == pytest.approx(top, abs=1e-4)  # of the general optimiser
        p = chi2.sf(2 * (largest - best(x, UPPER_HALF, (1, 0.0))[1]), 1)
        assert fit.p_values[1] == pytest.approx(p, rel=1e-5)
        assert fit.by_profile[1]
        assert fit.intervals[1][0] > 0
    x = of(TIE)
    ends = [profile_end(x, UPPER_HALF, 1, side, penalised) for side in (-1, 1)]
    assert fitted(x, UPPER_HALF).intervals[1] == pytest.approx(ends, rel=1e-3)


EIGHT = [2, 3, 3, 4, 4, 5, 6, 7]
EIGHT_PREDICTED = [2.5, 3.6, 2.8, 5.1, 3.9, 4.6, 5.5, 6.1]


@pytest.mark.parametrize("scores", [(EIGHT,), (EIGHT_PREDICTED,), (EIGHT, EIGHT_PREDICTED), (TIE_PREDICTED,)])
def test_firths_estimate_stands_still_within_the_rounds_and_every_predictor_has_its_test(scores):
    x = of(*scores)
    y = UPPER_HALF if len(x) == 12 else np.repeat([0.0, 1.0], [6, 2])
    fit = fitted(x, y)
    assert (fit.converged, fit.separated) == (True, True)
    assert np.isfinite(fit.ratio_p[1:]).all()
    assert fit.by_profile[1:].all()
    # There the score of the penalised likelihood is nothing; it stops at a step of 1e-8.
    p = 1 / (1 + np.exp(-x @ fit.coefficients))
    information = x.T @ (x * (p * (1 - p))[:, None])
    lever = p * (1 - p) * np.einsum("ni,ij,nj->n", x, np.linalg.inv(information), x)
    assert x.T @ (y - p + lever * (0.5 - p)) == pytest.approx(0, abs=1e-7)


def test_a_steep_model_that_is_not_separated_has_its_maximum():
    scores = [1.2, 1.8, 2.3, 2.9, 3.3, 3.7, 4.2, 4.0, 4.5, 5.1, 5.6, 6.2, 6.6, 4.15]
    y = np.repeat([0.0, 1.0], 7)
    fit = fitted(of(scores), y)
    assert (fit.guard, fit.converged, fit.separated) == (None, True, False)
    assert fit.coefficients[1] / 3 == pytest.approx(5.46, abs=0.005)
    assert fit.aic == pytest.approx(9.41, abs=0.005)


def test_a_large_area_alone_is_no_separation():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        severity = rng.uniform(-1, 1, 120)
        y = (rng.random(120) < 1 / (1 + np.exp(-12 * severity))).astype(float)
        fit = fitted(np.column_stack([np.ones(120), severity]), y)
        assert (fit.guard, fit.converged) == (None, True)
        pooled = sm.Logit(y, np.column_stack([np.ones(120), severity])).fit(disp=0, tol=1e-14, maxiter=100)
        assert fit.aic == pytest.approx(pooled.aic, abs=1e-8)


def test_a_separation_in_part_gets_firths_estimate_and_the_p_of_its_likelihood():
    boys, girls = (22, 34), (0, 26)
    sex = np.repeat([1.0, -1.0], [boys[1], girls[1]])
    y = np.concatenate([np.arange(boys[1]) < boys[0], np.zeros(girls[1])]).astype(float)
    x = np.column_stack([np.ones(60), sex])
    fit = fitted(x, y)
    assert not fit.separated
    assert "found no maximum: the predictors separate the children in part" in fit.guard
    p = chi2.sf(2 * (best(x, y)[1] - best(x, y, (1, 0.0))[1]), 1)
    assert fit.p_values[1] == pytest.approx(p, rel=1e-5)
    assert fit.p_values[1] < 1e-6
    assert fit.intervals[1][0] > 0
    # The likelihood's supremum: the boys by their share, every girl told with certainty.
    supremum = 22 * math.log(22 / 34) + 12 * math.log(12 / 34)
    assert fit.maximum
    assert fit.log_likelihood == pytest.approx(supremum, abs=1e-4)


def test_too_few_rounds_are_said_and_their_likelihood_is_called_no_maximum():
    scores = [1.2, 1.8, 2.3, 2.9, 3.3, 3.7, 4.2, 4.0, 4.5, 5.1, 5.6, 6.2, 6.6, 4.15]
    fit = fitted(of(scores), np.repeat([0.0, 1.0], 7), rounds=3)
    assert "or the rounds were too few" in fit.guard
    assert not fit.maximum
    assert not fit.by_profile.any()


def test_a_prediction_that_hardly_varies_is_refused_by_name():
    rng = np.random.default_rng(0)
    near = 4 + 1e-5 * rng.normal(size=40)
    with pytest.raises(StudyError, match="gase hardly varies; leave it out"):
        fitted(of(near), (rng.random(40) < 0.4).astype(float))


@pytest.mark.parametrize("spread", [3e-4, 5e-4, 8e-4])
def test_no_round_asks_at_a_coefficient_that_sites_refuse(spread):
    # Without an effect, so that the top is near, and the ends of the interval are far away.
    x = np.column_stack([np.ones(60), spread * np.linspace(-1, 1, 60)])
    y, model = np.tile([0.0, 1.0, 1.0, 0.0], 15), ExactLogistic(NAMES[:2], **RULES)
    for _ in range(EXACT_ROUNDS):
        asked = model.coefficients
        assert np.abs(asked).max() <= LARGEST_COEFFICIENT
        rows = [newton_rows(x, y, coefficients=at, thirds=True, **RULES) for at in asked]
        model.step(np.concatenate(rows, axis=1).sum(axis=0))


@pytest.mark.parametrize("outcome", [True, False])
def test_one_outcome_alone_is_refused(outcome):
    with pytest.raises(StudyError, match=r"needs both outcomes; (0|12) of 12 children are impaired"):
        fitted(of(TIE), np.full(12, float(outcome)))


def test_copies_too_few_children_and_no_sums_are_refused():
    rng = np.random.default_rng(0)
    twice = rng.uniform(1, 7, 50)
    with pytest.raises(StudyError, match="some features are the same"):
        fitted(of(twice, 8 - twice), (rng.random(50) < 0.5).astype(float))
    with pytest.raises(StudyError, match=r"needs more than 3 children, not 3\.0"):
        fitted(of([1, 4, 7], [2, 3, 6]), np.array([0.0, 1.0, 1.0]))
    with pytest.raises(StudyError, match="needs more rounds"):
        ExactLogistic(NAMES, **RULES).fit()


def test_the_third_moments_are_those_of_their_definition():
    rng = np.random.default_rng(2)
    x, y, beta = rng.uniform(-1, 1, (9, 3)), rng.random(9) < 0.5, np.array([0.3, -1.0, 2.0])
    total = newton_rows(x, y, coefficients=beta, thirds=True, **RULES).sum(axis=0)
    thirds = NewtonSums.read(total, 3, thirds=True, **RULES).thirds
    p = 1 / (1 + np.exp(-x @ beta))
    assert thirds == pytest.approx(np.einsum("n,ni,nj,nk->ijk", p * (1 - p) * (0.5 - p), x, x, x), abs=1e-13)


@settings(deadline=None)
@given(st.integers(1, 5), st.floats(0.1, 4), st.integers(0, 2**32 - 1))
def test_no_row_with_thirds_is_longer_than_its_bound(p, norm, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, p)) * 10 ** rng.uniform(-2, 2)
    rows = newton_rows(
        x, rng.random(20) < 0.5, coefficients=rng.normal(size=p), feature_norm=norm, thirds=True
    )
    kind = newton(p, feature_norm=norm, thirds=True)
    assert rows.shape == (20, kind.dimension)
    assert (
        len(list(combinations_with_replacement(range(p), 3)))
        == kind.dimension - newton(p, feature_norm=norm).dimension
    )
    # Each triple stands once of up to six times, so the block is shorter than the norm to the third.
    assert np.linalg.norm(rows, axis=1).max() <= kind.l2_bound * (1 + 1e-12)


def test_a_model_has_a_track_for_each_thing_that_is_told_of_it():
    # The likelihood's and Firth's maximum; of each predictor its test and both ends of its interval.
    assert tracks(3) == 2 + 2 * (1 + 2)
    assert ExactLogistic(("intercept", "a", "b"), **RULES).coefficients.shape == (8, 3)
