"""Attacks and bounds: against their definitions, and on mechanisms whose privacy is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from esn_client.privacy_audit.attacks import (
    Guesses,
    area,
    area_bound,
    area_error,
    best_guesses,
    guess,
    membership_scores,
    mu_interval,
    one_run_epsilon,
    smallest_fault,
    surest,
    true_positive_rate,
)
from esn_core.errors import DataError
from esn_core.privacy.accounting import delta_of, epsilon_of, true_positives

RUNS = 200
DELTA = 1e-6


def gaussian_canaries(rng, mu, *, canaries=1000, spread=1.0):
    """Draw coins and scores of a mechanism that is mu-GDP when `spread` is 1."""
    present = rng.random(canaries) < 0.5
    return mu * present + spread * rng.normal(size=canaries), present


# --- mu from error rates --------------------------------------------------------------------------------


def slow_mu(guesses, error):
    """Search the rates whose binomial tails are just `error / 2`."""

    def search(tail, rising):
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (tail(middle) < error / 2) == rising else (low, middle)
        return low

    found = search(lambda p: stats.binom.sf(guesses.found - 1, guesses.present, p), rising=True)
    false = search(lambda p: stats.binom.cdf(guesses.false_alarms, guesses.absent, p), rising=False)
    return max(stats.norm.ppf(found) - stats.norm.ppf(false), 0.0)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_the_bound_on_mu_is_that_of_the_binomial_tails(present, absent, found, false):
    guesses = Guesses(present, absent, round(found * present), round(false * absent))
    low, high = mu_interval(guesses, error=0.01)
    assert low == pytest.approx(slow_mu(guesses, 0.01), abs=1e-6)  # sixty halvings, in the steepest tail
    assert high >= low or low == 0


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.7, 4.0])
def test_the_bound_on_mu_is_above_the_truth_as_seldom_as_stated(mu):
    rng = np.random.default_rng(1)
    lows, highs = [], []
    for _ in range(RUNS):
        low, high = mu_interval(guess(*gaussian_canaries(rng, mu), threshold=mu / 2), error=0.05)
        lows.append(low)
        highs.append(high)
    # 5 % of 200 are 10; 20 and more have a probability below 0.3 %.
    assert sum(low > mu for low in lows) < 20
    assert sum(high < mu for high in highs) < 20
    assert np.median(lows) > 0.8 * mu - 0.25


@pytest.mark.parametrize("spread", [1 / math.sqrt(3), 0.1, 0.0])
def test_noise_that_is_too_small_is_found_by_the_bound_on_mu(spread):
    rng = np.random.default_rng(2)
    for _ in range(RUNS):
        scores, present = gaussian_canaries(rng, 1.7, spread=spread)
        assert mu_interval(guess(scores, present, threshold=0.85), error=1e-3)[0] > 1.7


def test_an_attack_that_errs_never_has_no_upper_bound_and_a_finite_lower_one():
    low, high = mu_interval(Guesses(100, 100, 100, 0), error=1e-3)
    assert 2 < low < 6
    assert math.isinf(high)


def test_impossible_counts_are_refused():
    with pytest.raises(DataError, match="more was found than there is"):
        Guesses(10, 10, 11, 0)
    with pytest.raises(DataError, match="5 right of 4 guesses"):
        one_run_epsilon(correct=5, guesses=4, canaries=9, delta=0, error=0.1)


# --- epsilon from one run ---------------------------------------------------------------------------------


def slow_p_value(epsilon, correct, guesses, canaries, delta):
    """Steinke, Nasr & Jagielski 2023, appendix D, loop by loop."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))

    def mass(k):
        return math.comb(guesses, k) * q**k * (1 - q) ** (guesses - k)

    alpha = total = 0.0
    for i in range(1, correct + 1):
        total += mass(correct - i)
        alpha = max(alpha, total / i)
    return min(sum(mass(k) for k in range(correct, guesses + 1)) + alpha * delta * 2 * canaries, 1.0)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.0, 1e-4, 1e-2]))
def test_the_one_run_bound_is_where_the_papers_p_value_crosses_the_error(guesses, missed, more, delta):
    correct = max(guesses - missed, 0)
    canaries = guesses + more
    bound = one_run_epsilon(correct=correct, guesses=guesses, canaries=canaries, delta=delta, error=0.05)
    if bound == 0:
        assert slow_p_value(0.0, correct, guesses, canaries, delta) > 0.05 * (1 - 1e-6)
    else:
        assert slow_p_value(bound - 1e-6, correct, guesses, canaries, delta) <= 0.05 * (1 + 1e-5)
        assert slow_p_value(bound + 1e-6, correct, guesses, canaries, delta) >= 0.05 * (1 - 1e-5)


