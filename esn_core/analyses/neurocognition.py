"""Models of neurocognitive impairment: their features, and what a child adds to the sums of all of them.

A model is fitted to the children whose score and own predictors are known. Models that are compared
differ in the severities alone, which every child has, so that they have the same children. Features
are scaled to [-1, 1] over their public ranges, so the norm of those of a model with
k predictors is at most sqrt(1 + k).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from esn_core.arrays import Floats
from esn_core.errors import ProtocolError
from esn_core.gase import GASE_LEVELS
from esn_core.privacy.accounting import NO_NOISE
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.analyses import SEVERITIES, NeurocognitionRules, Outcome
from esn_core.protocol.data_dictionary import scaled
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.statistics import calibration_curve, linear, logistic_sums, model_comparison, roc
from esn_core.statistics.logistic_exact import tracks

BINS = 200
"""Of the reach of a model's logit (`places`), in the histograms of its ROC curve."""
GROUPS = 20
"""Of a model's probability, in the sums of its calibration: a threshold every twentieth."""
LARGEST_TARGET = 1.0
"""Scores are scaled to [-1, 1] over their range."""

_GASE_SPAN = (float(GASE_LEVELS[0]), float(GASE_LEVELS[-1]))
CLINICAL, PREDICTED = SEVERITIES


@dataclass(frozen=True)
class Model:
    """One model of one outcome.

    Attributes
    ----------
    outcome : Outcome
    predictors : tuple of k str

    """

    outcome: Outcome
    predictors: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The k + 1 features, the intercept first."""
        return ("intercept", *self.predictors)

    @property
    def feature_norm(self) -> float:
        """Largest norm of a child's features."""
        return math.sqrt(len(self.names))

    @property
    def others(self) -> frozenset[str]:
        """Predictors besides the severities: who lacks one of them is not among the model's children."""
        return frozenset(self.predictors) - set(SEVERITIES)


def kinds_of(protocol: Protocol) -> "Kinds":
    """Return the releases of the models of a protocol."""
    exact = price_of(protocol).of("newton").noise_multiplier == NO_NOISE
    return Kinds(models_of(protocol), exact=exact)


def models_of(protocol: Protocol) -> tuple[Model, ...]:
    """Return the models of a protocol, outcome by outcome."""
    rules = rules_of(protocol)
    return tuple(Model(outcome, predictors) for outcome in rules.outcomes for predictors in rules.models)


def rules_of(protocol: Protocol) -> NeurocognitionRules:
    """Return what a protocol asks about neurocognition.

    Raises
    ------
    ProtocolError
        Nothing.

    """
    if protocol.analyses.neurocognition is None:
        raise ProtocolError("the protocol asks for no models of neurocognition")
    return protocol.analyses.neurocognition


def rivals(models: tuple[Model, ...]) -> tuple[tuple[int, int], ...]:
    """Return pairs of models that differ in the severity alone: the predicted one's index first."""
    at = {(m.outcome.name, frozenset(m.predictors)): i for i, m in enumerate(models)}
    pairs = []
    for i, model in enumerate(models):
        if PREDICTED in model.predictors and CLINICAL not in model.predictors:
            other = frozenset(model.predictors) - {PREDICTED} | {CLINICAL}
            if (model.outcome.name, other) in at:
                pairs.append((i, at[model.outcome.name, other]))
    return tuple(pairs)


def logit_clip(noise_multiplier: float) -> float:
    """Return the largest linear predictor, with or without noise."""
    return logistic_sums.EXACT_LOGIT_CLIP if noise_multiplier == NO_NOISE else logistic_sums.LOGIT_CLIP


def span_of(column: str, protocol: Protocol) -> tuple[float, float]:
    """Return the public range of a predictor or score."""
    return _GASE_SPAN if column in (CLINICAL, PREDICTED) else protocol.phenotypes[column].span


