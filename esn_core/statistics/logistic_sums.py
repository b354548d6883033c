"""Newton steps of logistic models: what each child adds to the sums, and what the sums say."""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats, product_by_rows
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind, clip_rows

LOGIT_CLIP = 6.0
"""Largest linear predictor of a logistic model under noise: odds of 400 to 1."""

EXACT_LOGIT_CLIP = 30.0
"""Largest linear predictor where no noise is added.

A child beyond it has a probability within 1e-13 of 0 or 1: a model that says so of its own children runs
away, and Firth's estimate of `esn_core.statistics.logistic_exact` stands in its place."""

LARGEST_COEFFICIENT = 1000.0
"""Largest coefficient that sums are asked at.

Features lie within -1 and 1, so that it moves the linear predictor from one end to the other, over twice the
wider clip, within 6 % of half a feature's range. Children that ask for more are separated. The rounding of a
linear predictor stays below 1e-10, whatever cancels."""

# Of a row's first two numbers: the child itself, and its outcome.
_COUNT = 0.5


def largest_loss(logit_clip: float) -> float:
    """Return the largest negative log-likelihood of one child, log(1 + e^clip)."""
    return math.log1p(math.exp(logit_clip))


_LARGEST_THIRD = math.sqrt(3) / 36
"""Of |p (1 - p) (1/2 - p)|, at p = 1/2 - 1/sqrt(12)."""


def newton_dimension(features: int, *, thirds: bool = False) -> int:
    """Return the length of a row of `newton` for a model with so many features."""
    third = features * (features + 1) * (features + 2) // 6 if thirds else 0
    return 2 + features * (features + 1) // 2 + features + 1 + third


def newton(features: int, *, feature_norm: float, thirds: bool = False, name: str = "newton") -> ReleaseKind:
    """Describe one Newton step of a logistic model with `features` features, intercept included.

    Row: (1/2, y/2, w x_i x_j for i <= j, (y - p) x, c l / l_max) for a child with features x,
    |x| <= c = feature_norm, outcome y and probability p. The first two are at most 1/2 together, squared;
    w = p (1 - p) <= 1/4, so the third part is at most c^2 / 4; |y - p| <= 1, so the fourth is at most c; the
    log-likelihood l is at least -l_max = -log(1 + e^clip), as the linear predictor is clipped, so the last
    is at most c. Together sqrt(1/2 + (c^2/4)^2 + 2 c^2), whatever the clip. A child whose features or
    outcome are not known adds zeros.

    With `thirds` the row ends with w (1/2 - p) x_i x_j x_k for i <= j <= k, of which Firth's penalty needs
    the sum: at most sqrt(3) / 36 c^3 long, as |w (1/2 - p)| <= sqrt(3) / 36.
    """
    square = 2 * _COUNT**2 + (feature_norm**2 / 4) ** 2 + 2 * feature_norm**2
    square += (_LARGEST_THIRD * feature_norm**3) ** 2 if thirds else 0.0
    return ReleaseKind(name, "held-out", newton_dimension(features, thirds=thirds), math.sqrt(square))


def newton_rows(
    features: Floats,
    outcome: NDArray[np.bool_] | Floats,
    *,
    coefficients: Floats,
    feature_norm: float,
    logit_clip: float = LOGIT_CLIP,
    thirds: bool = False,
) -> Floats:
    """Return the rows of `newton` at given coefficients.

    Parameters
    ----------
    features : (n, p) float64
        The first is the intercept, 1. Rows longer than `feature_norm` are scaled down to it.
    outcome : (n,) bool or float64
        Whether the child is impaired; NaN where that is not known.
    coefficients : (p,) float64
    feature_norm : float
    logit_clip : float
    thirds : bool
        Whether Firth's penalty will be needed.

    Returns
    -------
    (n, `newton_dimension`) float64

    """
    known, x, y = _complete(features, outcome, feature_norm)
    logit = linear_predictor(x, coefficients, logit_clip=logit_clip)
    p = 1 / (1 + np.exp(-logit))
    i, j = np.triu_indices(features.shape[1])
    curvature = (p * (1 - p))[:, None] * x[:, i] * x[:, j]
    likelihood = feature_norm * _log_likelihood(logit, y) / largest_loss(logit_clip)
    counts = _COUNT * np.column_stack([np.ones(len(y)), y])
    third = []
    if thirds:
        a, b, c = _triples(features.shape[1])
        third = [(p * (1 - p) * (0.5 - p))[:, None] * (x[:, a] * x[:, b] * x[:, c])]
    rows = np.column_stack([counts, curvature, (y - p)[:, None] * x, likelihood, *third])
    return np.where(known[:, None], rows, 0.0)


