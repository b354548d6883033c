"""The power that a price list tells is that of the test, and so is what sites that differ do to p."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from esn_core.analyses.power import (
    LOG_ODDS,
    SEVERITY_IN_GASE,
    SEVERITY_IN_PREDICTION,
    SHARE_IMPAIRED,
    _advantage,
    false_positives,
    power_of,
)
from esn_core.statistics.logistic_sums import LOGIT_CLIP, largest_loss
from esn_core.statistics.model_comparison import vuong_test


def test_the_power_is_that_of_simulated_studies():
    rng, children, found, share = np.random.default_rng(1), 100, [], []
    for _ in range(250):
        severity, *errors = rng.normal(size=(3, children))
        intercept = -math.log(1 / SHARE_IMPAIRED - 1) * math.sqrt(1 + LOG_ODDS**2 / 2.9)
        y = (rng.random(children) < 1 / (1 + np.exp(-intercept - LOG_ODDS * severity))).astype(float)
        share.append(y.mean())
        each = []
        for r, error in zip((SEVERITY_IN_PREDICTION, SEVERITY_IN_GASE), errors, strict=True):
            fit = sm.Logit(y, sm.add_constant(r * severity + math.sqrt(1 - r**2) * error)).fit(disp=0)
            each.append(fit.model.loglikeobs(fit.params))
        apart = each[0] - each[1]
        found.append(apart.sum() / (math.sqrt(children) * apart.std()) > 1.959964)
    assert np.mean(share) == pytest.approx(SHARE_IMPAIRED, abs=0.02)
    # Of 250 studies, within three standard errors.
    assert np.mean(found) == pytest.approx(power_of(children), abs=0.08)


@pytest.mark.parametrize(("children", "noise_sd"), [(400, 2.0), (1200, 4.0), (2400, 8.0)])
def test_the_power_under_noise_is_that_of_the_test_under_noise(children, noise_sd):
    """The released sums of so many children, noised, and the test that the report makes of them."""
    rng, largest, found = np.random.default_rng(2), largest_loss(LOGIT_CLIP), []
    mean, variance = _advantage()
    for _ in range(400):
        apart = rng.normal(mean, math.sqrt(variance), children) / largest
        total = np.array([children, apart.sum(), (apart**2).sum()])
        total += rng.normal(0, noise_sd / largest, 3)
        said = vuong_test(total, first_features=2, second_features=2, noise_sd=noise_sd / largest)
        found.append(said.z > 0 and said.p_value < 0.05)
    # Of 400 studies, within three standard errors.
    assert np.mean(found) == pytest.approx(power_of(children, noise_sd=noise_sd), abs=0.075)


def test_more_children_and_less_noise_find_more():
    assert power_of(36) < power_of(100) < power_of(400)
    assert power_of(100, noise_sd=5.0) < power_of(100)
    assert power_of(100, level=0.05 / 6) < power_of(100)
    assert _advantage()[0] > 0


@pytest.mark.parametrize(("children", "sites"), [(36, 6), (300, 6)])
def test_sites_that_differ_make_as_many_false_findings_as_is_said(children, sites):
    rng, share, times = np.random.default_rng(2), 0.25, 2000
    of = np.repeat(np.arange(sites), children // sites)
    both = []
    for _ in range(2):
        means = rng.normal(size=(times, sites)) * math.sqrt(share)
        both.append(means[:, of] + math.sqrt(1 - share) * rng.normal(size=(times, len(of))))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in both)
    r = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    p = 2 * stats.norm.sf(np.abs(np.arctanh(r)) * math.sqrt(len(of) - 3))
    # The formula takes the sites' own variances as known.
    assert (p < 0.05).mean() == pytest.approx(false_positives(children, sites, between_sites=share), abs=0.05)
    assert false_positives(children, sites, between_sites=0.0) == pytest.approx(0.05, abs=1e-9)