@dataclass(frozen=True)
class Kinds:
    """The releases of the models, each of all models together.

    The blocks of a release lie side by side; the square of its bound is the sum of the squares of theirs.

    Attributes
    ----------
    models : tuple of Model
    exact : bool
        Whether the sums have no noise, so that each model is followed on several tracks
        (`esn_core.statistics.logistic_exact`).

    """

    models: tuple[Model, ...]
    exact: bool

    @property
    def linear(self) -> ReleaseKind:
        """Sums of all linear models of the scores."""
        return _together(
            "linear",
            [
                linear.linear(len(m.names), feature_norm=m.feature_norm, largest_target=LARGEST_TARGET)
                for m in self.models
            ],
        )

    @property
    def newton(self) -> ReleaseKind:
        """One Newton step of all logistic models, on every track."""
        return _together(
            "newton",
            [
                logistic_sums.newton(len(m.names), feature_norm=m.feature_norm, thirds=self.exact)
                for m, times in zip(self.models, self.tracks, strict=True)
                for _ in range(times)
            ],
        )

    @property
    def tracks(self) -> tuple[int, ...]:
        """How many places each model has its Newton sums at."""
        return tuple(tracks(len(m.names)) if self.exact else 1 for m in self.models)

    @property
    def newton_widths(self) -> list[int]:
        """How many numbers of a Newton sum each model has, all of its tracks together."""
        return [
            times * logistic_sums.newton_dimension(len(m.names), thirds=self.exact)
            for m, times in zip(self.models, self.tracks, strict=True)
        ]

    @property
    def comparison(self) -> ReleaseKind:
        """Histogram and calibration curve of each model, and Vuong's sums of each pair of rivals."""
        return _together("comparison", [kind for kind, _ in self.comparison_blocks()])

    @property
    def ranking(self) -> ReleaseKind:
        """DeLong's sums of all models that have the same children."""
        return _together("ranking", [roc.delong(len(own)) for own in self.of_same_children()])

    def comparison_blocks(self) -> Iterator[tuple[ReleaseKind, tuple[int, ...]]]:
        """Yield the kinds of `comparison` in order, with the models of each."""
        for i in range(len(self.models)):
            yield roc.histogram(BINS), (i,)
            yield calibration_curve.reliability(GROUPS), (i,)
        for pair in rivals(self.models):
            yield model_comparison.vuong(), pair

    def of_same_children(self) -> tuple[tuple[int, ...], ...]:
        """Return the indices of models of one outcome that have the same children, group by group."""
        found: dict[tuple[str, frozenset[str]], tuple[int, ...]] = {}
        for i, model in enumerate(self.models):
            key = (model.outcome.name, model.others)
            found[key] = (*found.get(key, ()), i)
        return tuple(found.values())

    def coefficients(self, together: Floats) -> list[Floats]:
        """Take the coefficients of all models apart.

        Raises
        ------
        ProtocolError
            One is larger than sites answer at.

        """
        return np.split(_held(together), np.cumsum([len(m.names) for m in self.models])[:-1])

    def tracked(self, together: Floats) -> list[Floats]:
        """Take the coefficients of a Newton step apart: (tracks, k + 1) of each model.

        Raises
        ------
        ProtocolError
            One is larger than sites answer at.

        """
        widths = [times * len(m.names) for m, times in zip(self.models, self.tracks, strict=True)]
        parts = np.split(_held(together), np.cumsum(widths)[:-1])
        return [part.reshape(times, -1) for part, times in zip(parts, self.tracks, strict=True)]

    @property
    def coefficient_count(self) -> int:
        """How many coefficients all models have."""
        return sum(len(m.names) for m in self.models)

    @property
    def tracked_count(self) -> int:
        """How many coefficients a Newton step carries."""
        return sum(times * len(m.names) for m, times in zip(self.models, self.tracks, strict=True))


def places(logit: Floats, coefficients: Floats, *, logit_clip: float) -> Floats:
    """Return where linear predictors lie on the reach of their model, from 0 to 1, in the same order.

    With features within -1 and 1 a linear predictor lies within the sum of the sizes of the coefficients of
    the intercept. Bins of equal width over that reach tell children apart however near to each other their
    probabilities are: those of a single predictor are bins of its range.

    Parameters
    ----------
    logit : (n,) float64
    coefficients : (k + 1,) float64
        The intercept first.
    logit_clip : float

    """
    reach = float(np.abs(coefficients[1:]).sum())
    low, high = np.clip([coefficients[0] - reach, coefficients[0] + reach], -logit_clip, logit_clip)
    if not high > low:
        return np.where(np.isfinite(logit), 0.5, np.nan)
    held: Floats = np.clip((logit - low) / (high - low), 0.0, 1.0)
    return held


@dataclass(frozen=True)
class Table:
    """The outcome of one model in the children of one site.

    Attributes
    ----------
    impaired : (n,) float64
        1 or 0; NaN for a child whose score or one of the model's predictors is not known.
    target : (n,) float64
        The score, scaled; NaN likewise.

    """

    impaired: Floats
    target: Floats


def table_of(model: Model, columns: Mapping[str, Floats], protocol: Protocol) -> Table:
    """Return the outcome of a model, known only for children whose score and predictors of it are known.

    Parameters
    ----------
    model : Model
    columns : dict of str to (n,) float64
        Every predictor and score in its own unit; NaN where it is not known.
    protocol : Protocol

    """
    outcome = model.outcome
    score = columns[outcome.column]
    known = np.isfinite(score) & np.all([np.isfinite(columns[name]) for name in model.predictors], axis=0)
    impaired = np.where(known, score < outcome.impaired_below, np.nan)
    return Table(
        impaired=impaired.astype(np.float64),
        target=np.where(known, scaled(score, span_of(outcome.column, protocol)), np.nan),
    )


def features_of(model: Model, columns: Mapping[str, Floats], protocol: Protocol) -> Floats:
    """Return the (n, k + 1) features of a model, scaled to [-1, 1]."""
    children = len(columns[model.predictors[0]])
    return np.column_stack(
        [np.ones(children), *(scaled(columns[name], span_of(name, protocol)) for name in model.predictors)]
    )


def _held(coefficients: Floats) -> Floats:
    largest = logistic_sums.LARGEST_COEFFICIENT
    if not (np.abs(coefficients) <= largest).all():
        raise ProtocolError(f"a coefficient lies within -{largest:g} and {largest:g}")
    return coefficients


def _together(name: str, kinds: list[ReleaseKind]) -> ReleaseKind:
    bound = math.sqrt(sum(kind.l2_bound**2 for kind in kinds))
    return ReleaseKind(name, "held-out", sum(kind.dimension for kind in kinds), bound)
