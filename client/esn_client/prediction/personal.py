"""A hospital's personal model of a study that it took part in, and how well it predicts its own children.

What the study released of all hospitals, less the own part, merged with what the hospital sees by itself
(`esn_core.learning.personal_model`). It is computed here, from raw records, and stays here: nothing of it,
not even a figure that judges it, may be sent (decision 0211).
"""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from esn_client.answers.study import Study, calibrated
from esn_client.prediction.findings import OwnPrediction
from esn_client.prediction.personal_findings import Edge, Figures, PersonalFindings
from esn_core.arrays import Floats
from esn_core.errors import ConfigError
from esn_core.gase import GASE_LEVELS
from esn_core.learning.baselines.predictors import correlation
from esn_core.learning.personal_model import PersonalModel, Reader, fit
from esn_core.learning.personal_network import OthersSum
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import from_vector
from esn_core.privacy.release import clip_rows
from esn_core.released_model.content import half_width
from esn_core.severity_network.association import association_release, rows_of_residuals
from esn_core.severity_network.centring import covariates, residuals
from esn_core.severity_network.selection import masked_input
from esn_core.statistics.intervals import fisher_interval
from esn_core.transcript.course import Course

_FEWEST_JUDGED = 4


def require_personal(study: Study) -> None:
    """Do nothing where a study's sums and scores allow a personal model.

    Raises
    ------
    ConfigError
        They do not; it says why.

    """
    if faults := study.protocol.against_personal_model_of(study.site):
        raise ConfigError(
            f"study {study.protocol.study} {' and '.join(faults)}: there is no personal model of it"
        )


def fit_personal(study: Study, course: Course) -> tuple[PersonalModel, Reader]:
    """Fit the personal model of a study, at this site.

    Parameters
    ----------
    study : Study
        With the cohort that the site answered with.
    course : Course
        What the study released.

    Raises
    ------
    StudyError
        The study has not released the sums that it takes.
    DataError
        The site has too few children for it.

    """
    reader = reader_of(study, course)
    return _fitted(study, reader, _others(study, course)), reader


def reader_of(study: Study, course: Course) -> Reader:
    """Return the consortium's trained network, as a reader of the candidates' values."""
    model = from_vector(course.trained(study.protocol.training.rounds).weights, device=study.device)
    edges, ends, regions = study.candidates.edges, study.atlas.edges, len(study.atlas.regions)
    return lambda values: predict(model, as_matrices(values, edges, ends=ends, regions=regions))


def judge(study: Study, course: Course, *, run: str) -> PersonalFindings:
    """Fit a site's personal model, and compare what predicts the site's own children.

    Raises
    ------
    StudyError, DataError
        As `fit_personal`.

    """
    edges, held = study.candidates.edges, study.cohort.held_out
    model, reader = fit_personal(study, course)
    alone = _fitted(study, reader, None)

    def of_consortium(scores: Floats) -> Floats:
        raw = reader(masked_input(scores, course.network.weight))
        low, high = GASE_LEVELS[0], GASE_LEVELS[-1]
        return np.clip(calibrated(raw, np.array(course.calibration)), low, high)

    def figures(predicts: Callable[[Floats], Floats]) -> Figures | None:
        if len(held.gase) < _FEWEST_JUDGED:
            return None
        return _figures(predicts(held.scores[:, edges]), held.gase)

    names, ends = study.atlas.names, study.atlas.edges[edges]
    order = np.argsort(-np.abs(model.weight), kind="stable")
    return PersonalFindings(
        site=study.site,
        study=study.protocol.study,
        simulated=study.protocol.simulated,
        atlas=study.atlas.name,
        protocol_sha256=study.protocol.sha256,
        run=run,
        training=len(study.cohort.training.gase),
        controls=len(study.cohort.control_strengths),
        cross_validated=_figures(model.own_prediction, study.cohort.training.gase),
        personal=figures(lambda scores: model.predict(scores, reader)),
        consortium=figures(of_consortium),
        alone=figures(lambda scores: alone.predict(scores, reader)),
        edges=tuple(
            Edge(region_a=names[ends[i, 0]], region_b=names[ends[i, 1]], weight=float(model.weight[i]))
            for i in order
        ),
        made=version("esn-federated"),
    )


def own_predictor(study: Study, course: Course) -> Callable[[Floats], OwnPrediction]:
    """Return what a site's personal model says of (d,) candidate scores of one of its patients.

    The interval is that of a released model (`ErrorOfPrediction`), from the error in the own training
    children, each by a fit without it.

    Raises
    ------
    StudyError, DataError
        As `fit_personal`.

    """
    model, reader = fit_personal(study, course)
    own = _figures(model.own_prediction, study.cohort.training.gase)

    def says(scores: Floats) -> OwnPrediction:
        predicted = float(model.predict(scores[None], reader)[0])
        half = half_width(own.children, own.rmse)
        low, high = float(GASE_LEVELS[0]), float(GASE_LEVELS[-1])
        return OwnPrediction(
            predicted_gase=predicted,
            interval=(max(predicted - half, low), min(predicted + half, high)),
            children=own.children,
            cross_validated_r=own.r,
        )

    return says


def _fitted(study: Study, reader: Reader, others: OthersSum | None) -> PersonalModel:
    split, edges = study.cohort.training, study.candidates.edges
    return fit(
        split.scores[:, edges],
        split.gase,
        study.cohort.control_scores[:, edges],
        blocks=study.candidates.blocks,
        others=others,
        reader=reader,
    )


def _others(study: Study, course: Course) -> OthersSum:
    """Return what was released about the other hospitals: the sum less this site's exact part of it."""
    sums, (children, centre) = course.sum_of("association"), course.centre
    if study.site not in sums.sites:
        return OthersSum(sums.total, children, sums.noise_sd)
    split = study.cohort.training
    features = study.candidates.features(split.scores)
    residual = residuals(split.gase, covariates(split.age_years, split.sex), centre)
    bound = association_release(features.shape[1]).l2_bound
    own = clip_rows(rows_of_residuals(features, residual), bound).sum(axis=0)
    return OthersSum(sums.total - own, max(children - len(split.gase), 0.0), sums.noise_sd)


def _figures(predicted: Floats, gase: Floats) -> Figures:
    error, r = predicted - gase, correlation(predicted, gase)
    return Figures(
        children=len(gase),
        r=r,
        r_interval=None if r is None or len(gase) <= 3 else fisher_interval(r, len(gase)),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
    )
