"""Attacks on released sums, and what their success proves about the noise.

A canary is an invented child whose row is as long as a row may be; a coin
decides whether it takes part. Whoever guesses these coins from what was
released better than the claimed privacy allows has shown that the claim is
false. Two bounds are drawn from the guesses: one that holds for any mechanism
(Steinke, Nasr & Jagielski 2023, arXiv:2305.08846), and a sharper one for noise
that is independent and Gaussian (Nasr et al. 2023, arXiv:2302.07956).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import beta, binom, rankdata

from esn_core.errors import DataError

# One-run bounds above this say no more than that there is no noise.
_LARGEST_EPSILON = 50.0
_BISECTIONS = 40
_SHARES_GUESSED = np.geomspace(0.01, 1.0, 25)
# Groups of repeats that are left out in turn, for the standard error of an area.
_GROUPS = 10


@dataclass(frozen=True)
class Guesses:
    """How often an attack said 'present' at one threshold.

    Attributes
    ----------
    present, absent : int
        Children, or canaries, that took part and that did not.
    found : int
        Of `present`, those that were said to be present.
    false_alarms : int
        Of `absent`, those that were said to be present.

    """

    present: int
    absent: int
    found: int
    false_alarms: int

    def __post_init__(self) -> None:
        if not (0 <= self.found <= self.present and 0 <= self.false_alarms <= self.absent):
            raise DataError(f"{self} cannot be: more was found than there is")


def guess(scores: NDArray[np.float64], present: NDArray[np.bool_], *, threshold: float) -> Guesses:
    """Say 'present' wherever the score is above `threshold`, which was chosen without the scores."""
    said = scores > threshold
    return Guesses(
        present=int(present.sum()),
        absent=int((~present).sum()),
        found=int((said & present).sum()),
        false_alarms=int((said & ~present).sum()),
    )


def mu_interval(guesses: Guesses, *, error: float) -> tuple[float, float]:
    """Bound the Gaussian-DP parameter of a mechanism from below, and this attack's from above.

    A mu-GDP mechanism allows no test with ``ndtri(found) - ndtri(false alarms) > mu``
    (Dong, Roth & Su 2022, definition 3). Both rates are bounded by Clopper & Pearson (1934).

    Parameters
    ----------
    guesses : Guesses
        Of independent trials.
    error : float
        Probability with which each of the two bounds may be wrong.

    Returns
    -------
    low : float
        At least 0. The mechanism is not mu-GDP for any smaller mu.
    high : float
        What this test reaches at most; infinite when it made no mistake.

    """
    found = _rate_interval(guesses.found, guesses.present, error / 2)
    false_alarms = _rate_interval(guesses.false_alarms, guesses.absent, error / 2)
    low = float(ndtri(found[0]) - ndtri(false_alarms[1]))
    high = float(ndtri(found[1]) - ndtri(false_alarms[0]))
    return max(low, 0.0), high


def one_run_epsilon(*, correct: int, guesses: int, canaries: int, delta: float, error: float) -> float:
    """Return a lower bound on epsilon from guesses about independent coins.

    Steinke, Nasr & Jagielski 2023, theorem 5.2 and the algorithm of their
    appendix D. It holds for any mechanism, whatever the dependence between canaries.

    Parameters
    ----------
    correct : int
        Right guesses.
    guesses : int
        Canaries guessed about; about the others the attack abstained. Fixed beforehand.
    canaries : int
    delta : float
        Far below ``1 / canaries``, or the bound says nothing.
    error : float
        Probability with which the bound may be above the truth.

    """
    if not 0 <= correct <= guesses <= canaries:
        raise DataError(f"{correct} right of {guesses} guesses about {canaries} canaries cannot be")
    if _p_value(0.0, correct, guesses, canaries, delta) > error:
        return 0.0
    low, high = 0.0, _LARGEST_EPSILON
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _p_value(middle, correct, guesses, canaries, delta) <= error:
            low = middle
        else:
            high = middle
    return low


def _p_value(epsilon: float, correct: int, guesses: int, canaries: int, delta: float) -> float:
    """Bound the probability of so many right guesses under (epsilon, delta)-DP."""
    q = 1 / (1 + np.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, q))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, q))
    excess = float((below / np.arange(1, correct + 1)).max(initial=0.0))
    return min(tail + 2 * canaries * delta * excess, 1.0)


def best_guesses(mu: float, *, canaries: int, delta: float, error: float) -> int:
    """Return about how many canaries to guess if the claim were true: as many as prove most.

    Fewer guesses are surer, more guesses weigh more. The choice uses the
    claimed `mu` alone, so that `one_run_epsilon` may rely on it. Where nothing
    is likely to be proven, it is the number that tells most of epsilon 0.
    """
    counts: list[int] = sorted({max(1, round(share * canaries)) for share in _SHARES_GUESSED.tolist()})

    def proven(count: int) -> tuple[float, float]:
        right = int(_expected_accuracy(mu, count / canaries) * count)
        bound = one_run_epsilon(correct=right, guesses=count, canaries=canaries, delta=delta, error=error)
        return bound, -_p_value(0.0, right, count, canaries, delta)

    return max(counts, key=proven)


def _expected_accuracy(mu: float, share: float) -> float:
    """Return how often the surest `share` of guesses is right, for scores N(mu/2, 1) or N(-mu/2, 1)."""
    low, high = 0.0, 20.0 + mu
    for _ in range(_BISECTIONS):
        cut = (low + high) / 2
        low, high = (cut, high) if ndtr(mu / 2 - cut) + ndtr(-mu / 2 - cut) > share else (low, cut)
    return float(ndtr(mu / 2 - low) / (ndtr(mu / 2 - low) + ndtr(-mu / 2 - low)))


def surest(scores: NDArray[np.float64], present: NDArray[np.bool_], *, guesses: int, threshold: float) -> int:
    """Guess about the `guesses` canaries whose scores lie furthest from `threshold`; count right guesses."""
    distance = scores - threshold
    chosen = np.argsort(-np.abs(distance), kind="stable")[:guesses]
    return int(((distance[chosen] > 0) == present[chosen]).sum())


def smallest_fault(mu: float, *, canaries: int, error: float) -> float | None:
    """Return the share of the claimed noise below which `mu_interval` would show the fault, typically.

    Returns
    -------
    float or None
        In (0, 1); None when not even missing noise would show.

    """
    half = canaries // 2

    def shows(share: float) -> bool:
        rate = float(ndtr(mu / 2 / share)) if share > 0 else 1.0
        typical = Guesses(half, half, round(rate * half), round((1 - rate) * half))
        return mu_interval(typical, error=error)[0] > mu

    if not shows(0.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if shows(middle) else (low, middle)
    return low


def membership_scores(
    rows: NDArray[np.float64], totals: NDArray[np.float64], members: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Score how much each child seems to be in each sum: its row times the sum.

    A child's products with other sums, that it was left out of, tell the
    attacker what to expect without it: their mean and spread make the scores of
    different children comparable (Homer et al. 2008; Carlini et al. 2022).

    Parameters
    ----------
    rows : (n, d) float64
    totals : (R, d) float64
        Released sums.
    members : (R, n) bool
        Whether the child was in the sum; everybody was left out of three sums or more.

    Returns
    -------
    (R, n) float64

    """
    if (~members).sum(axis=0).min() < 3:
        raise DataError("a child was in nearly all sums: there is nothing to compare its scores with")
    products = totals @ rows.T
    products = products - products.mean(axis=0)  # so that the squares below lose no digits
    # A sum is compared with the others: without its own product, where that was one of them.
    outside = np.where(members, 0.0, products)
    count = (~members).sum(axis=0) - ~members
    mean = (outside.sum(axis=0) - outside) / count
    variance = np.maximum((np.square(outside).sum(axis=0) - np.square(outside)) / count - mean**2, 0.0)
    spread = np.sqrt(variance)
    # What is left of equal products after rounding is no spread.
    tiny = 1e-9 * np.abs(products).max(axis=0)
    return np.where(spread > tiny, (products - mean) / np.where(spread > tiny, spread, 1.0), 0.0)


