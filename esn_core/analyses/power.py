"""What a planned study could find: the power of its comparisons, and what sites that differ do to its p."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from esn_core.analyses.neurocognition import kinds_of, models_of, rivals, rules_of
from esn_core.arrays import Floats
from esn_core.protocol.expected_noise import noise_of_sum
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.intervals import Z_95
from esn_core.statistics.logistic_sums import LOGIT_CLIP, largest_loss

SEVERITY_IN_GASE, SEVERITY_IN_PREDICTION = 0.8, 0.9
"""Correlations with true severity of a clinical score, and of a prediction that is truly better."""
LOG_ODDS = 1.2
"""Of impairment, per standard deviation of true severity."""
SHARE_IMPAIRED = 1 / 3

_CHILDREN = 40_000
_STEPS = 12


@dataclass(frozen=True)
class Power:
    """The power of one planned comparison.

    Attributes
    ----------
    outcome : str
    others : tuple of str
        What both models hold besides the severity.
    primary : bool
    alone : float
        Chance that Vuong's test finds a truly better prediction at 5 %.
    held : float
        The same, at the least that Holm's method leaves one of the others; of a primary one, `alone`.

    """

    outcome: str
    others: tuple[str, ...]
    primary: bool
    alone: float
    held: float


def powers_of(protocol: Protocol, *, children: int) -> tuple[Power, ...]:
    """Return the power of each comparison of a protocol that asks for models of neurocognition.

    Parameters
    ----------
    protocol : Protocol
    children : int
        Held-out children whose scores are known.

    """
    kinds, rules = kinds_of(protocol), rules_of(protocol)
    noise = 0.0 if kinds.exact else noise_of_sum(protocol, kinds.comparison) * largest_loss(LOGIT_CLIP)
    models = models_of(protocol)
    found = []
    for predicted, _ in rivals(models):
        model = models[predicted]
        primary = (
            rules.primary is not None
            and rules.primary.outcome == model.outcome.name
            and frozenset(rules.primary.others) == model.others
        )
        found.append((model.outcome.name, tuple(sorted(model.others)), primary))
    shared = sum(not primary for *_, primary in found)
    alone = power_of(children, noise_sd=noise)
    return tuple(
        Power(
            name,
            others,
            primary,
            alone,
            alone if primary else power_of(children, noise_sd=noise, level=0.05 / shared),
        )
        for name, others, primary in found
    )


def power_of(children: int, *, noise_sd: float = 0.0, level: float = 0.05) -> float:
    """Return the chance that Vuong's test finds a truly better prediction, and calls it the better one.

    The mean and the variance of a child's difference of log-likelihoods are those of a large cohort; the
    power is that of a normal test, as statsmodels computes it. Under noise the test divides by more than the
    sum varies by (`esn_core.statistics.model_comparison.vuong_test`), and so is the level here. What noise in
    the models' own coefficients takes comes on top: the power is no larger than this.

    Parameters
    ----------
    children : int
    noise_sd : float
        Of the sum of the differences, in units of the log-likelihood.
    level : float
        Of both sides.

    """
    # Imported here: statsmodels takes a second, and most programs plan nothing.
    from statsmodels.stats.power import normal_power

    mean, variance = _advantage()
    varies = math.sqrt(variance + noise_sd**2 / children)
    more = (noise_sd**2 + Z_95 * noise_sd * largest_loss(LOGIT_CLIP)) / children
    divided_by = math.sqrt(variance + more)
    side = float(ndtr(ndtri(level / 2) * divided_by / varies))
    return float(normal_power(mean / varies, children, side, alternative="larger"))


@lru_cache(maxsize=1)
def _advantage() -> tuple[float, float]:
    """Return mean and variance of what a child's log-likelihood gains by the better score."""
    rng = np.random.default_rng(0)
    severity, *errors = rng.normal(size=(3, _CHILDREN))
    intercept = -math.log(1 / SHARE_IMPAIRED - 1) * math.sqrt(1 + LOG_ODDS**2 / 2.9)
    y = (rng.random(_CHILDREN) < 1 / (1 + np.exp(-intercept - LOG_ODDS * severity))).astype(np.float64)
    gained = [
        _log_likelihoods(r * severity + math.sqrt(1 - r**2) * error, y)
        for r, error in zip((SEVERITY_IN_PREDICTION, SEVERITY_IN_GASE), errors, strict=True)
    ]
    apart = gained[0] - gained[1]
    return float(apart.mean()), float(apart.var())


def _log_likelihoods(score: Floats, y: Floats) -> Floats:
    """Return each child's log-likelihood under the logistic model of its outcome on a score."""
    x, beta = np.column_stack([np.ones(len(score)), score]), np.zeros(2)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-x @ beta))
        beta = beta + np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]), x.T @ (y - p))
    logit: Floats = x @ beta
    found: Floats = y * logit - np.logaddexp(0.0, logit)
    return found


def false_positives(children: int, sites: int, *, between_sites: float) -> float:
    """Return how often a test at 5 % that knows no site finds what is not there.

    Where a share of the variance of both of two quantities lies between sites, and nothing goes along within
    them, the variance of their correlation is larger by 1 + (m - 1) i j for m children a site and shares
    i and j (Scott & Holt 1982, Journal of the American Statistical Association 77:848).

    Parameters
    ----------
    children, sites : int
    between_sites : float
        The share of the variance that lies between sites, of both.

    """
    larger = 1 + max(children / sites - 1, 0.0) * between_sites**2
    return float(2 * ndtr(-Z_95 / math.sqrt(larger)))
