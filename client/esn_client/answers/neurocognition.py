"""What a site answers about neurocognition: sums of all models over the held-out children."""

from collections.abc import Mapping

import numpy as np

from esn_client.answers.study import Study, calibrated
from esn_client.gate.gate import Rows
from esn_core.analyses.neurocognition import (
    BINS,
    CLINICAL,
    GROUPS,
    LARGEST_TARGET,
    PREDICTED,
    Model,
    Table,
    features_of,
    kinds_of,
    logit_clip,
    places,
    table_of,
)
from esn_core.arrays import Floats
from esn_core.gase import GASE_LEVELS
from esn_core.learning.severity_model import predict
from esn_core.learning.weights import from_vector
from esn_core.protocol.price import price_of
from esn_core.statistics.calibration_curve import reliability_rows
from esn_core.statistics.linear import linear_rows
from esn_core.statistics.logistic_sums import linear_predictor, log_likelihoods, newton_rows
from esn_core.statistics.model_comparison import vuong_rows
from esn_core.statistics.roc import delong_rows, histogram_rows
from esn_core.transcript.arguments import Arguments


class _Children:
    """The held-out children of a site, as the models see them."""

    def __init__(self, asked: Arguments, study: Study) -> None:
        split = study.cohort.held_out
        model = from_vector(asked.array("weights"), device=study.device)
        inputs = study.inputs(split, asked.array("edge_weights", len(study.candidates.edges)))
        said = calibrated(predict(model, inputs), asked.array("calibration", 2))
        # A prediction outside is reported as the end of the scale; one that is not finite says nothing.
        predicted = np.clip(np.nan_to_num(said, nan=4.0), GASE_LEVELS[0], GASE_LEVELS[-1])
        self.participants = split.participants
        self.columns: Mapping[str, Floats] = {**split.phenotypes, CLINICAL: split.gase, PREDICTED: predicted}
        self.protocol = study.protocol
        self.kinds = kinds_of(study.protocol)
        self.clip = logit_clip(price_of(study.protocol).of(asked.phase).noise_multiplier)

    def table(self, model: Model) -> Table:
        return table_of(model, self.columns, self.protocol)

    def features(self, model: Model) -> Floats:
        return features_of(model, self.columns, self.protocol)

    def logit(self, model: Model, coefficients: Floats) -> Floats:
        """Return each child's (n,) linear predictor under a model; NaN where it is not known."""
        logit = linear_predictor(self.features(model), coefficients, logit_clip=self.clip)
        known: Floats = np.where(np.isfinite(self.table(model).impaired), logit, np.nan)
        return known

    def place(self, model: Model, coefficients: Floats) -> Floats:
        """Return where each child's (n,) linear predictor lies on the model's reach."""
        return places(self.logit(model, coefficients), coefficients, logit_clip=self.clip)


def linear(asked: Arguments, study: Study) -> Rows:
    """Sum the products of predictors and scores of all linear models."""
    children = _Children(asked, study)
    rows = [
        linear_rows(
            children.features(model),
            children.table(model).target,
            feature_norm=model.feature_norm,
            largest_target=LARGEST_TARGET,
        )
        for model in children.kinds.models
    ]
    return Rows(children.kinds.linear, np.concatenate(rows, axis=1), children.participants)


def newton(asked: Arguments, study: Study) -> Rows:
    """Sum curvature, slope and likelihood of all logistic models at given coefficients."""
    children = _Children(asked, study)
    kinds = children.kinds
    given = kinds.tracked(asked.array("coefficients", kinds.tracked_count))
    rows = []
    for model, places_of_model in zip(kinds.models, given, strict=True):
        features, impaired = children.features(model), children.table(model).impaired
        rows += [
            newton_rows(
                features,
                impaired,
                coefficients=coefficients,
                feature_norm=model.feature_norm,
                logit_clip=children.clip,
                thirds=kinds.exact,
            )
            for coefficients in places_of_model
        ]
    return Rows(kinds.newton, np.concatenate(rows, axis=1), children.participants)


def comparison(asked: Arguments, study: Study) -> Rows:
    """Sum the histograms and calibration curves of all models, and how much better one is than its rival."""
    children = _Children(asked, study)
    kinds = children.kinds
    given = kinds.coefficients(asked.array("coefficients", kinds.coefficient_count))
    rows = []
    for kind, chosen in kinds.comparison_blocks():
        models = [(kinds.models[i], given[i]) for i in chosen]
        if kind.name == "vuong":
            first, second = (
                log_likelihoods(
                    children.features(model),
                    children.table(model).impaired,
                    coefficients=coefficients,
                    feature_norm=model.feature_norm,
                    logit_clip=children.clip,
                )
                for model, coefficients in models
            )
            rows.append(vuong_rows(first, second, logit_clip=children.clip))
            continue
        ((model, coefficients),) = models
        truth = children.table(model).impaired
        if kind.name == "histogram":
            rows.append(histogram_rows(children.place(model, coefficients), truth, bins=BINS))
        else:
            probability = 1 / (1 + np.exp(-children.logit(model, coefficients)))
            rows.append(reliability_rows(probability, truth, groups=GROUPS))
    return Rows(kinds.comparison, np.concatenate(rows, axis=1), children.participants)


def ranking(asked: Arguments, study: Study) -> Rows:
    """Sum DeLong's components of all models that have the same children."""
    children = _Children(asked, study)
    kinds = children.kinds
    given = kinds.coefficients(asked.array("coefficients", kinds.coefficient_count))
    histograms = asked.array("histograms", 2 * BINS * len(kinds.models)).reshape(len(kinds.models), -1)
    rows = []
    for own in kinds.of_same_children():
        values = np.column_stack([children.place(kinds.models[i], given[i]) for i in own])
        truth = children.table(kinds.models[own[0]]).impaired
        rows.append(delong_rows(values, truth, histograms=tuple(histograms[i] for i in own)))
    return Rows(kinds.ranking, np.concatenate(rows, axis=1), children.participants)
