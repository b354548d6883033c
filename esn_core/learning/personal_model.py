"""A hospital's personal model: its own severity network, read twice, calibrated on its own children.

For the hospital's own patients, beside the consortium's model, and never worse than what the hospital could
do by itself (docs/benchmarks.md, "Never worse than alone"). `fit` computes it inside the hospital from raw
records: nothing of it, not even a sum that judges it, may be released (decision 0211).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.gase import GASE_LEVELS, GASE_MIDDLE, GASE_UNIT, standardise_severity
from esn_core.learning.personal_network import OthersSum, OwnChildren, Whitening, posterior_mean
from esn_core.severity_network.candidates import SCORE_CLIP
from esn_core.severity_network.selection import masked_input

Reader = Callable[[Floats], Floats]
"""Predicts the (n,) raw severities of (n, d) network inputs (`masked_input`)."""

FOLDS = 5
FEWEST_CHILDREN = 10
"""With fewer training children, a fold says nothing; the consortium's model stands by itself there."""

# How many children the slope that follows from the estimated effects is worth, against own children's.
_PRIOR_CHILDREN = 20.0
# Variance of standardised severity among children with drug-resistant epilepsy.
_SEVERITY_VARIANCE = 0.85


@dataclass(frozen=True)
class Calibrated:
    """A reading on the scale of GASE."""

    intercept: float
    slope: float

    def gase(self, reading: Floats) -> Floats:
        """Return predicted GASE, within the scale."""
        severity = self.intercept + self.slope * reading
        return np.clip(GASE_MIDDLE + GASE_UNIT * severity, GASE_LEVELS[0], GASE_LEVELS[-1])


@dataclass(frozen=True)
class PersonalModel:
    """Weights of a hospital's own network, and how its two readings become a GASE.

    Attributes
    ----------
    weight : (d,) float64
        Of the candidates' scores.
    scale : (float, float, float)
        Mean of the weighted sum, mean of the model's output, and the factor from the latter's deviations to
        the former's.
    calibration : Calibrated
    own_reading : (n,) float64
        Of each own training child, by a network that was fitted without it.

    """

    weight: Floats
    scale: tuple[float, float, float]
    calibration: Calibrated
    own_reading: Floats

    @property
    def own_prediction(self) -> Floats:
        """(n,) GASE predicted for the own training children: the hospital's cross-validated figures."""
        return self.calibration.gase(self.own_reading)

    def predict(self, scores: Floats, reader: Reader | None) -> Floats:
        """Return the (n,) predicted GASE of (n, d) scores of the candidates."""
        return self.calibration.gase(_averaged(_readings(scores, self.weight, reader), self.scale))


def fit(
    scores: Floats,
    gase: Floats,
    controls: Floats,
    *,
    blocks: NDArray[np.int64],
    others: OthersSum | None,
    reader: Reader | None,
) -> PersonalModel:
    """Fit a hospital's personal model.

    Parameters
    ----------
    scores : (n, d) float64
        Of the hospital's training children, at the candidates.
    gase : (n,) float64
    controls : (m, d) float64
        Of its controls, by the same reference.
    blocks : (d,) int64
        Pair of modules that each candidate joins.
    others : OthersSum or None
        What was released about the other hospitals; None: the hospital by itself.
    reader : callable or None
        The consortium's network; None: the weighted sum alone.

    Raises
    ------
    DataError
        There are fewer than ten children, or but one of another severity than the rest.

    """
    if len(gase) < FEWEST_CHILDREN:
        raise DataError(f"a personal model takes {FEWEST_CHILDREN} training children, not {len(gase)}")
    severity = standardise_severity(gase)
    whole = _Network.of(scores, severity, controls, blocks=blocks, others=others)
    sums, outputs = np.empty(len(gase)), np.empty(len(gase))
    for held in folds(severity):
        kept = np.setdiff1d(np.arange(len(gase)), held)
        fold = _Network.of(scores[kept], severity[kept], controls, blocks=blocks, others=others)
        sums[held], outputs[held] = _readings(scores[held], fold.weight, reader)
    spread = float(outputs.std())
    factor = float(sums.std()) / spread if spread > 0 else 0.0
    scale = (float(sums.mean()), float(outputs.mean()), factor)
    reading = _averaged((sums, outputs), scale)
    calibration = _calibrated(reading, severity, whole)
    return PersonalModel(whole.weight, scale, calibration, reading)


@dataclass(frozen=True)
class _Network:
    """Weights, the slope of their sum on severity, and the variance of that sum at one severity."""

    weight: Floats
    gain: float
    variance: float

    @classmethod
    def of(
        cls,
        scores: Floats,
        severity: Floats,
        controls: Floats,
        *,
        blocks: NDArray[np.int64],
        others: OthersSum | None,
    ) -> "_Network":
        own = OwnChildren.of(scores, severity)
        effect = own.effect
        if others is not None:
            effect = effect.merged(others.effect(severity - severity.mean()))
        mean = posterior_mean(effect, blocks)
        whitening = Whitening.of(own.residual, np.clip(controls, -SCORE_CLIP, SCORE_CLIP))
        weight = whitening.weights(mean)
        return cls(weight, float(weight @ mean), whitening.variance_of(weight))


def _readings(scores: Floats, weight: Floats, reader: Reader | None) -> tuple[Floats, Floats]:
    """Read scores by a weighted sum and by the network; without a network, twice by the sum."""
    sums: Floats = np.clip(scores, -SCORE_CLIP, SCORE_CLIP) @ weight
    return sums, sums if reader is None else reader(masked_input(scores, weight))


def _averaged(readings: tuple[Floats, Floats], scale: tuple[float, float, float]) -> Floats:
    """Bring the network's output to the scale of the sum, and average."""
    sums, outputs = readings
    sum_mean, output_mean, factor = scale
    averaged: Floats = (sums + sum_mean + factor * (outputs - output_mean)) / 2
    return averaged


def folds(severity: Floats) -> list[NDArray[np.int64]]:
    """Part children into folds, each of all severities; the same ones whenever it is done."""
    order = np.argsort(severity, kind="stable")
    return [order[k::FOLDS] for k in range(FOLDS)]


def _calibrated(reading: Floats, severity: Floats, network: _Network) -> Calibrated:
    """Regress severity on out-of-fold readings, towards the slope that the estimated effects imply.

    Against its own direction a reading is never used: then the mean is predicted.
    """
    x, y = reading - reading.mean(), severity - severity.mean()
    covariance = _SEVERITY_VARIANCE * network.gain
    variance = _SEVERITY_VARIANCE * network.gain**2 + network.variance
    total = float(x @ x) + _PRIOR_CHILDREN * variance
    if not total > 0:
        raise DataError("the hospital's own network has no weights: its candidates go with nothing")
    slope = max((float(x @ y) + _PRIOR_CHILDREN * covariance) / total, 0.0)
    return Calibrated(float(severity.mean() - slope * reading.mean()), slope)
