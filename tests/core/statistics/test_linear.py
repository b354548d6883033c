"""Linear models from sums equal statsmodels' least squares on the pooled rows."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.errors import DataError, StudyError
from esn_core.privacy.fixed_point import add_up, sum_rows
from esn_core.statistics.linear import linear, linear_fit, linear_rows

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
NAMES = ("intercept", "gase", "age")
BOUNDS = {"feature_norm": 8.0, "largest_target": 8.0}


def children(seed, n=60):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return x, x @ np.array([0.2, -0.6, 0.1]) + rng.normal(size=n)


def check_against(fit, reference, tolerance):
    assert fit.coefficients == pytest.approx(reference.params, abs=tolerance)
    assert fit.standard_errors == pytest.approx(reference.bse, abs=tolerance)
    assert fit.t == pytest.approx(reference.tvalues, abs=10 * tolerance)
    assert fit.p_values == pytest.approx(reference.pvalues, abs=tolerance)
    assert fit.intervals == pytest.approx(reference.conf_int(), abs=tolerance)
    assert fit.covariance == pytest.approx(reference.cov_params(), abs=tolerance)
    for ours, theirs in (
        (fit.r_squared, reference.rsquared),
        (fit.r_squared_adjusted, reference.rsquared_adj),
        (fit.residual_sd, math.sqrt(reference.mse_resid)),
        (fit.log_likelihood, reference.llf),
        (fit.aic, reference.aic),
        (fit.bic, reference.bic),
    ):
        assert ours == pytest.approx(theirs, abs=10 * tolerance)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 200), st.integers(1, 5))
def test_the_fit_equals_statsmodels(seed, n, sites):
    x, y = children(seed, n)
    total = sum(linear_rows(x[k::sites], y[k::sites], **BOUNDS).sum(axis=0) for k in range(sites))
    # Normal equations of standardised features: condition below 1e4, so 12 places are left.
    check_against(linear_fit(total, NAMES), sm.OLS(y, x).fit(), 1e-9)


def test_the_fit_through_the_gates_grid_equals_statsmodels():
    x, y = children(1)
    kind = linear(3, **BOUNDS)
    total = add_up([sum_rows(linear_rows(x[k::3], y[k::3], **BOUNDS), kind) for k in range(3)], kind)
    # Each of 60 rows is rounded to 2^-33.
    check_against(linear_fit(total, NAMES), sm.OLS(y, x).fit(), 1e-8)


def test_a_child_without_a_feature_or_a_score_is_in_no_sum():
    x, y = children(2)
    holes, scores = x.copy(), y.copy()
    holes[0, 2], scores[5] = np.nan, np.nan
    complete = np.delete(np.arange(60), [0, 5])
    fit = linear_fit(linear_rows(holes, scores, **BOUNDS).sum(axis=0), NAMES)
    assert fit.children == 58
    check_against(fit, sm.OLS(y[complete], x[complete]).fit(), 1e-9)


@given(
    arrays(np.float64, (4, 3), elements=ANY),
    arrays(np.float64, 4, elements=ANY),
    st.floats(0.5, 20),
    st.floats(0.5, 20),
)
def test_no_row_is_longer_than_its_bound(features, target, norm, largest):
    kind = linear(3, feature_norm=norm, largest_target=largest)
    rows = linear_rows(features, target, feature_norm=norm, largest_target=largest)
    assert rows.shape == (4, kind.dimension)
    assert np.isfinite(rows).all()
    # One norm and one product: a few float64 roundings.
    assert max(math.hypot(*row) for row in rows) <= kind.l2_bound * (1 + 1e-14)


def test_noise_in_the_sums_is_in_the_intervals():
    x, y = children(3, 400)
    total, rng = linear_rows(x, y, **BOUNDS).sum(axis=0), np.random.default_rng(0)
    fits = [linear_fit(total + rng.normal(0, 5.0, total.shape), NAMES, noise_sd=5.0) for _ in range(200)]
    spread = np.std([f.coefficients for f in fits], axis=0)
    claimed = np.mean([f.noise_sd_of_coefficients for f in fits], axis=0)
    assert spread == pytest.approx(claimed, rel=0.2)  # 200 fits: 5 %, and the first order of the formula
    exact = linear_fit(total, NAMES)
    assert (np.diff(fits[0].intervals) > np.diff(exact.intervals)).all()


def test_moments_smaller_than_their_noise_are_held_and_named():
    x, y = children(4, 30)
    x[:, 2] = 1e-3 * x[:, 2]
    rng, total = np.random.default_rng(0), linear_rows(x, y, **BOUNDS).sum(axis=0)
    assert "moments held at" in linear_fit(total + rng.normal(0, 1, total.shape), NAMES, noise_sd=1.0).guard


def test_what_cannot_be_fitted_is_refused_with_words():
    x, y = children(0, 20)
    copies = np.column_stack([x[:, :2], x[:, 1]])
    for rows, message in (
        (linear_rows(copies, y, **BOUNDS), "some features are the same"),
        (linear_rows(x[:3], y[:3], **BOUNDS), r"needs more than 3 children, not 3\.0"),
        (linear_rows(x, np.zeros(20), **BOUNDS), "the scores do not vary beyond the model"),
    ):
        with pytest.raises(StudyError, match=message):
            linear_fit(rows.sum(axis=0), NAMES)
    # A score that is the same for all, whose squares leave a rounding above zero; and a line in a feature.
    for score in (*(np.full(20, k / 60) for k in range(-59, 60)), 0.3 * x[:, 1] - 0.1):
        with pytest.raises(StudyError, match="the scores do not vary beyond the model"):
            linear_fit(linear_rows(x, score, **BOUNDS).sum(axis=0), NAMES)
    with pytest.raises(DataError, match=r"of 3 features holds 12 finite numbers, not \(2,\)"):
        linear_fit(np.zeros(2), NAMES)


@pytest.mark.parametrize(("n", "sd", "told"), [(36, 18.1, False), (300, 18.1, None), (1200, 18.1, True)])
def test_an_interval_that_is_told_holds_the_true_coefficient_under_noise(n, sd, told):
    rng, found = np.random.default_rng(n), []
    for _ in range(150):
        score = np.clip(0.4 * rng.normal(size=n), -1, 1)
        target = np.clip(0.5 * score + 0.25 * rng.normal(size=n), -1, 1)
        rows = linear_rows(
            np.column_stack([np.ones(n), score]), target, feature_norm=math.sqrt(2), largest_target=1.0
        )
        total = rows.sum(axis=0)
        try:
            fit = linear_fit(total + rng.normal(0, sd, total.shape), NAMES[:2], noise_sd=sd)
        except StudyError:
            continue
        found.append((fit.told, fit.intervals[1, 0] <= 0.5 <= fit.intervals[1, 1]))
    held = [holds for shown, holds in found if shown]
    if told is not None:
        assert (len(held) > 0.9 * len(found)) if told else (len(held) < 0.05 * len(found))
    # Of .95: three standard errors of as many draws.
    assert not held or np.mean(held) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / len(held))
