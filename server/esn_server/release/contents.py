"""What a model says of itself, from its protocol and its result."""

import hashlib
import math
from collections.abc import Mapping

from esn_core.analyses.neurocognition import Model, models_of
from esn_core.arrays import Floats
from esn_core.connectome.own_controls import FEWEST_CONTROLS
from esn_core.errors import StudyError
from esn_core.protocol.expected_noise import noise_of_sum
from esn_core.protocol.protocol import Protocol
from esn_core.released_model.content import (
    ErrorOfPrediction,
    ModelContent,
    Reference,
    RiskModel,
    StudysChildren,
)
from esn_core.released_model.numbers import ModelNumbers
from esn_core.statistics.matching import COHORT, noise_sd_of_age_variance
from esn_server.report.analyses import GroupSummary
from esn_server.report.impairment import ModelSummary
from esn_server.report.result import StudyResult

# Of the variance of ages: with fewer, the 95 % interval that the noise leaves it holds 0.
_NOISE_SDS = 2.0

INTENDED_USE = (
    "Research on the epilepsy severity network in children with drug-resistant epilepsy: a predicted GASE "
    "from a structural connectome that was made by the protocol's recipe, at a hospital with own healthy "
    "controls."
)
NOT_INTENDED = (
    "Decisions about a patient, and diagnosis. It is no medical device. It was trained on GASE and repeats "
    "what GASE says, its errors included; it is not known to hold for children of other ages, scanners or "
    "countries than the study's, and it says nothing about children without epilepsy."
)


def content_of(
    protocol: Protocol, result: StudyResult, numbers: ModelNumbers, *, parts: Mapping[str, bytes]
) -> ModelContent:
    """Return what a model says of itself.

    Parameters
    ----------
    protocol : Protocol
    result : StudyResult
        With everything that `missing_controls` asks for.
    numbers : ModelNumbers
    parts : dict of str to bytes
        Every other file of the model, by its name.

    Raises
    ------
    StudyError
        The evaluation lacks what an interval is made from.

    """
    imaging, found = protocol.imaging, result.evaluation.estimates
    if found is None or found.r is None or found.rmse is None:
        raise StudyError("without the error in held-out children there is no interval of a prediction")
    intercept, slope = (float(number) for number in numbers.calibration)
    return ModelContent(
        study=protocol.study,
        run=result.run,
        protocol_sha256=protocol.sha256,
        simulated=protocol.simulated,
        sites=tuple(site.name for site in result.sites),
        software=_software(result),
        atlas=imaging.atlas,
        atlas_sha256=imaging.parcellation.sha256,
        recipe_sha256=imaging.sha256,
        reference=_reference(protocol, result),
        calibration=(intercept, slope),
        error=ErrorOfPrediction(
            children=found.children.value,
            rmse=found.rmse.value,
            rmse_interval=found.rmse.interval,
            r=found.r.value,
            r_interval=found.r.interval,
        ),
        children=children_of(protocol, result),
        probe=numbers.probe(imaging.parcellation),
        random_r=tuple(draw.r for draw in result.random_score.draws) if result.random_score else (),
        risks=_risks(protocol, result, numbers),
        intended_use=INTENDED_USE,
        not_intended=NOT_INTENDED,
        files={name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
    )


def _software(result: StudyResult) -> dict[str, str]:
    """Name the versions that all sites answered with; the roll call let no two differ in what counts."""
    found: dict[str, set[str]] = {}
    for site in result.sites:
        for name, version in site.software.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}


def _reference(protocol: Protocol, result: StudyResult) -> Reference:
    rules = protocol.cohort
    if rules.harmonisation == "combat":
        raise StudyError("a model of ComBat's scores predicts no other child")
    return Reference(
        method=rules.harmonisation,
        words=result.harmonisation.note if result.harmonisation else "",
        fewest_controls=max(rules.minimum_controls, FEWEST_CONTROLS),
        template_sha256=protocol.template_sha256,
        candidates=result.severity_network.note,
    )


def children_of(protocol: Protocol, result: StudyResult) -> StudysChildren:
    """Pool mean and spread of predictions over the levels, and take the ages as far as noise tells them."""
    levels = [
        (max(level.children, 0.0), level.mean_prediction, level.sd_prediction or 0.0)
        for level in result.evaluation.by_gase
        if level.mean_prediction is not None
    ]
    total = sum(n for n, _, _ in levels)
    mean = sd = None
    if total > 1:
        mean = sum(n * m for n, m, _ in levels) / total
        sd = math.sqrt(sum(n * (s**2 + (m - mean) ** 2) for n, m, s in levels) / total) or None
    ages = result.cohort.children if result.cohort is not None else None
    return StudysChildren(
        mean_prediction=mean,
        sd_prediction=sd,
        mean_age_years=None if ages is None else ages.mean_age_years,
        sd_age_years=None if ages is None else _spread_of_ages(protocol, ages),
    )


def _spread_of_ages(protocol: Protocol, ages: GroupSummary) -> float | None:
    """Return the spread of ages; none where noise may be all of it, as chance would then refuse children."""
    mean, sd = ages.mean_age_years, ages.sd_age_years
    if mean is None or sd is None:
        return None
    noise = noise_sd_of_age_variance(ages.people, mean, sd, noise_sd=noise_of_sum(protocol, COHORT))
    return sd if sd**2 > _NOISE_SDS * noise else None


def _risks(protocol: Protocol, result: StudyResult, numbers: ModelNumbers) -> tuple[RiskModel, ...]:
    if result.neurocognition is None:
        return ()
    summaries = result.neurocognition.models
    planned = models_of(protocol)
    if not len(summaries) == len(planned) == len(numbers.risks):
        raise StudyError("result.json and the run's numbers hold different models of impairment")
    found = zip(planned, summaries, numbers.risks, strict=True)
    return tuple(
        _risk(model, summary, risk)
        for model, summary, risk in found
        if risk is not None and summary.children is not None and summary.impaired is not None
    )


def _risk(model: Model, summary: ModelSummary, risk: tuple[Floats, Floats]) -> RiskModel:
    coefficients, covariance = risk
    return RiskModel(
        outcome=model.outcome.name,
        column=model.outcome.column,
        impaired_below=model.outcome.impaired_below,
        predictors=model.predictors,
        coefficients=tuple(coefficients.tolist()),
        covariance=tuple(tuple(row) for row in covariance.tolist()),
        children=summary.children or 0.0,
        impaired=summary.impaired or 0.0,
    )
