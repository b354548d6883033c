"""What leaves a site of a severity model: gradients, local updates and attributions.

Each release with its bound and the proof of it, its rows, and the reading of its sum.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.gase import GASE_UNIT
from esn_core.privacy.release import ReleaseKind, clip_rows

LOSS_CLIP = 4.0
"""Largest squared error of one child in the learning curve, in standardised units."""

COMPACT_PARAMETERS = 7435
"""Of the model 'compact': the length of its releases is known without the model. A test counts them."""

# The learning curve's coordinate is a quarter as long as the gradient: it raises
# the noise on the gradient by 3 % and no more.
_LOSS_SHARE = 0.25


def gradient_release(parameters: int, *, max_gradient_norm: float) -> ReleaseKind:
    """Describe one full-batch step: the clipped gradient and the clipped loss of each child.

    Row: (g, s c l): |g| <= c = max_gradient_norm, l in [0, 1] is the loss over
    its clip, s = 1/4. The norm is at most c sqrt(1 + s^2).
    """
    bound = max_gradient_norm * math.sqrt(1 + _LOSS_SHARE**2)
    return ReleaseKind("gradient", "training", parameters + 1, bound)


def gradient_rows(
    gradients: NDArray[np.float64], losses: NDArray[np.float64], *, max_gradient_norm: float
) -> NDArray[np.float64]:
    """Return the (n, parameters + 1) rows of `gradient_release`.

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


@dataclass(frozen=True)
class Step:
    """What a round of training says, over the children.

    Attributes
    ----------
    gradient : (parameters,) float64
        Their mean clipped gradient; of local updates, the mean of where the sites' steps lead, against the
        gradient's direction.
    loss : float
        Their mean clipped squared error before the step, in standardised units.

    """

    gradient: NDArray[np.float64]
    loss: float


def read_gradient(total: NDArray[np.float64], children: float, *, max_gradient_norm: float) -> Step:
    """Return the mean gradient and loss.

    Parameters
    ----------
    total : (parameters + 1,) float64
        Sum of `gradient_rows`, noise included.
    children : float
        How many were summed; as released by an earlier question, positive.
    max_gradient_norm : float

    """
    loss = float(total[-1]) * LOSS_CLIP / (_LOSS_SHARE * max_gradient_norm) / children
    return Step(total[:-1] / children, loss)


def local_update_release(parameters: int, *, max_gradient_norm: float) -> ReleaseKind:
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
    """Return the (n, parameters + 2) rows of `local_update_release`.

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


def read_local_update(total: NDArray[np.float64], *, max_gradient_norm: float) -> Step:
    """Return the mean of the sites' updates by their children, and the mean loss.

    Parameters
    ----------
    total : (parameters + 2,) float64
        Sum of `local_update_rows`, which is exact: its last number counts the children.
    max_gradient_norm : float

    """
    return read_gradient(total[:-1], float(total[-1]), max_gradient_norm=max_gradient_norm)


ATTRIBUTION_CLIP = 1.0
"""Longest vector of one child's attributions, in standardised severity."""


def attribution_release(candidates: int) -> ReleaseKind:
    """Describe the attributions of the predictions to `candidates` edges.

    Row: (1, a), a clipped to norm 1: at most sqrt(2).
    """
    return ReleaseKind("attribution", "held-out", 1 + candidates, math.sqrt(1 + ATTRIBUTION_CLIP**2))


def attribution_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 1 + d) rows of `attribution_release` for (n, d) attributions."""
    return np.column_stack([np.ones(len(values)), clip_rows(values, ATTRIBUTION_CLIP)])


@dataclass(frozen=True)
class Attribution:
    """What the candidate edges contribute to the held-out children's predictions.

    Attributes
    ----------
    mean : (d,) float64
        In steps of GASE, over the children.
    noise_sd : float
        Of each mean.
    sampling_sd : float
        The most that the choice of children gives to the means, as the root of its mean square over edges.

    """

    mean: NDArray[np.float64]
    noise_sd: float
    sampling_sd: float


def read_attribution(total: NDArray[np.float64], *, fewest_children: float, noise_sd: float) -> Attribution:
    """Return the mean attribution of each edge.

    The attributions of one child are no longer than `ATTRIBUTION_CLIP`, so that the variances of all edges
    are at most its square together, less that of their means' length.

    Parameters
    ----------
    total : (1 + d,) float64
        Sum of `attribution_rows`, noise included.
    fewest_children : float
        A public lower bound on how many children were summed.
    noise_sd : float
        Standard deviation of the noise in each number of `total`.

    """
    children = max(float(total[0]), fewest_children)
    unit = GASE_UNIT / children
    # The noise makes the means longer than the children did, never shorter on average.
    length = np.sum((total[1:] / children) ** 2) - len(total[1:]) * (noise_sd / children) ** 2
    spread = max(ATTRIBUTION_CLIP**2 - max(float(length), 0.0), 0.0) / len(total[1:])
    return Attribution(total[1:] * unit, noise_sd * unit, GASE_UNIT * math.sqrt(spread / children))