def test_the_one_run_bound_of_the_papers_perfect_guesser():
    # Without delta, v = r right guesses: q^r = error, so epsilon = -log(error^(-1/r) - 1).
    expected = -math.log(0.05 ** (-1 / 100) - 1)
    found = one_run_epsilon(correct=100, guesses=100, canaries=100, delta=0.0, error=0.05)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_one_run_bound_is_above_the_truth_as_seldom_as_stated(epsilon):
    """Randomised response is the worst case of the theorem: each guess is right with e^eps / (1 + e^eps)."""
    rng = np.random.default_rng(3)
    right = rng.binomial(500, 1 / (1 + math.exp(-epsilon)), RUNS)
    bounds = [one_run_epsilon(correct=c, guesses=500, canaries=500, delta=0.0, error=0.05) for c in right]
    assert sum(b > epsilon for b in bounds) < 20  # as above
    assert np.median(bounds) > 0.8 * epsilon


@pytest.mark.parametrize("mu", [0.5, 1.7])
def test_the_one_run_bound_of_gaussian_noise_is_below_its_epsilon_and_not_empty(mu):
    rng = np.random.default_rng(4)
    guesses = best_guesses(mu, canaries=2000, delta=DELTA, error=1e-3)
    bounds = []
    for _ in range(RUNS // 4):
        scores, present = gaussian_canaries(rng, mu, canaries=2000)
        right = surest(scores, present, guesses=guesses, threshold=mu / 2)
        bounds.append(one_run_epsilon(correct=right, guesses=guesses, canaries=2000, delta=DELTA, error=1e-3))
    assert max(bounds) <= epsilon_of(mu, DELTA)
    assert np.median(bounds) > 0.1 * epsilon_of(mu, DELTA)


@pytest.mark.parametrize("spread", [0.1, 0.0])
def test_noise_that_is_too_small_is_found_in_one_run(spread):
    rng = np.random.default_rng(5)
    guesses = best_guesses(0.5, canaries=2000, delta=DELTA, error=1e-3)
    for _ in range(20):
        scores, present = gaussian_canaries(rng, 0.5, canaries=2000, spread=spread)
        right = surest(scores, present, guesses=guesses, threshold=0.25)
        found = one_run_epsilon(correct=right, guesses=guesses, canaries=2000, delta=DELTA, error=1e-3)
        assert found > epsilon_of(0.5, DELTA)


def test_the_surest_guesses_are_those_furthest_from_the_threshold():
    scores = np.array([0.9, 0.1, 0.55, -3.0])
    present = np.array([True, True, True, False])
    assert [surest(scores, present, guesses=k, threshold=0.5) for k in range(5)] == [0, 1, 2, 2, 3]


# --- what an audit can see --------------------------------------------------------------------------------


@pytest.mark.parametrize("canaries", [500, 8000])
def test_a_fault_of_the_stated_size_shows_about_half_the_time_and_twice_the_fault_always(canaries):
    rng = np.random.default_rng(6)
    share = smallest_fault(1.0, canaries=canaries, error=1e-3)

    def shown(spread):
        drawn = (gaussian_canaries(rng, 1.0, canaries=canaries, spread=spread) for _ in range(100))
        return np.mean([mu_interval(guess(s, p, threshold=0.5), error=1e-3)[0] > 1.0 for s, p in drawn])

    assert 0.25 < shown(share) < 0.75
    assert shown(1.0) == 0.0
    assert shown(share / 2) > 0.95


def test_more_canaries_see_smaller_faults_and_a_handful_sees_none():
    shares = [smallest_fault(1.0, canaries=n, error=1e-3) for n in (100, 1000, 10_000)]
    assert 0 < shares[0] < shares[1] < shares[2] < 1
    assert smallest_fault(3.0, canaries=10, error=1e-3) is None


# --- membership ------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=25))
def test_the_area_is_the_share_of_pairs_in_the_right_order(drawn):
    scores = np.array([score for score, _ in drawn], dtype=float)
    members = np.array([member for _, member in drawn])
    inside, outside = scores[members], scores[~members]
    if not len(inside) or not len(outside):
        with pytest.raises(DataError, match="needs members and others"):
            area(scores, members)
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(inside, outside)]
    assert area(scores, members) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_area_and_rate_of_a_gaussian_mechanism_are_its_bounds():
    rng = np.random.default_rng(7)
    scores, members = gaussian_canaries(rng, 1.7, canaries=200_000)
    assert area(scores, members) == pytest.approx(area_bound(1.7), abs=0.005)  # four standard errors
    found = true_positive_rate(scores, members, false_positives=0.01)
    assert found == pytest.approx(true_positives(1.7, false_positives=0.01), abs=0.025)


