"""What may leave a site: sums of one bounded row per child.

A release is described by the row that one child adds to it. The gate adds up
a child's rows, clips the result to `l2_bound` in Euclidean norm whatever it
was given, and sums over the children. So adding or removing one child changes
the sum by at most `l2_bound`: this is the L2 sensitivity of every release. Its
proof asks of the code that computed the rows only that a child's row is
computed from that child alone. The bounds below are chosen so that the clip
changes nothing when the rows are as they should be.

Severity is standardised with public numbers: y = (GASE - 4) / 1.5.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError

Children = Literal["training", "held-out"]
CHILDREN: tuple[Children, ...] = ("training", "held-out")

GASE_LEVELS = (1, 2, 3, 4, 5, 6, 7)
GASE_MIDDLE = 4.0
GASE_UNIT = 1.5
SEVERITY_CLIP = 2.0
"""Largest standardised severity: GASE 1 and 7 lie exactly there."""

RESIDUAL_CLIP = 0.8
"""Largest distance of a standardised severity from its mean.

Noise grows with the clip, and what a child beyond it would have added does not:
0.8 gives more of the truth at every budget than 1.3 did (decision 0051)."""

PREDICTION_CLIP = 2.5
"""Largest standardised raw prediction in the calibration sums."""

LOSS_CLIP = 4.0
"""Largest squared error of one child in the learning curve, in standardised units."""

# The learning curve's coordinate is a quarter as long as the gradient: it raises
# the noise on the gradient by 3 % and no more.
_LOSS_SHARE = 0.25

HALF_RANGE = 3.0
"""Steps of GASE from the middle of the scale to its ends."""

# A site's sum takes 52 bits at most, so that those of 512 sites with their noise fit int64.
_SUM_BITS = 52
_CHILDREN_BITS = 12


@dataclass(frozen=True)
class ReleaseKind:
    """A sum that may leave a site.

    Attributes
    ----------
    name : str
        As it stands in the ledger and in the question id.
    children : {'training', 'held-out'}
        Whose rows are summed.
    dimension : int
        Length of a row, and of the sum.
    l2_bound : float
        Largest Euclidean norm of one child's row: the sensitivity of the sum
        when a child is added or removed. The gate holds every row to it.

    """

    name: str
    children: Children
    dimension: int
    l2_bound: float

    @property
    def fraction_bits(self) -> int:
        """Binary places of the fixed-point grid on which the sum is formed.

        As fine as the bound allows: the rows of 4,096 children of one site, all at the
        bound and all alike, still fit 52 bits.
        """
        return _SUM_BITS - _CHILDREN_BITS - math.ceil(math.log2(self.l2_bound))

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise DataError(f"release {self.name}: a row has at least one number, not {self.dimension}")
        # Beyond these, the grid would have no place after the point, or no place before it.
        if not 2.0**-20 <= self.l2_bound <= 2.0**30:
            raise DataError(
                f"release {self.name}: the bound must lie between 2^-20 and 2^30, not {self.l2_bound}"
            )


def standardise_severity(gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return y = (GASE - 4) / 1.5, clipped to [-2, 2]."""
    return np.clip((gase - GASE_MIDDLE) / GASE_UNIT, -SEVERITY_CLIP, SEVERITY_CLIP)


def age_and_sex(age_years: NDArray[np.float64], sex: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 2): age in decades from 10 years, and sex as -1/2 (girls) and 1/2: covariates of edges."""
    return np.column_stack([(age_years - 10) / 10, sex - 0.5])


# --- select, first question: how many children, and their mean severity -------------------------


CENTRE = ReleaseKind("centre", "training", 2, math.sqrt(1 + SEVERITY_CLIP**2))
"""Row (1, y); |y| <= 2, so its norm is at most sqrt(5)."""


def centre_rows(gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 2) rows of `CENTRE`."""
    return np.column_stack([np.ones(len(gase)), standardise_severity(gase)])


