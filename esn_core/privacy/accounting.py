"""Gaussian mechanisms: what they cost together, and how much noise a budget asks for.

Every release of a study asks all children of one split, every time: full
participation, no subsampling. The composition of Gaussian mechanisms is then
itself a Gaussian mechanism, and its privacy is known exactly (Dong, Roth &
Su 2022, "Gaussian differential privacy", corollary 2.13 and theorem 2.7):

    mu = sqrt(sum of 1 / noise_multiplier^2)
    delta(epsilon) = Phi(-epsilon/mu + mu/2) - exp(epsilon) Phi(-epsilon/mu - mu/2)

The noise is the discrete Gaussian on a fine grid. `grid_delta` bounds what
that, and the sum of several sites' shares of it, may add to delta.

Four equal releases for a budget of epsilon 8; one of them alone costs less than half of it, not a quarter:

>>> noise = noise_multiplier_for(mu_for(8.0, 1e-3), share=1.0, releases=4)
>>> round(epsilon_of(compose([GaussianRelease(noise)] * 4), 1e-3), 6)
8.0
>>> round(epsilon_of(compose([GaussianRelease(noise)]), 1e-3), 2)
3.3
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from esn_core.errors import PrivacyBudgetError

NO_NOISE = 0.0
"""The noise multiplier of an exact release; its epsilon is infinite."""

# Epsilon above this says nothing; the search for it ends there.
_LARGEST_EPSILON = 1e4
_LARGEST_MU = 100.0


@dataclass(frozen=True)
class GaussianRelease:
    """One noisy release of a sum over all children of a split, as a fact.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation of the noise over the L2 sensitivity; 0 means that
        the sum left without noise.

    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise PrivacyBudgetError(
                f"a noise multiplier must be finite and not negative, not {self.noise_multiplier}"
            )


def compose(releases: Iterable[GaussianRelease]) -> float:
    """Return mu of all `releases` together; infinite when one is exact, 0 when there is none."""
    total = 0.0
    for release in releases:
        if release.noise_multiplier == NO_NOISE:
            return math.inf
        total += release.noise_multiplier**-2
    return math.sqrt(total)


def delta_of(mu: float, epsilon: float) -> float:
    """Return the smallest delta for which a mu-GDP mechanism is (epsilon, delta)-DP."""
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    first = math.exp(log_ndtr(-epsilon / mu + mu / 2))
    second = math.exp(epsilon + log_ndtr(-epsilon / mu - mu / 2))
    return max(first - second, 0.0)


def epsilon_of(mu: float, delta: float) -> float:
    """Return the smallest epsilon for which a mu-GDP mechanism is (epsilon, delta)-DP.

    Returns
    -------
    float
        Infinite when a release was exact.

    """
    _check_delta(delta)
    if math.isinf(mu):
        return math.inf
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    if delta_of(mu, _LARGEST_EPSILON) > delta:
        return math.inf
    return float(brentq(lambda e: delta_of(mu, e) - delta, 0.0, _LARGEST_EPSILON, xtol=1e-12, rtol=1e-14))


def replace_one_epsilon_of(mu: float, delta: float) -> float:
    """Return epsilon when a child's record may be exchanged for another's.

    An exchange is one removal and one addition: the sensitivity at most
    doubles, and so does mu.
    """
    return epsilon_of(2 * mu, delta)


def mu_for(epsilon: float, delta: float) -> float:
    """Return the largest mu whose mechanism is (epsilon, delta)-DP.

    Raises
    ------
    PrivacyBudgetError
        Epsilon is not positive, or delta is not inside (0, 1).

    """
    _check_delta(delta)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PrivacyBudgetError(f"epsilon must be positive and finite, not {epsilon}")
    return float(brentq(lambda mu: delta_of(mu, epsilon) - delta, 1e-9, _LARGEST_MU, xtol=1e-13, rtol=1e-14))


def noise_multiplier_for(mu: float, *, share: float, releases: int) -> float:
    """Return the noise multiplier of each of `releases` that spend a share of mu squared.

    Parameters
    ----------
    mu : float
        The whole budget.
    share : float
        The part of ``mu**2`` that these releases may spend together, in (0, 1].
    releases : int
        How many they are; each spends the same.

    """
    if not 0 < share <= 1:
        raise PrivacyBudgetError(f"a share of the budget lies in (0, 1], not {share}")
    if releases < 1:
        raise PrivacyBudgetError(f"a phase makes at least one release, not {releases}")
    return math.sqrt(releases / share) / mu


def true_positives(mu: float, *, false_positives: float) -> float:
    """Return the largest share of members that an attack finds, at a rate of false alarms.

    Dong, Roth & Su 2022, equation 6: the trade-off function of a mu-GDP mechanism.
    """
    if math.isinf(mu):
        return 1.0
    return float(ndtr(ndtri(false_positives) + mu))


def odds_in_words(epsilon: float) -> str:
    """Return e^epsilon, by which no attack changes the odds of one child more, as people read it."""
    if epsilon > math.log(1e4):
        return "more than 10,000"
    return f"{math.exp(epsilon):,.{0 if epsilon > math.log(10) else 1}f}"


def grid_delta(sd_units: float, *, dimension: int, shares: int) -> float:
    """Bound the distance between the noise that is added and a rounded continuous Gaussian.

    Rounding is post-processing, so the rounded Gaussian has the privacy of the
    continuous one; every release adds at most ``(1 + exp(epsilon))`` times this
    total variation distance to delta.

    A discrete Gaussian of standard deviation s has at x the probability of the
    rounded one but for a factor 1 + (x^2/s^2 - 1) / (24 s^2) + O(s^-4): the
    distance is below 1 / (12 s^2) in each number. A sum of m discrete Gaussians
    differs from one by a factor of at most exp(10 m exp(-pi^2 s^2)) in each
    number (Kairouz, Liu & Steinke 2021, arXiv:2102.06387, theorem 5, whose
    largest exponent is the one of k = 1).

    Parameters
    ----------
    sd_units : float
        Of one share, in steps of the grid.
    dimension : int
        Numbers in the release.
    shares : int
        Sites whose noise is added up.

    """
    rounding = 1 / (12 * sd_units**2)
    adding = math.expm1(min(10 * (shares - 1) * math.exp(-(math.pi**2) * sd_units**2), 1.0))
    return dimension * (rounding + adding)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyBudgetError(f"delta lies between 0 and 1, not {delta}")