def area(scores: NDArray[np.float64], members: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of `scores`, of any shape (Mann & Whitney 1947); 0.5 is a guess."""
    inside, outside = int(members.sum()), int((~members).sum())
    if not inside or not outside:
        raise DataError("the area under a ROC curve needs members and others")
    ranks = rankdata(scores.ravel())[members.ravel()]
    return float((ranks.sum() - inside * (inside + 1) / 2) / (inside * outside))


def area_error(scores: NDArray[np.float64], members: NDArray[np.bool_]) -> float:
    """Return the standard error of `area` for (R, n) scores of R repeats.

    Groups of repeats are left out in turn (jackknife, Tukey 1958): scores of one repeat share its noise.
    """
    groups = np.array_split(np.arange(len(scores)), min(_GROUPS, len(scores)))
    if len(groups) < 2:
        raise DataError(f"a standard error needs two repeats or more, not {len(scores)}")
    without = np.array([area(np.delete(scores, g, axis=0), np.delete(members, g, axis=0)) for g in groups])
    return float(np.sqrt((len(groups) - 1) * without.var()))


def true_positive_rate(
    scores: NDArray[np.float64], members: NDArray[np.bool_], *, false_positives: float
) -> float:
    """Return the share of members above the score that at most a share `false_positives` of others exceed."""
    outside = np.sort(scores[~members])[::-1]
    threshold = outside[int(false_positives * len(outside))]
    return float((scores[members] > threshold).mean())


def area_bound(mu: float) -> float:
    """Return the largest area under the ROC curve that a mu-GDP mechanism allows: that of its trade-off."""
    return float(ndtr(mu / np.sqrt(2.0)))


def _rate_interval(hits: int, trials: int, error: float) -> tuple[float, float]:
    """Return the interval of Clopper & Pearson; each end may be wrong with probability `error`."""
    low = float(beta.ppf(error, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - error, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high