def log_likelihoods(
    features: Floats,
    outcome: NDArray[np.bool_] | Floats,
    *,
    coefficients: Floats,
    feature_norm: float,
    logit_clip: float = LOGIT_CLIP,
) -> Floats:
    """Return each child's (n,) log-likelihood, between -log(1 + e^clip) and 0; NaN where it is not known."""
    known, x, y = _complete(features, outcome, feature_norm)
    logit = linear_predictor(x, coefficients, logit_clip=logit_clip)
    return np.where(known, _log_likelihood(logit, y), np.nan)


@dataclass(frozen=True)
class NewtonSums:
    """What a sum of `newton_rows` says.

    Attributes
    ----------
    children, positives : float
        Not whole numbers when noise was added.
    curvature : (p, p) float64
        X'WX, symmetric.
    score : (p,) float64
        X'(y - p).
    log_likelihood : float
    thirds : (p, p, p) float64 or None
        Sum of w (1/2 - p) x_i x_j x_k, where rows have it.

    """

    children: float
    positives: float
    curvature: Floats
    score: Floats
    log_likelihood: float
    thirds: Floats | None = None

    @classmethod
    def read(
        cls, total: Floats, features: int, *, feature_norm: float, logit_clip: float, thirds: bool = False
    ) -> "NewtonSums":
        """Take a sum of rows apart.

        Raises
        ------
        DataError
            It has another length, or holds a number that is not finite.

        """
        wanted = newton_dimension(features, thirds=thirds)
        if total.shape != (wanted,) or not np.isfinite(total).all():
            raise DataError(
                f"a Newton sum of {features} features holds {wanted} finite numbers, not {total.shape}"
            )
        pairs = features * (features + 1) // 2
        curvature = np.zeros((features, features))
        curvature[np.triu_indices(features)] = total[2 : 2 + pairs]
        last = 2 + pairs + features
        third = None
        if thirds:
            third = np.zeros((features, features, features))
            for order in permutations(_triples(features)):
                third[order] = total[last + 1 :]
        return cls(
            children=float(total[0]) / _COUNT,
            positives=float(total[1]) / _COUNT,
            curvature=curvature + np.triu(curvature, 1).T,
            score=np.array(total[2 + pairs : last]),
            log_likelihood=float(total[last]) * largest_loss(logit_clip) / feature_norm,
            thirds=third,
        )


def _triples(features: int) -> tuple[NDArray[np.int64], ...]:
    """Return i, j, k of all i <= j <= k."""
    return tuple(np.array(list(combinations_with_replacement(range(features), 3)), dtype=np.int64).T)


def _complete(
    features: Floats, outcome: NDArray[np.bool_] | Floats, feature_norm: float
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Return which children are complete, their clipped features, and their outcome as 0 or 1."""
    y = np.asarray(outcome, dtype=np.float64)
    known = np.isfinite(features).all(axis=1) & ~np.isnan(y)
    return known, clip_rows(features, feature_norm), (y > 0.5).astype(np.float64)


def linear_predictor(x: Floats, coefficients: Floats, *, logit_clip: float) -> Floats:
    """Return each child's (n,) linear predictor, held to the clip; computed from that child alone."""
    return np.clip(np.nan_to_num(product_by_rows(x, coefficients)), -logit_clip, logit_clip)


def _log_likelihood(logit: Floats, y: Floats) -> Floats:
    loss: Floats = np.logaddexp(0.0, np.where(y > 0.5, -logit, logit))
    return -loss
