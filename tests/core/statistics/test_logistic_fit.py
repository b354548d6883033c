"""Logistic regression from noised sums: near statsmodels on the pooled rows, and as sure as it says."""

import math

import numpy as np
import pytest
import statsmodels.api as sm

from esn_core.errors import DataError, StudyError
from esn_core.statistics.linear import linear_fit, linear_rows
from esn_core.statistics.logistic_fit import EXACT_ROUNDS, ROUNDS, SEPARATION_RIDGE, LogisticNewton
from esn_core.statistics.logistic_sums import EXACT_LOGIT_CLIP, log_likelihoods, newton_rows

NORM = 16.0
RULES = {"feature_norm": NORM, "logit_clip": EXACT_LOGIT_CLIP}
NAMES = ("intercept", "gase", "age", "sex")


def children(seed, n=150, effects=(-0.5, 1.0, -0.3, 0.4)):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2)), rng.integers(0, 2, n)])
    return x, rng.random(n) < 1 / (1 + np.exp(-x @ np.array(effects)))


def federate(x, y, *, rounds=ROUNDS, sites=3, noise_sd=1e-9, seed=0):
    """Fit as a study does: the same fixed number of rounds, each summed over the sites, and noised."""
    names = NAMES[: x.shape[1]]
    model = LogisticNewton(names, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP, noise_sd=noise_sd)
    rng = np.random.default_rng(seed)
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
        total = sum(part.sum(axis=0) for part in parts)
        model.step(total + rng.normal(0, noise_sd, total.shape))
    return model.fit()


def pooled(x, y):
    return sm.Logit(y.astype(float), x).fit(disp=0, tol=1e-14, maxiter=100)


def test_with_hardly_any_noise_the_fit_is_the_ridges_own_maximum():
    x, y = children(5)
    fit = federate(x, y, rounds=EXACT_ROUNDS)
    assert (fit.converged, fit.guard) == (True, "ridge 0.05")
    p = 1 / (1 + np.exp(-x @ fit.coefficients))
    penalty = SEPARATION_RIDGE * np.array([0, 1, 1, 1]) * fit.coefficients
    # The penalised score is zero there, up to the noise.
    assert x.T @ (y - p) == pytest.approx(penalty, abs=1e-6)
    # The ridge is a prior of standard deviation 4.5: it moves 150 children's effects by a few hundredths.
    assert fit.coefficients == pytest.approx(pooled(x, y).params, abs=0.05)


def test_a_child_without_a_feature_or_an_outcome_is_in_no_sum():
    x, y = children(4)
    holes, outcome = x.copy(), y.astype(float)
    holes[3, 1], outcome[8] = np.nan, np.nan
    complete = np.delete(np.arange(len(y)), [3, 8])
    fit, without = federate(holes, outcome), federate(x[complete], y[complete])
    assert (fit.children, fit.positives) == pytest.approx((148, y[complete].sum()), abs=1e-7)
    assert fit.coefficients == pytest.approx(without.coefficients, abs=1e-7)


def test_a_step_that_lowers_the_likelihood_is_halved():
    x, y = children(7)
    model = LogisticNewton(NAMES, feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP, noise_sd=1e-12)
    rows = {"feature_norm": NORM, "logit_clip": EXACT_LOGIT_CLIP}
    model.step(newton_rows(x, y, coefficients=model.coefficients, **rows).sum(axis=0))
    first = model.coefficients
    worse = newton_rows(x, y, coefficients=-9 * first, **rows).sum(axis=0)
    model.step(worse)
    assert model.coefficients == pytest.approx(first / 2, abs=1e-15)
    for _ in range(ROUNDS):
        model.step(newton_rows(x, y, coefficients=model.coefficients, **rows).sum(axis=0))
    assert model.fit().coefficients == pytest.approx(federate(x, y).coefficients, abs=1e-6)


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


