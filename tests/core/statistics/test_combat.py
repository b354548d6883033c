"""ComBat from sums and at home equals ComBat on the pooled children."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.errors import DataError, StudyError
from esn_core.privacy.fixed_point import add_up, sum_rows
from esn_core.statistics.combat import ComBatModel, ComBatSite, combat, combat_model, combat_rows

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
NORM = 6.0


def sites(seed, sizes=(12, 20, 9), edges=14):
    rng = np.random.default_rng(seed)
    found = []
    for n in sizes:
        x = np.column_stack([rng.normal(size=n), rng.integers(0, 2, n) - 0.5])
        z = x @ np.vstack([np.full(edges, 0.3), np.linspace(-0.2, 0.2, edges)]) + rng.normal(size=(n, edges))
        found.append((z * np.exp(rng.normal(0, 0.3, edges)) + rng.normal(0, 0.8, edges), x))
    return found


def combat_on_the_pooled_children(data):
    """Johnson, Li & Rabinovic (2007) as neuroCombat 0.2.12 does it, edge by edge and in float64."""
    site = np.repeat(np.arange(len(data)), [len(z) for z, _ in data])
    Y, X = np.concatenate([z for z, _ in data]), np.concatenate([x for _, x in data])
    n, edges = Y.shape
    dummies = np.eye(len(data))[site]
    design = np.column_stack([dummies, X])
    sizes = dummies.sum(axis=0)
    standardised, expected, sd = np.empty_like(Y), np.empty_like(Y), np.empty(edges)
    for e in range(edges):
        b = np.linalg.lstsq(design, Y[:, e], rcond=None)[0]
        sd[e] = math.sqrt(np.sum((Y[:, e] - design @ b) ** 2) / n)
        expected[:, e] = (sizes / n) @ b[: len(data)] + X @ b[len(data) :]
        standardised[:, e] = (Y[:, e] - expected[:, e]) / sd[e]
    harmonised = np.empty_like(Y)
    for k in range(len(data)):
        s = standardised[site == k]
        g_hat, d_hat = s.mean(axis=0), s.var(axis=0, ddof=1)
        a = (2 * d_hat.var(ddof=1) + d_hat.mean() ** 2) / d_hat.var(ddof=1)
        b = (d_hat.mean() * d_hat.var(ddof=1) + d_hat.mean() ** 3) / d_hat.var(ddof=1)
        t_2, g, d, change = g_hat.var(ddof=1), g_hat.copy(), d_hat.copy(), 1.0
        while change > 1e-4:
            g_new = (t_2 * len(s) * g_hat + d * g_hat.mean()) / (t_2 * len(s) + d)
            d_new = (0.5 * ((s - g_new) ** 2).sum(axis=0) + b) / (len(s) / 2 + a - 1)
            change = max((abs(g_new - g) / g).max(), (abs(d_new - d) / d).max())
            g, d = g_new, d_new
        harmonised[site == k] = (s - g) / np.sqrt(d) * sd + expected[site == k]
    return harmonised


def federated(data, *, through_the_grid=False):
    edges = data[0][0].shape[1]
    kind = combat(edges, 2, covariate_norm=NORM)
    parts = [combat_rows(z, x, covariate_norm=NORM) for z, x in data]
    if through_the_grid:
        total = add_up([sum_rows(part, kind) for part in parts], kind)
    else:
        total = sum(part.sum(axis=0) for part in parts)
    model = combat_model(total, edges=edges, covariates=2)
    return [ComBatSite.estimate(z, x, model).apply(z, x) for z, x in data]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_harmonised_scores_equal_combat_on_the_pooled_children(seed):
    data = sites(seed)
    # Scores of size 1: normal equations of well-conditioned covariates lose two or three places.
    assert np.concatenate(federated(data)) == pytest.approx(combat_on_the_pooled_children(data), abs=1e-12)


def test_harmonised_scores_through_the_gates_grid_equal_combat_on_the_pooled_children():
    data = sites(3)
    # Each of 41 rows is rounded to 2^-32.
    found = np.concatenate(federated(data, through_the_grid=True))
    assert found == pytest.approx(combat_on_the_pooled_children(data), abs=1e-8)


def test_shifts_and_scales_of_scanners_go_and_effects_of_covariates_stay():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    clean = x @ np.vstack([np.full(30, 0.5), np.zeros(30)]) + rng.normal(size=(400, 30))
    cut = np.split(np.arange(400), 4)
    data = [(clean[i] * np.exp(rng.normal(0, 0.3, 30)) + rng.normal(0, 1, 30), x[i]) for i in cut]
    harmonised = np.concatenate(federated(data))
    between = lambda z: np.var([z[i].mean(axis=0) for i in cut], axis=0).mean()  # noqa: E731
    assert between(harmonised) < 0.05 * between(np.concatenate([z for z, _ in data]))
    slopes = np.linalg.lstsq(np.column_stack([np.ones(400), x]), harmonised, rcond=None)[0][1]
    assert slopes.mean() == pytest.approx(0.5, abs=0.05)  # 400 children: standard error .01


def test_a_child_that_was_in_no_sum_is_harmonised_with_its_sites_shift_and_scale():
    data = sites(1)
    total = sum(combat_rows(z, x, covariate_norm=NORM).sum(axis=0) for z, x in data)
    model = combat_model(total, edges=14, covariates=2)
    z, x = data[0]
    site = ComBatSite.estimate(z, x, model)
    # One at a time, as all together: applying uses no other child.
    alone = np.concatenate([site.apply(z[k : k + 1], x[k : k + 1]) for k in range(len(z))])
    assert alone == pytest.approx(site.apply(z, x), abs=1e-13)


def test_an_edge_that_does_not_vary_is_left_as_it_is_and_changes_no_other():
    data = sites(2)
    with_zeros = [(np.insert(z, 5, 0.0, axis=1), x) for z, x in data]
    for found, expected in zip(federated(with_zeros), federated(data), strict=True):
        assert np.array_equal(found[:, 5], np.zeros(len(found)))
        assert np.delete(found, 5, axis=1) == pytest.approx(expected, abs=1e-12)


def test_a_model_survives_the_question_that_carries_it():
    rng = np.random.default_rng(0)
    model = ComBatModel(rng.normal(size=(2, 5)), rng.normal(size=5), rng.random(5))
    again = ComBatModel.from_vector(model.vector, edges=5)
    assert np.array_equal(again.coefficients, model.coefficients)
    assert np.array_equal(again.grand_mean, model.grand_mean)
    assert np.array_equal(again.variance, model.variance)
    with pytest.raises(DataError, match=r"5 edges holds \(p \+ 2\) 5 numbers"):
        ComBatModel.from_vector(np.zeros(7), edges=5)
    with pytest.raises(DataError, match="variances that are not negative"):
        ComBatModel.from_vector(-np.ones(10), edges=5)


@given(arrays(np.float64, (4, 6), elements=ANY), arrays(np.float64, (4, 3), elements=ANY), st.floats(0.5, 10))
def test_no_row_is_longer_than_its_bound(scores, covariates, norm):
    kind = combat(6, 3, covariate_norm=norm)
    rows = combat_rows(scores, covariates, covariate_norm=norm)
    assert rows.shape == (4, kind.dimension)
    assert np.isfinite(rows).all()
    # Clips and norms: a few float64 roundings.
    assert max(math.hypot(*row) for row in rows) <= kind.l2_bound * (1 + 1e-14)


def test_what_combat_cannot_use_is_refused_with_words():
    z, x = sites(0)[0]
    with pytest.raises(DataError, match="a ComBat sum holds 62 finite numbers"):
        combat_model(np.zeros(3), edges=14, covariates=2)
    copies = np.column_stack([x[:, 0], x[:, 0]])
    with pytest.raises(StudyError, match="some covariates are the same"):
        combat_model(combat_rows(z, copies, covariate_norm=NORM).sum(axis=0), edges=14, covariates=2)
    with pytest.raises(StudyError, match="needs 4 children, not 3"):
        combat_model(combat_rows(z[:3], x[:3], covariate_norm=NORM).sum(axis=0), edges=14, covariates=2)
    model = combat_model(combat_rows(z, x, covariate_norm=NORM).sum(axis=0), edges=14, covariates=2)
    with pytest.raises(DataError, match="two children and two edges that vary, not 1 and 14"):
        ComBatSite.estimate(z[:1], x[:1], model)
