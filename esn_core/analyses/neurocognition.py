"""Models of neurocognitive impairment: their features, and what a child adds to the sums of all of them.

All models of an outcome are fitted to the same children, those whose predictors
and score are all known, so that their likelihoods can be compared. Features
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
from esn_core.protocol.protocol import Protocol
from esn_core.statistics import calibration_curve, linear, logistic_sums, model_comparison, roc

BINS = 200
"""Of a model's probability, in the histograms of its ROC curve."""
GROUPS = 5
"""Of a model's probability, in its calibration curve."""
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
    """

    models: tuple[Model, ...]

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
        """One Newton step of all logistic models."""
        return _together(
            "newton", [logistic_sums.newton(len(m.names), feature_norm=m.feature_norm) for m in self.models]
        )

    @property
    def comparison(self) -> ReleaseKind:
        """Histogram and calibration curve of each model, and Vuong's sums of each pair of rivals."""
        return _together("comparison", [kind for kind, _ in self.comparison_blocks()])

    @property
    def ranking(self) -> ReleaseKind:
        """DeLong's sums of each outcome's models."""
        return _together("ranking", [roc.delong(len(own)) for own in self.by_outcome().values()])

    def comparison_blocks(self) -> Iterator[tuple[ReleaseKind, tuple[int, ...]]]:
        """Yield the kinds of `comparison` in order, with the models of each."""
        for i in range(len(self.models)):
            yield roc.histogram(BINS), (i,)
            yield calibration_curve.reliability(GROUPS), (i,)
        for pair in rivals(self.models):
            yield model_comparison.vuong(), pair

    def by_outcome(self) -> Mapping[str, tuple[int, ...]]:
        """Return the indices of each outcome's models."""
        found: dict[str, tuple[int, ...]] = {}
        for i, model in enumerate(self.models):
            found[model.outcome.name] = (*found.get(model.outcome.name, ()), i)
        return found

    def coefficients(self, together: Floats) -> list[Floats]:
        """Take the coefficients of all models apart.

        Raises
        ------
        ProtocolError
            One is larger than sites answer at.

        """
        largest = logistic_sums.LARGEST_COEFFICIENT
        if not (np.abs(together) <= largest).all():
            raise ProtocolError(f"a coefficient lies within -{largest:g} and {largest:g}")
        ends = np.cumsum([len(m.names) for m in self.models])
        return np.split(together, ends[:-1])

    @property
    def coefficient_count(self) -> int:
        """How many coefficients all models have."""
        return sum(len(m.names) for m in self.models)


@dataclass(frozen=True)
class Table:
    """One outcome in the children of one site.

    Attributes
    ----------
    impaired : (n,) float64
        1 or 0; NaN for a child whose score or one of whose predictors is not known.
    target : (n,) float64
        The score, scaled; NaN likewise.

    """

    impaired: Floats
    target: Floats


def table_of(outcome: Outcome, columns: Mapping[str, Floats], protocol: Protocol) -> Table:
    """Return an outcome, known only for children whose score and predictors are all known.

    Parameters
    ----------
    outcome : Outcome
    columns : dict of str to (n,) float64
        Every predictor and score in its own unit; NaN where it is not known.
    protocol : Protocol

    """
    score = columns[outcome.column]
    needed = {name for model in rules_of(protocol).models for name in model}
    known = np.isfinite(score) & np.all([np.isfinite(columns[name]) for name in needed], axis=0)
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


def _together(name: str, kinds: list[ReleaseKind]) -> ReleaseKind:
    bound = math.sqrt(sum(kind.l2_bound**2 for kind in kinds))
    return ReleaseKind(name, "held-out", sum(kind.dimension for kind in kinds), bound)
