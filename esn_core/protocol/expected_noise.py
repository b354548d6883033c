"""What the noise of a protocol will do to its results, before anybody is asked.

Nothing here touches a child: the sums that a study might see are drawn from a
plain model of a cohort (severity as in the simulated consortium, a prediction
that follows it with a given r), and the protocol's noise is added to them.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.gase import GASE_LEVELS, GASE_MIDDLE, GASE_UNIT
from esn_core.learning.releases import gradient_release
from esn_core.privacy.accounting import NO_NOISE, mu_for, noise_multiplier_for
from esn_core.privacy.fixed_point import noise_sd
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import CENTRE, association_release
from esn_core.severity_network.centring import centre_release
from esn_core.statistics.agreement import (
    EVALUATION,
    agreement,
    evaluation_rows,
    noise_sd_of_mae,
    noise_sd_of_r,
)
from esn_core.statistics.logistic_sums import newton
from esn_core.statistics.recalibration import CALIBRATION, affine, calibration_rows

# A prediction worth having; the noise in r is larger for a weaker one.
_EXPECTED_R = 0.8
_DRAWS = 200

_NEWTON_ROUNDS = 6
# An intercept and three standardised features; four in five children are within this norm.
_FEATURES, _FEATURE_NORM = 4, 2.5
# Mean of p (1 - p) where a third of the children are impaired.
_CURVATURE = 0.2


@dataclass(frozen=True)
class ExpectedNoise:
    """Standard deviations that the noise will add.

    Attributes
    ----------
    children : float
        To the number of training children.
    edge_r : float
        To the correlation of one candidate edge with severity.
    gradient : float or None
        Length of a round's noise over that of the longest mean gradient; None without rounds, and where
        sites take several steps by themselves, which is without noise.
    slope : float
        To the calibration slope.
    r : float or None
        To the correlation of predicted and clinical GASE; None where it would often be undefined.
    mae : float
        To the mean absolute error, in steps of GASE.

    """

    children: float
    edge_r: float
    gradient: float | None
    slope: float
    r: float | None
    mae: float


def expected_noise(
    protocol: Protocol,
    *,
    training_children: int,
    held_out_children: int,
    candidates: int,
    parameters: int,
    rng: np.random.Generator,
) -> ExpectedNoise:
    """Say what the noise will do when all sites answer.

    Parameters
    ----------
    protocol : Protocol
    training_children, held_out_children : int
        Expected at all sites together.
    candidates : int
        Numbers in the association release.
    parameters : int
        Of the model.
    rng : numpy Generator

    """
    clip = protocol.training.max_gradient_norm
    gradient = None
    if protocol.training.rounds and protocol.training.local_steps == 1:
        kind = gradient_release(parameters, max_gradient_norm=clip)
        noise = noise_of_sum(protocol, kind)
        gradient = noise * math.sqrt(parameters) / (training_children * clip)
    association = noise_of_sum(protocol, association_release(candidates))
    prediction, gase = _cohort(held_out_children, rng)
    evaluation = noise_of_sum(protocol, EVALUATION)
    sums = evaluation_rows(prediction, gase).sum(axis=0)
    return ExpectedNoise(
        children=_noise_of_children(protocol),
        # n products of a z-score and a severity residual clipped to 0.8 add up to about 0.56 n r: of
        # a normal residual of standard deviation 0.9, 0.9 P(|residual| < 0.8) is left.
        edge_r=association / (training_children * 0.56),
        gradient=gradient,
        slope=_slope_noise(protocol, training_children, rng),
        r=noise_sd_of_r(sums, evaluation, rng=rng, draws=_DRAWS),
        mae=noise_sd_of_mae(held_out_children, evaluation, mae=agreement(sums).mae or 0.0) or 0.0,
    )


def _noise_of_children(protocol: Protocol) -> float:
    """Return the noise in the number of training children, which is one number or the sum of all levels."""
    kind = centre_release(protocol.severity_network.centre)
    return noise_of_sum(protocol, kind) * math.sqrt(1 if kind == CENTRE else len(GASE_LEVELS))


def noise_of_sum(protocol: Protocol, kind: ReleaseKind) -> float:
    """Return the standard deviation of the noise in each number of a sum over all sites."""
    price = price_of(protocol).of(kind.name)  # a release is named after its phase: the gate holds it to that
    each = noise_sd(kind, price.noise_multiplier, share=protocol.noise_share)
    return each * math.sqrt(len(protocol.roster))


def log_odds_noise(protocol: Protocol, *, children: int) -> tuple[float, float]:
    """Return the noise in a log odds ratio, had the whole budget of held-out children been for one model.

    Six Newton steps of a logistic model with an intercept and three standardised features. The last
    step's noise in X'(y - p) goes through the inverse of X'WX, which is about 0.2 n for each feature.

    Returns
    -------
    noise, sampling : float
        Standard deviation by the noise, and by the choice of children, in units of the log odds ratio.

    """
    sampling = 1 / math.sqrt(_CURVATURE * children)
    if protocol.privacy.noise == "none":
        return NO_NOISE, sampling
    multiplier = noise_multiplier_for(
        mu_for(protocol.privacy.epsilon, protocol.privacy.delta), share=1.0, releases=_NEWTON_ROUNDS
    )
    kind = newton(_FEATURES, feature_norm=_FEATURE_NORM)
    each = noise_sd(kind, multiplier, share=protocol.noise_share)
    return each * math.sqrt(len(protocol.roster)) / (_CURVATURE * children), sampling


def _cohort(children: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw predicted and clinical GASE of typical children."""
    severity = rng.normal(size=children)
    gase = np.clip(np.rint(GASE_MIDDLE + GASE_UNIT * severity), 1, 7)
    other = rng.normal(size=children)
    followed = _EXPECTED_R * severity + math.sqrt(1 - _EXPECTED_R**2) * other
    return np.clip(GASE_MIDDLE + GASE_UNIT * _EXPECTED_R * followed, 1, 7), gase


def _slope_noise(protocol: Protocol, children: int, rng: np.random.Generator) -> float:
    prediction, gase = _cohort(children, rng)
    raw = (prediction - GASE_MIDDLE) / GASE_UNIT
    sums = calibration_rows(raw, gase).sum(axis=0)
    noise = noise_of_sum(protocol, CALIBRATION)
    fewest = float(protocol.training_quorum * protocol.cohort.minimum_children)
    slopes = [
        affine(sums + rng.normal(0, noise, sums.shape), fewest_children=fewest, noise_sd=noise)[1]
        for _ in range(_DRAWS)
    ]
    return float(np.std(slopes))
