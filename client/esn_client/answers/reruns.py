"""What a site answers about reruns: a block of each child's row for every rerun."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from esn_client.answers.study import Study, calibrated
from esn_client.cohort.cohort import Split
from esn_client.gate.gate import Rows
from esn_core.analyses.reruns import (
    FOLD_EVALUATION,
    Rerun,
    count_unit,
    evaluation_blocks,
    in_blocks,
    parts_of,
    random_scores,
    rerun_association,
    rerun_calibration,
    rerun_evaluation,
    reruns_of,
    tested_reruns,
)
from esn_core.learning.severity_model import predict
from esn_core.learning.weights import pretrained
from esn_core.privacy.accounting import NO_NOISE
from esn_core.protocol.price import price_of
from esn_core.severity_network.association import rows_of_residuals
from esn_core.severity_network.centring import covariates, numbers_of, residuals
from esn_core.statistics.agreement import EVALUATION, evaluation_rows
from esn_core.statistics.recalibration import calibration_rows
from esn_core.transcript.arguments import Arguments


def association(asked: Arguments, study: Study) -> Rows:
    """Sum edge score times severity, and the children, of each rerun."""
    severity = asked.array("mean_severity", numbers_of(study.protocol.severity_network.centre))
    split, reruns = study.cohort.training, reruns_of(study.protocol)
    features = study.candidates.features(split.scores)
    unit = np.full((len(features), 1), count_unit(features.shape[1]))
    blocks = []
    for rerun in reruns:
        # Drawn scores have the middle of the scale as their mean, which is 0 in standard units.
        centre = severity if rerun.draw is None else np.zeros(1)
        residual = residuals(_scores(rerun, study, split), covariates(split.age_years, split.sex), centre)
        rows = rows_of_residuals(features, residual)
        blocks.append(np.concatenate([unit, rows], axis=1) * _trains(rerun, study, split)[:, None])
    return Rows(rerun_association(reruns, features.shape[1]), in_blocks(blocks), split.participants)


def calibration(asked: Arguments, study: Study) -> Rows:
    """Sum the moments of raw prediction and severity of each rerun."""
    split, reruns = study.cohort.training, reruns_of(study.protocol)
    blocks = []
    for rerun, raw in _predictions(asked, study, split, reruns):
        rows = calibration_rows(raw, _scores(rerun, study, split))
        blocks.append(rows * _trains(rerun, study, split)[:, None])
    return Rows(rerun_calibration(reruns), in_blocks(blocks), split.participants)


def evaluation(asked: Arguments, study: Study) -> Rows:
    """Evaluate the rerun without this site, and every draw, on the held-out children."""
    split, tested = study.cohort.held_out, tested_reruns(study.protocol)
    exact = price_of(study.protocol).of("rerun-evaluation").noise_multiplier == NO_NOISE
    calibrations = asked.array("calibration", 2 * len(reruns_of(study.protocol))).reshape(-1, 2)
    own = {}
    for number, (rerun, raw) in enumerate(_predictions(asked, study, split, tested)):
        if rerun.without in (None, study.site):
            said = calibrated(raw, calibrations[number])
            own[rerun] = evaluation_rows(said, _scores(rerun, study, split))
    nothing = np.zeros((len(split.gase), EVALUATION.dimension))
    blocks = [
        sum((own[rerun] for rerun in block if rerun in own), start=nothing)
        for block in evaluation_blocks(tested, exact=exact)
    ]
    return Rows(rerun_evaluation(tested, exact=exact), in_blocks(blocks), split.participants)


def fold_evaluation(asked: Arguments, study: Study) -> Rows:
    """Evaluate each training child by the rerun that left out its part."""
    split, reruns = study.cohort.training, reruns_of(study.protocol)
    calibrations = asked.array("calibration", 2 * len(reruns)).reshape(-1, 2)
    total = np.zeros((len(split.gase), FOLD_EVALUATION.dimension))
    for number, (rerun, raw) in enumerate(_predictions(asked, study, split, reruns)):
        if rerun.part is not None:
            rows = evaluation_rows(calibrated(raw, calibrations[number]), split.gase)
            total += np.where(_trains(rerun, study, split)[:, None], 0.0, rows)
    return Rows(FOLD_EVALUATION, total, split.participants)


def _predictions(
    asked: Arguments, study: Study, split: Split, reruns: Sequence[Rerun]
) -> Iterator[tuple[Rerun, NDArray[np.float64]]]:
    """Predict with the pre-trained model and the severity network of each rerun; the first are `reruns`."""
    model = pretrained(study.protocol.model.initial_weights, study.protocol.own_weights).to(study.device)
    width = len(study.candidates.edges)
    weights = asked.array("edge_weights", width * len(reruns_of(study.protocol))).reshape(-1, width)
    for rerun, weight in zip(reruns, weights, strict=False):
        yield rerun, predict(model, study.inputs(split, weight))


def _trains(rerun: Rerun, study: Study, split: Split) -> NDArray[np.bool_]:
    """Return which (n) children of the training split a rerun trains with."""
    if rerun.part is None:
        return np.full(len(split.gase), rerun.without != study.site)
    rules, parts = study.protocol.cohort, study.protocol.analyses.folds
    part = parts_of(split.participants, site=study.site, rules=rules, parts=parts)
    return np.asarray(part != rerun.part)


def _scores(rerun: Rerun, study: Study, split: Split) -> NDArray[np.float64]:
    """Return the GASE that a rerun sees."""
    if rerun.draw is None:
        return split.gase
    return random_scores(split.participants, site=study.site, rules=study.protocol.cohort, draw=rerun.draw)