# --- select, second question: edge by severity ----------------------------------------------------


def association(candidates: int) -> ReleaseKind:
    """Describe the association of `candidates` edges, or blocks of edges, with severity.

    Row: z (clipped to norm sqrt(candidates)) times y - mean (clipped to 0.8),
    so its norm is at most 0.8 sqrt(candidates).
    """
    return ReleaseKind("association", "training", candidates, RESIDUAL_CLIP * math.sqrt(candidates))


def association_rows(
    scores: NDArray[np.float64], gase: NDArray[np.float64], *, mean_severity: float
) -> NDArray[np.float64]:
    """Return the (n, d) rows of `association`.

    Parameters
    ----------
    scores : (n, d) float64
        Of the candidates (`esn_core.severity_network.candidates.Candidates.features`).
    gase : (n,) float64
    mean_severity : float
        Mean standardised severity, as released by the question before.

    """
    residual = np.clip(standardise_severity(gase) - mean_severity, -RESIDUAL_CLIP, RESIDUAL_CLIP)
    return clip_rows(scores, math.sqrt(scores.shape[1])) * residual[:, None]


# --- train ------------------------------------------------------------------------------------------


def gradient(parameters: int, *, max_gradient_norm: float) -> ReleaseKind:
    """Describe one full-batch step: the clipped gradient and the clipped loss of each child.

    Row: (g, s c l): |g| <= c = max_gradient_norm, l in [0, 1] is the loss over
    its clip, s = 1/4. The norm is at most c sqrt(1 + s^2).
    """
    bound = max_gradient_norm * math.sqrt(1 + _LOSS_SHARE**2)
    return ReleaseKind("gradient", "training", parameters + 1, bound)


def local_update(parameters: int, *, max_gradient_norm: float) -> ReleaseKind:
    """Describe several local steps of one site, weighted by its children.

    Row: (u, s c l, 1), for each child the site's own u, clipped to norm c, and the child's loss l: their sum
    is u times the number of children, and that number, so that the mean is over the sites that answered. The
    norm is at most sqrt(c^2 (1 + s^2) + 1). The rows are not of one child each: a sum without noise only.
    """
    bound = math.hypot(max_gradient_norm * math.sqrt(1 + _LOSS_SHARE**2), 1.0)
    return ReleaseKind("local-update", "training", parameters + 2, bound)


def local_update_rows(
    update: NDArray[np.float64], losses: NDArray[np.float64], *, max_gradient_norm: float
) -> NDArray[np.float64]:
    """Return the (n, parameters + 2) rows of `local_update`.

    Parameters
    ----------
    update : (parameters,) float64
        What the site's steps add up to over their learning rate, against the gradient's direction.
    losses : (n,) float64
        Squared error of each child before the steps, in standardised units.
    max_gradient_norm : float

    """
    same = np.tile(update, (len(losses), 1))
    rows = gradient_rows(same, losses, max_gradient_norm=max_gradient_norm)
    return np.column_stack([rows, np.ones(len(losses))])


def gradient_rows(
    gradients: NDArray[np.float64], losses: NDArray[np.float64], *, max_gradient_norm: float
) -> NDArray[np.float64]:
    """Return the (n, parameters + 1) rows of `gradient`.

    Parameters
    ----------
    gradients : (n, parameters) float64
        Gradient of each child's loss.
    losses : (n,) float64
        Squared error of each child, in standardised units.
    max_gradient_norm : float

    """
    curve = _LOSS_SHARE * max_gradient_norm * np.clip(losses, 0, LOSS_CLIP) / LOSS_CLIP
    return np.column_stack([clip_rows(gradients, max_gradient_norm), curve])


def mean_loss(total: NDArray[np.float64], children: float, *, max_gradient_norm: float) -> float:
    """Return the mean clipped loss from a sum of `gradient` rows and the number of children."""
    return float(total[-1]) * LOSS_CLIP / (_LOSS_SHARE * max_gradient_norm) / children