def test_the_noise_of_a_log_likelihood_is_what_noise_does_to_it():
    x, y = children(10, 200)
    fits = [federate(x, y, noise_sd=0.5, seed=seed) for seed in range(60)]
    drawn = np.array([fit.log_likelihood for fit in fits])
    claimed = np.mean([fit.noise_sd_of_log_likelihood for fit in fits])
    largest = pooled(x, y).llf
    # 60 fits give a standard deviation to 9 %; what is claimed holds the way down from the maximum, too.
    assert np.sqrt(np.mean((drawn - largest) ** 2)) == pytest.approx(claimed, rel=0.5)
    # What the released coefficients really lose.
    lost = [largest - log_likelihoods(x, y, coefficients=f.coefficients, **RULES).sum() for f in fits]
    assert np.mean(lost) <= 1.5 * np.mean([f.loss_by_noise for f in fits])


def test_too_few_children_are_refused():
    x, _ = children(0, 4)
    with pytest.raises(StudyError, match=r"needs more than 4 children, not 4\.0"):
        federate(x, np.array([True, False, True, False]))


def test_a_fit_without_a_sum_is_refused():
    with pytest.raises(StudyError, match="has no usable sum"):
        LogisticNewton(NAMES, feature_norm=NORM, noise_sd=1.0).fit()


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(DataError, match=r"of 4 features holds 17 finite numbers, not \(3,\)"):
        LogisticNewton(NAMES, feature_norm=NORM, noise_sd=1.0).step(np.zeros(3))


def test_each_childs_likelihood_adds_up_to_the_models():
    x, y = children(3)
    reference = pooled(x, y)
    each = log_likelihoods(
        x, y, coefficients=np.asarray(reference.params), feature_norm=NORM, logit_clip=EXACT_LOGIT_CLIP
    )
    assert each == pytest.approx(reference.model.loglikeobs(reference.params), abs=1e-12)
    assert math.isclose(each.sum(), reference.llf, abs_tol=1e-10)


def drawn_fit(n, rng, *, sd=7.6, spread=0.4, slope=2.58):
    """Fit the severity's odds ratio to n drawn children, under the noise of a study with two models."""
    severity = spread * rng.normal(size=n)
    ill = rng.random(n) < 1 / (1 + np.exp(0.95 - slope * severity))
    x = np.column_stack([np.ones(n), np.clip(severity, -1, 1)])
    model = LogisticNewton(("intercept", "gase"), feature_norm=math.sqrt(2), noise_sd=sd)
    for _ in range(ROUNDS):
        sums = newton_rows(x, ill, coefficients=model.coefficients, feature_norm=math.sqrt(2)).sum(axis=0)
        model.step(sums + rng.normal(0, sd, sums.shape))
    fit = model.fit()
    rows = linear_rows(x, x[:, 1] / 2, feature_norm=math.sqrt(2), largest_target=1.0)
    total = rows.sum(axis=0) + rng.normal(0, 9.0, rows.shape[1])
    total[2] += 100  # of the score, which is not looked at: it leaves a model
    return fit, fit.beside(linear_fit(total, ("intercept", "gase"), noise_sd=9.0).spreads)


@pytest.mark.parametrize(("n", "most_told"), [(36, 0.0), (126, 0.0), (500, 1.0), (1200, 1.0)])
def test_an_interval_that_is_told_holds_the_true_odds_ratio_under_noise(n, most_told):
    rng = np.random.default_rng(n)
    fits = [drawn_fit(n, rng)[1] for _ in range(100)]
    ends = [fit.intervals[1] for fit in fits if fit.told]
    assert len(ends) <= most_told * len(fits)
    if ends:
        assert len(ends) > 60
        # Of .95: three standard errors of 60 draws are .08.
        assert np.mean([low <= 2.58 <= high for low, high in ends]) >= 0.95 - 0.08


def test_a_coefficient_of_a_narrow_predictor_is_not_told_where_the_noise_may_have_made_its_curvature():
    rng = np.random.default_rng(0)
    fits = [drawn_fit(1200, rng, spread=0.125, slope=8.0) for _ in range(60)]
    # By its own curvature alone some are told, and most of those intervals miss.
    assert sum(fit.told for fit, _ in fits) > 1
    assert not any(fit.told for _, fit in fits)
    assert not fits[0][0].beside(None).told


def test_the_sampling_alone_hides_no_coefficient():
    x, y = children(9, 30)
    assert federate(x, y, rounds=EXACT_ROUNDS).told
