"""The price of Gaussian releases, against known values and an independent accountant."""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from esn_core.errors import PrivacyBudgetError
from esn_core.privacy.accounting import (
    GaussianRelease,
    compose,
    delta_of,
    epsilon_of,
    grid_delta,
    mu_for,
    noise_multiplier_for,
    odds_in_words,
    replace_one_epsilon_of,
    true_positives,
)

MULTIPLIERS = st.lists(st.floats(0.5, 50), min_size=1, max_size=8)


# Exact Gaussian DP, delta 1e-3, one release (shared facts of the project, 2026-11-22).
@pytest.mark.parametrize(("epsilon", "sigma"), [(1, 2.575), (3, 1.037), (8, 0.480)])
def test_the_noise_of_one_release_is_the_known_value(epsilon, sigma):
    assert 1 / mu_for(epsilon, 1e-3) == pytest.approx(sigma, abs=5e-4)  # three printed decimals


# dp-accounting 0.6.0: PLDAccountant, q 1, sigma 4, 20 steps, delta 1e-3: 3.605 (2026-11-22).
def test_a_composition_costs_the_known_value():
    assert epsilon_of(compose([GaussianRelease(4.0)] * 20), 1e-3) == pytest.approx(3.605, abs=2e-3)


@settings(max_examples=8, deadline=None)
@given(sigma=st.floats(0.8, 20), steps=st.integers(1, 20))
def test_epsilon_is_bracketed_by_an_independent_accountant(sigma, steps):
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(sigma), steps))
    ours = epsilon_of(compose([GaussianRelease(sigma)] * steps), 1e-3)
    # The PLD's pessimistic rounding adds at most one grid step of 1e-3 per composition.
    assert ours <= accountant.get_epsilon(1e-3) + 1e-9
    assert ours >= accountant.get_epsilon(1e-3) - 1e-3 * (steps + 1)


@given(MULTIPLIERS)
def test_more_releases_never_cost_less(multipliers):
    releases = [GaussianRelease(m) for m in multipliers]
    assert epsilon_of(compose(releases), 1e-3) >= epsilon_of(compose(releases[1:]), 1e-3)


@given(sigma=st.floats(0.5, 50), more=st.floats(1, 10))
def test_more_noise_never_costs_more(sigma, more):
    louder = epsilon_of(compose([GaussianRelease(sigma * more)]), 1e-3)
    assert louder <= epsilon_of(compose([GaussianRelease(sigma)]), 1e-3) + 1e-12


@given(epsilon=st.floats(0.1, 20), delta=st.floats(1e-6, 1e-2))
def test_the_noise_for_a_budget_spends_the_budget(epsilon, delta):
    mu = mu_for(epsilon, delta)
    # Two root searches of relative tolerance 1e-13 on a curve of slope about mu.
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-9)
    assert delta_of(mu, epsilon) == pytest.approx(delta, rel=1e-9)


def test_the_shares_of_a_budget_compose_to_the_budget():
    mu = mu_for(8, 1e-3)
    releases = [GaussianRelease(noise_multiplier_for(mu, share=0.25, releases=7))] * 7
    releases += [GaussianRelease(noise_multiplier_for(mu, share=0.75, releases=1))]
    assert compose(releases) == pytest.approx(mu, rel=1e-14)  # a few float64 roundings


def test_exchanging_a_child_costs_more_than_removing_one():
    assert replace_one_epsilon_of(1.0, 1e-3) > epsilon_of(1.0, 1e-3)


def test_an_exact_release_has_no_bound():
    mu = compose([GaussianRelease(2.0), GaussianRelease(0.0)])
    assert math.isinf(mu)
    assert math.isinf(epsilon_of(mu, 1e-3))
    assert delta_of(mu, 5.0) == 1


def test_nothing_released_costs_nothing():
    assert epsilon_of(compose([]), 1e-3) == 0


@pytest.mark.parametrize("epsilon", [0, -1, math.inf, math.nan])
def test_an_impossible_budget_is_refused(epsilon):
    with pytest.raises(PrivacyBudgetError, match="epsilon must be positive and finite"):
        mu_for(epsilon, 1e-3)


@pytest.mark.parametrize("delta", [0, 1, -0.1])
def test_an_impossible_delta_is_refused(delta):
    with pytest.raises(PrivacyBudgetError, match="delta lies between 0 and 1"):
        epsilon_of(1.0, delta)


@pytest.mark.parametrize("multiplier", [-1.0, math.inf, math.nan])
def test_an_impossible_noise_multiplier_is_refused(multiplier):
    with pytest.raises(PrivacyBudgetError, match="finite and not negative"):
        GaussianRelease(multiplier)


@pytest.mark.parametrize(("sigma", "steps"), [(4.0, 20), (2.0, 3)])
def test_opacus_gives_a_bound_that_is_near_and_above(sigma, steps):
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(sigma, 1.0, steps)]
    bound = accountant.get_epsilon(1e-3)
    # Rényi orders lose some tenths of an epsilon against the exact composition: 0.45 and 0.34 here, by
    # Opacus 1.6.
    assert bound - 0.5 < epsilon_of(compose([GaussianRelease(sigma)] * steps), 1e-3) <= bound


@given(mu=st.floats(0.05, 4), alpha=st.floats(0.001, 0.5))
def test_no_attack_on_a_gaussian_release_finds_more_members_than_the_bound(mu, alpha):
    """The likelihood-ratio test between N(0, 1) and N(mu, 1), by the definition."""
    threshold = norm.isf(alpha)
    assert true_positives(mu, false_positives=alpha) == pytest.approx(norm.sf(threshold - mu), rel=1e-9)


def test_an_exact_release_lets_every_member_be_found():
    assert true_positives(math.inf, false_positives=0.01) == 1.0
    assert true_positives(0.0, false_positives=0.01) == pytest.approx(0.01)


def discrete_gaussian_pmf(sd, reach):
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x**2) / (2 * sd**2))
    return x, weight / weight.sum()


@pytest.mark.parametrize(("sd", "shares"), [(1.0, 1), (1.0, 3), (2.0, 4), (5.0, 2), (20.0, 3)])
def test_the_sum_of_discrete_shares_is_as_close_to_a_rounded_gaussian_as_the_bound_says(sd, shares):
    """By convolution, where the grid is coarse enough for the distance to be seen."""
    reach = int(12 * sd)
    _, one = discrete_gaussian_pmf(sd, reach)
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    x = np.arange(len(total)) - len(total) // 2
    whole = sd * math.sqrt(shares)
    rounded = norm.cdf((x + 0.5) / whole) - norm.cdf((x - 0.5) / whole)
    distance = np.abs(total - rounded).sum() / 2
    bound = grid_delta(sd, dimension=1, shares=shares)
    assert distance <= bound
    if shares == 1 and sd >= 2:
        assert bound <= 10 * distance  # and the bound is no empty one


def test_on_the_grid_that_is_used_the_difference_is_nothing():
    """The coarsest share that the gate lets pass: 2^20 steps, for 10^5 numbers and 512 sites."""
    assert grid_delta(2.0**20, dimension=10**5, shares=512) < 1e-8
    # What a study adds: about 2^38 steps.
    assert grid_delta(2.0**36, dimension=10**5, shares=512) * math.exp(8) * 100 < 1e-11


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [(1.0, "2.7"), (3.0, "20"), (8.0, "2,981"), (9.3, "more than 10,000"), (math.inf, "more than 10,000")],
)
def test_the_odds_are_e_to_the_epsilon_in_words(epsilon, words):
    assert odds_in_words(epsilon) == words
