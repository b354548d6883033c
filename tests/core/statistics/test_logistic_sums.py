"""What one child adds to a Newton sum, and what the sum says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.errors import DataError
from esn_core.privacy.release import clip_rows
from esn_core.statistics.logistic_sums import (
    LOGIT_CLIP,
    NewtonSums,
    largest_loss,
    log_likelihoods,
    newton,
    newton_rows,
)

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
NORMS = st.floats(0.5, 10)
CLIPS = st.floats(1, 30)
# The clip multiplies and takes one norm: a few float64 roundings; the declared sensitivity allows 2^-20.
ROUNDING = 1 + 1e-14


@given(
    arrays(np.float64, (5, 3), elements=ANY),
    arrays(np.float64, 5, elements=st.sampled_from([0.0, 1.0, math.nan])),
    arrays(np.float64, 3, elements=ANY),
    NORMS,
    CLIPS,
)
def test_no_row_of_a_newton_step_is_longer_than_its_bound(features, outcome, coefficients, norm, clip):
    kind = newton(3, feature_norm=norm)
    with np.errstate(all="raise", under="ignore"):
        rows = newton_rows(features, outcome, coefficients=coefficients, feature_norm=norm, logit_clip=clip)
    assert rows.shape == (5, kind.dimension)
    assert np.isfinite(rows).all()
    assert max(math.hypot(*row) for row in rows) <= kind.l2_bound * ROUNDING


@given(arrays(np.float64, (5, 3), elements=ANY), arrays(np.float64, 3, elements=ANY), CLIPS)
def test_no_childs_likelihood_is_below_the_largest_loss(features, coefficients, clip):
    outcome = np.array([True, False, True, True, False])
    known = np.isfinite(features).all(axis=1)
    each = log_likelihoods(features, outcome, coefficients=coefficients, feature_norm=3.0, logit_clip=clip)
    assert np.array_equal(np.isnan(each), ~known)
    assert ((each[known] <= 0) & (each[known] >= -largest_loss(clip) * ROUNDING)).all()


def test_a_newton_step_is_counts_curvature_score_and_likelihood_of_the_logistic_model():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(40), rng.normal(size=(40, 2))])
    y, beta = rng.random(40) < 0.5, np.array([0.2, -0.5, 0.3])
    total = newton_rows(x, y, coefficients=beta, feature_norm=10.0).sum(axis=0)
    sums = NewtonSums.read(total, 3, feature_norm=10.0, logit_clip=LOGIT_CLIP)
    p = 1 / (1 + np.exp(-x @ beta))
    assert (sums.children, sums.positives) == (40, y.sum())
    # Sums of 40 float64 products; the likelihood is scaled and scaled back.
    assert sums.curvature == pytest.approx(x.T @ np.diag(p * (1 - p)) @ x, rel=1e-12)
    assert sums.score == pytest.approx(x.T @ (y - p), rel=1e-11, abs=1e-12)
    assert sums.log_likelihood == pytest.approx(np.log(np.where(y, p, 1 - p)).sum(), rel=1e-12)


@given(arrays(np.float64, 3, elements=st.floats(-3, 3)), NORMS)
def test_the_bound_leaves_honest_rows_as_they_are(coefficients, norm):
    """The gate's clip must change nothing when rows are as they should be."""
    x = np.array([[1.0, 0.5, -0.5]]) * norm / math.sqrt(1.5)
    rows = newton_rows(x, np.array([True]), coefficients=coefficients, feature_norm=norm)
    assert np.array_equal(clip_rows(rows, newton(3, feature_norm=norm).l2_bound), rows)


def test_the_sums_refuse_what_is_not_finite():
    with pytest.raises(DataError, match="of 2 features holds 8 finite numbers"):
        NewtonSums.read(np.full(8, np.nan), 2, feature_norm=1.0, logit_clip=6.0)
