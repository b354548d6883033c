"""Comparisons of models from sums equal those of the pooled children."""

import dataclasses
import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from esn_core.errors import DataError
from esn_core.statistics.logistic_exact import ExactLogistic
from esn_core.statistics.logistic_fit import ROUNDS
from esn_core.statistics.logistic_sums import EXACT_LOGIT_CLIP, log_likelihoods, newton_rows
from esn_core.statistics.model_comparison import likelihood_ratio, vuong, vuong_rows, vuong_test

RULES = {"feature_norm": 16.0, "logit_clip": EXACT_LOGIT_CLIP}
ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)


def children(seed=0, n=120):
    rng = np.random.default_rng(seed)
    clinical = rng.normal(size=n)
    predicted = clinical + 0.5 * rng.normal(size=n)
    y = rng.random(n) < 1 / (1 + np.exp(-1.2 * predicted))
    return clinical, predicted, y


def fitted(y, **columns):
    x = np.column_stack([np.ones(len(y)), *columns.values()])
    model = ExactLogistic(("intercept", *columns), **RULES)
    for _ in range(ROUNDS + 2):
        rows = [newton_rows(x, y, coefficients=at, thirds=True, **RULES) for at in model.coefficients]
        model.step(np.concatenate(rows, axis=1).sum(axis=0))
    return x, model.fit()


def reference(x, y):
    return sm.Logit(y.astype(float), x).fit(disp=0, tol=1e-14, maxiter=100)


def test_the_likelihood_ratio_equals_the_pooled_models():
    clinical, predicted, y = children()
    x_small, small = fitted(y, clinical=clinical)
    x_large, large = fitted(y, clinical=clinical, predicted=predicted)
    found = likelihood_ratio(small, large)
    statistic = 2 * (reference(x_large, y).llf - reference(x_small, y).llf)
    assert found.statistic == pytest.approx(statistic, abs=1e-8)
    assert (found.freedom, found.p_value) == (1, pytest.approx(stats.chi2.sf(statistic, 1), abs=1e-8))


def test_models_without_a_likelihood_ratio_are_refused():
    clinical, predicted, y = children()
    _, first = fitted(y, clinical=clinical)
    _, second = fitted(y, predicted=predicted)
    _, both = fitted(y, clinical=clinical, predicted=predicted)
    with pytest.raises(DataError, match="is not nested in that of intercept, predicted"):
        likelihood_ratio(first, second)
    with pytest.raises(DataError, match=r"predicted is no maximum \(ridge 0.05\)"):
        likelihood_ratio(first, dataclasses.replace(both, guard="ridge 0.05", maximum=False))
    with pytest.raises(DataError, match=r"120.0 and 90.0 children; they must be the same"):
        likelihood_ratio(first, dataclasses.replace(both, children=90.0))


def test_a_model_that_separates_the_children_has_no_likelihood_ratio_over_one_that_does_not():
    clinical, _, y = children(n=24)
    _, small = fitted(y, clinical=clinical)
    _, large = fitted(y, clinical=clinical, predicted=np.where(y, 1.0, -1.0))
    assert (small.separated, large.separated) == (False, True)
    with pytest.raises(DataError, match=r"clinical, predicted has no maximum .*the predictors separate"):
        likelihood_ratio(small, large)
    _, one = fitted(y, predicted=np.where(y, 1.0, -1.0))
    assert likelihood_ratio(one, large).p_value == 1.0


@pytest.mark.parametrize("further", [False, True])
def test_vuongs_test_equals_its_definition_on_the_pooled_children(further):
    clinical, predicted, y = children(1)
    columns = {"predicted": predicted} | ({"more": clinical**2} if further else {})
    (x_1, fit_1), (x_2, fit_2) = fitted(y, **columns), fitted(y, clinical=clinical)
    rows = vuong_rows(
        log_likelihoods(x_1, y, coefficients=fit_1.coefficients, **RULES),
        log_likelihoods(x_2, y, coefficients=fit_2.coefficients, **RULES),
        logit_clip=EXACT_LOGIT_CLIP,
    )
    found = vuong_test(
        sum(rows[k::4].sum(axis=0) for k in range(4)),
        first_features=x_1.shape[1],
        second_features=2,
        logit_clip=EXACT_LOGIT_CLIP,
    )
    r_1, r_2 = reference(x_1, y), reference(x_2, y)
    d = r_1.model.loglikeobs(r_1.params) - r_2.model.loglikeobs(r_2.params)
    n, more = len(y), x_1.shape[1] - 2
    for ours, p, correction in (
        (found.z, found.p_value, 0),
        (found.z_aic, found.p_value_aic, more),
        (found.z_bic, found.p_value_bic, more / 2 * math.log(n)),
    ):
        z = (d.sum() - correction) / (math.sqrt(n) * d.std())
        # Moments of differences far from cancelling.
        assert ours == pytest.approx(z, abs=1e-9)
        assert p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-9)


@given(arrays(np.float64, 5, elements=ANY), arrays(np.float64, 5, elements=ANY), st.floats(1, 30))
def test_no_row_of_vuongs_test_is_longer_than_its_bound(first, second, clip):
    with np.errstate(invalid="ignore", over="ignore"):
        rows = vuong_rows(first, second, logit_clip=clip)
    assert np.isfinite(rows).all()
    assert max(math.hypot(*row) for row in rows) <= vuong().l2_bound


def test_two_models_that_say_the_same_cannot_be_compared():
    same = np.full(10, -0.5)
    assert vuong_test(vuong_rows(same, same).sum(axis=0), first_features=2, second_features=2) is None
    assert vuong_test(np.array([0.5, 0.0, 1.0]), first_features=2, second_features=2) is None


@pytest.mark.parametrize(("children", "noise_sd"), [(36, 0.1), (36, 1.0), (36, 12.0), (300, 0.3), (300, 5.0)])
def test_noise_makes_no_verdict_of_two_models_that_are_equally_good(children, noise_sd):
    rng = np.random.default_rng(2)
    rules = {"first_features": 2, "second_features": 2, "noise_sd": noise_sd}
    sure = []
    for _ in range(600):
        first, second = -rng.exponential(0.6, (2, children))
        total = vuong_rows(first, second).sum(axis=0) + rng.normal(0, noise_sd, 3)
        found = vuong_test(total, **rules)
        sure.append(found is not None and found.p_value < 0.05)
    # Nominal .05; of 600 draws, within two standard errors.
    assert np.mean(sure) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


def test_what_noise_in_the_coefficients_takes_from_the_likelihoods_makes_a_comparison_less_sure():
    rng = np.random.default_rng(3)
    total = vuong_rows(-rng.random(100), -rng.random(100) - 0.2).sum(axis=0)
    rules = {"first_features": 2, "second_features": 2, "noise_sd": 0.1}
    plain, moved = vuong_test(total, **rules), vuong_test(total, **rules, lost_by_noise=10.0)
    assert abs(moved.z) < abs(plain.z) / 2
    assert moved.detectable > 2 * plain.detectable
    assert plain.noise_sd_of_z < moved.noise_sd_of_z < 1


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(DataError, match="holds 3 finite numbers"):
        vuong_test(np.zeros(2), first_features=2, second_features=2)