def test_the_rate_is_taken_where_no_more_than_the_allowed_others_are_above():
    scores = np.concatenate([np.arange(100.0), [98.5, 99.5, 10.0, 97.0]])
    members = np.arange(104) >= 100
    # Of 100 others, one (99) may be above the threshold, 98.
    assert true_positive_rate(scores, members, false_positives=0.01) == 0.5


def test_the_error_of_the_area_is_its_spread():
    rng = np.random.default_rng(8)
    areas, errors = [], []
    for _ in range(100):
        members = rng.random((40, 12)) < 0.5
        scores = members + rng.normal(size=members.shape)
        areas.append(area(scores, members))
        errors.append(area_error(scores, members))
    # The spread of 100 draws is known to 7 %, each error to about 25 %.
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.35)
    with pytest.raises(DataError, match="needs two repeats"):
        area_error(np.ones((1, 4)), np.array([[True, False, True, False]]))


def membership_trial(rng, *, noise, repeats=300, children=10, dimension=30):
    rows = rng.normal(size=(children, dimension))
    members = rng.random((repeats, children)) < 0.5
    totals = members @ rows + noise * rng.normal(size=(repeats, dimension))
    return membership_scores(rows, totals, members), members


def test_children_in_exact_sums_are_found_and_noise_hides_them():
    rng = np.random.default_rng(9)
    areas = [area(*membership_trial(rng, noise=noise)) for noise in (0.0, 10.0, 1000.0)]
    assert areas[0] > 0.95
    assert areas[0] > areas[1] > areas[2]
    assert areas[2] == pytest.approx(0.5, abs=0.03)


def test_the_membership_attack_stays_below_the_bound_of_its_noise():
    rng = np.random.default_rng(10)
    rows = rng.normal(size=(10, 30))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    members = rng.random((2000, 10)) < 0.5
    totals = members @ rows + rng.normal(size=(2000, 30)) / 1.5
    found = area(membership_scores(rows, totals, members), members)
    assert 0.7 < found < area_bound(1.5)


def slow_membership_score(rows, totals, members, repeat, child):
    others = [r for r in range(len(totals)) if r != repeat and not members[r, child]]
    expected = [float(totals[r] @ rows[child]) for r in others]
    return (totals[repeat] @ rows[child] - np.mean(expected)) / np.std(expected)


def test_a_score_compares_a_childs_product_with_those_of_other_sums_without_it():
    rng = np.random.default_rng(11)
    rows, totals = rng.normal(size=(3, 4)), rng.normal(size=(12, 4)) + 50.0
    members = rng.random((12, 3)) < 0.5
    expected = [[slow_membership_score(rows, totals, members, r, i) for i in range(3)] for r in range(12)]
    assert membership_scores(rows, totals, members) == pytest.approx(np.array(expected), rel=1e-8)


def test_sums_that_tell_nothing_give_members_and_others_the_same_scores():
    """Few sums: were a sum compared with itself, those left out would look more ordinary than members."""
    rng = np.random.default_rng(12)
    areas, rates = [], []
    for _ in range(300):
        rows, totals = rng.normal(size=(10, 30)), rng.normal(size=(32, 30))
        members = rng.random((32, 10)) < 0.5
        scores = membership_scores(rows, totals, members)
        areas.append(area(scores, members))
        rates.append(true_positive_rate(scores, members, false_positives=0.05))
    # Of 300: standard errors below 0.003; the rate is that of one false alarm in twenty, or just less.
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)
    assert np.mean(rates) == pytest.approx(0.05, abs=0.012)


def test_scores_need_sums_without_the_child_and_a_row_of_zeros_scores_nothing():
    few = np.array([[True, False]] * 2 + [[False, True]] * 4)
    with pytest.raises(DataError, match="in nearly all sums"):
        membership_scores(np.eye(2), np.ones((6, 2)), few)
    enough = np.array([[True, False], [False, True]] * 3)
    assert not membership_scores(np.zeros((2, 2)), np.ones((6, 2)), enough).any()
    assert not membership_scores(np.eye(2), np.ones((6, 2)), enough).any()


def test_the_area_bound_is_the_area_under_the_trade_off_curve():
    grid = (np.arange(20_000) + 0.5) / 20_000
    curve = [true_positives(1.2, false_positives=float(p)) for p in grid]
    assert area_bound(1.2) == pytest.approx(np.mean(curve), abs=1e-5)
    assert area_bound(0.0) == 0.5
    assert delta_of(1.2, 0.0) == pytest.approx(2 * ndtr(0.6) - 1)
