"""Partial correlations from sums about the sites' means, against one table with indicators of the sites."""

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests

from esn_core.errors import DataError, StudyError
from esn_core.severity_network.exact import exact_network, moments


def draw(rng, n, shift):
    age, sex = rng.uniform(4, 18, n), rng.integers(0, 2, n).astype(float)
    gase = np.clip(np.rint(4 + 0.05 * (age - 10) + shift + rng.normal(0, 1.4, n)), 1, 7)
    scores = rng.normal(size=(n, 40)) + shift * rng.normal(size=40) + 0.05 * (age - 10)[:, None]
    scores[:, :8] -= 0.6 * (gase - 4)[:, None]
    scores[:, 39] = 1.0
    return scores, gase, np.column_stack([age, sex])


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(4)
    return [draw(rng, n, shift) for n, shift in ((30, 0.0), (25, 0.7), (40, -0.5))]


def summed(sites):
    first, *others = [moments(*site) for site in sites]
    for other in others:
        first = first + other
    return first


def test_the_network_equals_regressions_on_one_table(sites):
    found = exact_network(summed(sites))
    scores, gase, covariates = (np.concatenate([s[i] for s in sites]) for i in range(3))
    indicator = np.repeat(np.eye(3), [len(s[1]) for s in sites], axis=0)
    design = np.column_stack([gase, covariates, indicator])
    p = []
    for edge in range(39):
        fit = sm.OLS(scores[:, edge], design).fit()
        assert found.t[edge] == pytest.approx(fit.tvalues[0], rel=1e-9)
        assert found.p[edge] == pytest.approx(fit.pvalues[0], rel=1e-8)
        p.append(fit.pvalues[0])
    assert np.array_equal(found.retained[:39], multipletests(p, alpha=0.05, method="fdr_bh")[0])
    assert found.retained[:8].all()
    assert found.freedom == 95 - 3 - 3


def test_sites_of_one_sex_each_lose_no_freedom_for_sex(sites):
    alike = [
        (scores, gase, np.column_stack([covariates[:, 0], np.full(len(gase), float(k % 2))]))
        for k, (scores, gase, covariates) in enumerate(sites)
    ]
    found = exact_network(summed(alike))
    scores, gase, covariates = (np.concatenate([s[i] for s in alike]) for i in range(3))
    indicator = np.repeat(np.eye(3), [len(s[1]) for s in alike], axis=0)
    # Sex is a sum of the sites' indicators: the table has it already.
    fit = sm.OLS(scores[:, 0], np.column_stack([gase, covariates[:, 0], indicator])).fit()
    assert found.freedom == fit.df_resid == 95 - 3 - 2
    assert (found.t[0], found.p[0]) == pytest.approx((fit.tvalues[0], fit.pvalues[0]), rel=1e-8)


def test_an_edge_that_does_not_vary_is_not_in_the_network(sites):
    found = exact_network(summed(sites))
    assert np.isnan(found.r[39])
    assert not found.retained[39]


def test_offsets_of_a_site_change_nothing(sites):
    moved = [(scores + k, gase, covariates) for k, (scores, gase, covariates) in enumerate(sites)]
    assert exact_network(summed(moved)).r[:39] == pytest.approx(exact_network(summed(sites)).r[:39], rel=1e-9)


def test_without_covariates_it_is_the_plain_correlation_within_one_site(sites):
    scores, gase, _ = sites[0]
    found = exact_network(moments(scores, gase, np.empty((len(gase), 0))))
    assert found.r[3] == pytest.approx(np.corrcoef(scores[:, 3], gase)[0, 1], rel=1e-12)


def test_what_cannot_be_selected_is_refused_with_words(sites):
    scores, gase, covariates = sites[0]
    with pytest.raises(DataError, match="two children or more"):
        moments(scores[:1], gase[:1], covariates[:1])
    with pytest.raises(StudyError, match="GASE does not vary"):
        exact_network(moments(scores, np.full(30, 4.0), covariates))
    with pytest.raises(StudyError, match="too few for 2 covariates"):
        exact_network(moments(scores[:3], gase[:3], covariates[:3]))