# --- calibrate --------------------------------------------------------------------------------------


CALIBRATION = ReleaseKind("calibration", "training", 5, math.sqrt(5))
"""Row (1, s, s^2, y, s y), s and y each over its clip: every number is at most 1."""


def calibration_rows(raw: NDArray[np.float64], gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 5) rows of `CALIBRATION` for raw predictions in standardised units."""
    s = np.clip(raw, -PREDICTION_CLIP, PREDICTION_CLIP) / PREDICTION_CLIP
    y = standardise_severity(gase) / SEVERITY_CLIP
    return np.column_stack([np.ones(len(s)), s, s**2, y, s * y])


# --- evaluate ---------------------------------------------------------------------------------------


EVALUATION = ReleaseKind("evaluation", "held-out", 7 + 3 * len(GASE_LEVELS), math.sqrt(7))
"""Row: (1/2, a, b, a^2, b^2, ab, |a - b| / 2), then (1, a, a^2) / 2 at the child's own GASE, elsewhere 0.

a = (prediction - 4) / 3 and b = (GASE - 4) / 3 lie in [-1, 1]. Every square grows with |a| and |b|, so the
norm is largest at the ends: 1/4 + 5 + 1 + 3/4 = 7 at a = -b, squared; 6 at a = b. The moments give r, the
errors and the calibration; the sums by level, with twice the noise, a figure.
"""


def evaluation_rows(prediction: NDArray[np.float64], gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 28) rows of `EVALUATION`.

    Parameters
    ----------
    prediction : (n,) float64
        Predicted GASE; clipped to 1-7, as a prediction outside is reported as the end of the scale.
    gase : (n,) float64
        Clinical GASE, whole numbers 1-7.

    """
    a = (np.clip(prediction, GASE_LEVELS[0], GASE_LEVELS[-1]) - GASE_MIDDLE) / HALF_RANGE
    b = (gase - GASE_MIDDLE) / HALF_RANGE
    moments = np.column_stack([np.full(len(a), 0.5), a, b, a**2, b**2, a * b, np.abs(a - b) / 2])
    by_level = np.zeros((len(a), len(GASE_LEVELS), 3))
    level = gase.astype(np.int64) - GASE_LEVELS[0]
    by_level[np.arange(len(a)), level] = np.column_stack([np.ones(len(a)), a, a**2]) / 2
    return np.concatenate([moments, by_level.reshape(len(a), 3 * len(GASE_LEVELS))], axis=1)


# --- explain ------------------------------------------------------------------------------------------


ATTRIBUTION_CLIP = 1.0
"""Longest vector of one child's attributions, in standardised severity."""


def attribution(candidates: int) -> ReleaseKind:
    """Describe the attributions of the predictions to `candidates` edges.

    Row: (1, a), a clipped to norm 1: at most sqrt(2).
    """
    return ReleaseKind("attribution", "held-out", 1 + candidates, math.sqrt(1 + ATTRIBUTION_CLIP**2))


def attribution_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 1 + d) rows of `attribution` for (n, d) attributions."""
    return np.column_stack([np.ones(len(values)), clip_rows(values, ATTRIBUTION_CLIP)])


def clip_rows(rows: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Scale every row of (n, d) `rows` whose Euclidean norm exceeds `bound` down to it.

    A row that holds a number that is not finite becomes zero. To refuse the
    whole sum instead would tell whoever chose the model's weights that there is
    such a child, at no cost.
    """
    finite = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    # Norms are taken of rows over their largest number: squares neither overflow nor vanish.
    largest = np.abs(finite).max(axis=1, keepdims=True, initial=0.0)
    unit = finite / np.where(largest > 0, largest, 1.0)
    norms = np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1.0)
    with np.errstate(over="ignore"):
        too_long = largest * norms > bound
    return np.where(too_long, unit * (bound / norms), finite)
