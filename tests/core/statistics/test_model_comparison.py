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
from esn_core.statistics.logistic_fit import ROUNDS, LogisticNewton
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
    model = LogisticNewton(("intercept", *columns), **RULES)
    for _ in range(ROUNDS + 2):
        model.step(newton_rows(x, y, coefficients=model.coefficients, **RULES).sum(axis=0))
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
    with pytest.raises(DataError, match=r"was guarded \(ridge 0.05\)"):
        likelihood_ratio(first, dataclasses.replace(both, guard="ridge 0.05"))
    with pytest.raises(DataError, match=r"120.0 and 90.0 children; they must be the same"):
        likelihood_ratio(first, dataclasses.replace(both, children=90.0))


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


def test_the_noise_of_vuongs_z_is_what_noise_does_to_it():
    rng = np.random.default_rng(2)
    first, second = -rng.random(400), -rng.random(400)
    total = vuong_rows(first, second).sum(axis=0)
    rules = {"first_features": 2, "second_features": 2, "noise_sd": 0.2}
    drawn = [vuong_test(total + rng.normal(0, 0.2, 3), **rules).z for _ in range(1000)]
    # 1,000 draws give a standard deviation to 2 %; the formula is of first order.
    assert vuong_test(total, **rules).noise_sd_of_z == pytest.approx(np.std(drawn), rel=0.1)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(DataError, match="holds 3 finite numbers"):
        vuong_test(np.zeros(2), first_features=2, second_features=2)
