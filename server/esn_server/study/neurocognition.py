"""Neurocognition at the centre: all models of impairment, fitted and compared from sums."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from esn_core.analyses.neurocognition import (
    CLINICAL,
    PREDICTED,
    Kinds,
    Model,
    kinds_of,
    logit_clip,
    rivals,
    rules_of,
    span_of,
)
from esn_core.arrays import Floats
from esn_core.errors import DataError, StudyError
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.statistics import roc
from esn_core.statistics.calibration_curve import Reliability, judge_reliability
from esn_core.statistics.linear import LinearFit, linear_dimension, linear_fit
from esn_core.statistics.logistic_fit import LogisticFit
from esn_core.statistics.model_comparison import LikelihoodRatio, Vuong, likelihood_ratio, vuong_test
from esn_core.statistics.roc import Auc, AucDifference, DeLong
from esn_core.transcript.course import Course
from esn_core.transcript.model_fits import Fit, parts_of
from esn_server.study.asking import Ask


@dataclass(frozen=True)
class ModelFound:
    """One model of one outcome.

    Attributes
    ----------
    model : Model
    logistic : LogisticFit or None
        Of impairment, in the units of the predictors; None where it could not be fitted.
    linear : LinearFit or None
        Of the score, in its own unit.
    auc : Auc or None
    area_interval : (float, float) or None
        95 % by DeLong, where sums were exact.
    calibration : Reliability or None
    failed : str or None
        Why something could not be fitted.

    """

    model: Model
    logistic: LogisticFit | None
    linear: LinearFit | None
    auc: Auc | None
    area_interval: tuple[float, float] | None
    calibration: Reliability | None
    failed: str | None


@dataclass(frozen=True)
class Rivalry:
    """A model with the predicted severity, against the same model with the clinical one.

    Attributes
    ----------
    predicted, clinical : int
        Positions of the two models.
    aic_difference, bic_difference : float or None
        Of the predicted one less the clinical one: negative where the prediction explains more.
    criterion_noise_sd : float or None
        Standard deviation that the noise gives to both.
    wrong_way : tuple of str
        Which of the two severities go with less impairment as they grow.
    separated : tuple of str
        Which of them, with the other predictors, tell every child's outcome.
    vuong : Vuong or None
        Positive where the prediction is closer to the truth.
    area : AucDifference or None
        DeLong's paired test, where sums were exact.
    added : LikelihoodRatio or None
        What the prediction adds to the clinical score, where the protocol has the model with both and
        sums were exact.
    failed : str or None
        Why something could not be computed.
    way_lost : tuple of str
        Which of the two severities go a way that the noise hides.

    """

    predicted: int
    clinical: int
    aic_difference: float | None
    bic_difference: float | None
    criterion_noise_sd: float | None
    wrong_way: tuple[str, ...]
    separated: tuple[str, ...]
    vuong: Vuong | None
    area: AucDifference | None
    added: LikelihoodRatio | None
    failed: str | None
    way_lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Neurocognition:
    """All models, and all comparisons of predicted with clinical severity."""

    models: tuple[ModelFound, ...]
    rivalries: tuple[Rivalry, ...]


def run_neurocognition(course: Course, ask: Ask) -> Neurocognition:
    """Ask for all models of a protocol, together.

    Parameters
    ----------
    course : Course
    ask : Ask

    """
    protocol = course.protocol
    kinds, price, rounds = kinds_of(protocol), price_of(protocol), rules_of(protocol).rounds
    sums = ask("linear")
    widths = [linear_dimension(len(m.names)) for m in kinds.models]
    lines = [
        _linear(m, part, sums.noise_sd, protocol)
        for m, part in zip(kinds.models, parts_of(sums.total, widths), strict=True)
    ]
    clip = logit_clip(price.of("newton").noise_multiplier)
    for number in range(rounds):
        ask("newton", number)
    fits: list[Fit] = [
        (fit and fit.beside(None if line is None else line.spreads), why)
        for (fit, why), (line, _) in zip(course.fitted(rounds).fits(), lines, strict=True)
    ]
    compared = ask("comparison")
    noise = compared.noise_sd
    histograms, curves, vuongs = _compared(kinds, compared.total, noise, fits, clip)
    areas: dict[int, tuple[DeLong, int]] = {}
    if any(phase.phase == "ranking" for phase in price.phases):
        areas = _ranked(kinds, ask("ranking").total)
    found = []
    for i, model in enumerate(kinds.models):
        fit, why = fits[i]
        area, position = areas.get(i, (None, 0))
        said = [text for text in (why, lines[i][1]) if text]
        found.append(
            ModelFound(
                model=model,
                logistic=None if fit is None else _in_units(fit, model, protocol),
                linear=lines[i][0],
                auc=None if fit is None else roc.auc(histograms[i], noise_sd=noise),
                area_interval=None if area is None or fit is None else _pair(area.intervals[position]),
                calibration=None if fit is None else curves[i],
                failed="; ".join(said) or None,
            )
        )
    return Neurocognition(tuple(found), tuple(_rivalries(kinds, fits, vuongs, areas)))


def _linear(
    model: Model, total: Floats, noise: float, protocol: Protocol
) -> tuple[LinearFit | None, str | None]:
    try:
        fit = linear_fit(total, model.names, noise_sd=noise)
    except StudyError as error:
        return None, str(error)
    # From a score scaled to [-1, 1], and features likewise, to their units.
    low, high = span_of(model.outcome.column, protocol)
    half, middle = (high - low) / 2, (high + low) / 2
    change = half * _units(model, protocol)
    coefficients = change @ fit.coefficients
    coefficients[0] += middle
    covariance = change @ fit.covariance @ change.T
    ends = (fit.intervals - fit.coefficients[:, None]) @ np.array([-0.5, 0.5])
    grown = np.sqrt(np.diag(covariance)) / np.maximum(fit.standard_errors, np.finfo(float).tiny)
    t = coefficients / (np.hypot(fit.standard_errors, fit.noise_sd_of_coefficients) * grown)
    return (
        replace(
            fit,
            coefficients=coefficients,
            covariance=covariance,
            standard_errors=np.sqrt(np.diag(covariance)),
            noise_sd_of_coefficients=fit.noise_sd_of_coefficients * grown,
            intervals=coefficients[:, None] + np.array([-1.0, 1.0]) * (ends * grown)[:, None],
            t=t,
            p_values=np.asarray(2 * stdtr(fit.children - len(fit.names), -np.abs(t))),
            residual_sd=fit.residual_sd * half,
            log_likelihood=fit.log_likelihood - fit.children * np.log(half),
            aic=fit.aic + 2 * fit.children * np.log(half),
            bic=fit.bic + 2 * fit.children * np.log(half),
        ),
        None,
    )


def _in_units(fit: LogisticFit, model: Model, protocol: Protocol) -> LogisticFit:
    """Return a fit per unit of each predictor: the intercept is that of predictors of zero."""
    change = _units(model, protocol)
    return replace(
        fit,
        coefficients=change @ fit.coefficients,
        covariance=change @ fit.covariance @ change.T,
        noise_sd_of_coefficients=np.sqrt((change**2) @ fit.noise_sd_of_coefficients**2),
        profile=None if fit.profile is None else fit.profile * np.diag(change)[:, None],
    )


def _units(model: Model, protocol: Protocol) -> Floats:
    """Return the (p, p) matrix from coefficients of scaled features to those of features in their units."""
    spans = [span_of(name, protocol) for name in model.predictors]
    change = np.eye(len(model.names))
    for k, (low, high) in enumerate(spans, start=1):
        change[k, k] = 2 / (high - low)
        change[0, k] = -(low + high) / (high - low)
    return change


def _compared(
    kinds: Kinds,
    total: Floats,
    noise: float,
    fits: list[Fit],
    clip: float,
) -> tuple[list[Floats], list[Reliability | None], dict[tuple[int, int], Vuong | None]]:
    histograms: list[Floats] = []
    curves: list[Reliability | None] = []
    vuongs: dict[tuple[int, int], Vuong | None] = {}
    blocks = list(kinds.comparison_blocks())
    parts = parts_of(total, [kind.dimension for kind, _ in blocks])
    for (kind, chosen), part in zip(blocks, parts, strict=True):
        if kind.name == "histogram":
            histograms.append(part)
        elif kind.name == "reliability":
            curves.append(_curve(part, noise))
        else:
            vuongs[chosen[0], chosen[1]] = _vuong(part, fits[chosen[0]][0], fits[chosen[1]][0], noise, clip)
    return histograms, curves, vuongs


def _vuong(
    part: Floats, first: LogisticFit | None, second: LogisticFit | None, noise: float, clip: float
) -> Vuong | None:
    if first is None or second is None or _no_maximum(first, second):
        return None
    return vuong_test(
        part,
        first_features=len(first.names),
        second_features=len(second.names),
        logit_clip=clip,
        noise_sd=noise,
        lost_by_noise=math.hypot(first.loss_by_noise, second.loss_by_noise),
    )


def _no_maximum(*fits: LogisticFit) -> str | None:
    """Say why likelihoods at the coefficients of exact fits are not the largest; None where they are."""
    firths = [fit for fit in fits if fit.ratio_p is not None]
    return f"Vuong's test needs maxima; the fit is {firths[0].guard}" if firths else None


def _no_likelihood(*fits: LogisticFit) -> str | None:
    """Say that noise left a log-likelihood that no children have; None where it did not."""
    return None if all(fit.possible for fit in fits) else "the likelihood of one is lost in the noise"


def _other_children(first: LogisticFit, second: LogisticFit) -> str | None:
    """Say that exact fits are not of as many children; None where they are."""
    if abs(first.children - second.children) < 0.5:
        return None
    return f"one has {first.children:.0f} children, the other {second.children:.0f}"


def _curve(part: Floats, noise: float) -> Reliability | None:
    try:
        return judge_reliability(part, noise_sd=noise)
    except DataError:
        return None


def _ranked(kinds: Kinds, total: Floats) -> dict[int, tuple[DeLong, int]]:
    """Return the areas that each model is among, and its position there."""
    areas: dict[int, tuple[DeLong, int]] = {}
    groups = kinds.of_same_children()
    parts = parts_of(total, [roc.delong(len(own)).dimension for own in groups])
    for own, part in zip(groups, parts, strict=True):
        try:
            found = roc.delong_areas(part, len(own))
        except DataError:
            continue  # fewer than two children with, or without, the impairment
        areas |= {i: (found, position) for position, i in enumerate(own)}
    return areas


def _rivalries(
    kinds: Kinds,
    fits: list[Fit],
    vuongs: Mapping[tuple[int, int], Vuong | None],
    areas: Mapping[int, tuple[DeLong, int]],
) -> list[Rivalry]:
    found = []
    at = {(m.outcome.name, frozenset(m.predictors)): i for i, m in enumerate(kinds.models)}
    for predicted, clinical in rivals(kinds.models):
        name = kinds.models[predicted].outcome.name
        first, second = fits[predicted][0], fits[clinical][0]
        both = at.get(
            (
                name,
                frozenset(kinds.models[predicted].predictors) | frozenset(kinds.models[clinical].predictors),
            )
        )
        larger = None if both is None else fits[both][0]
        area, position = areas.get(predicted, (None, 0))
        added, why = _added(second, larger)
        comparable = (
            first is not None
            and second is not None
            and (not kinds.exact or (first.maximum and second.maximum and not _other_children(first, second)))
            and first.possible
            and second.possible
        )
        both_fitted = [] if first is None or second is None else [first, second]
        said = [why, _no_maximum(*both_fitted), _no_likelihood(*both_fitted)]
        said += [_other_children(*both_fitted)] if kinds.exact and both_fitted else []
        found.append(
            Rivalry(
                predicted=predicted,
                clinical=clinical,
                aic_difference=first.aic - second.aic if comparable and first and second else None,
                bic_difference=first.bic - second.bic if comparable and first and second else None,
                criterion_noise_sd=2
                * math.hypot(first.noise_sd_of_log_likelihood, second.noise_sd_of_log_likelihood)
                if first and second
                else None,
                wrong_way=tuple(
                    severity
                    for severity, fit in ((PREDICTED, first), (CLINICAL, second))
                    if fit is not None and fit.told and fit.coefficients[fit.names.index(severity)] < 0
                ),
                way_lost=tuple(
                    severity
                    for severity, fit in ((PREDICTED, first), (CLINICAL, second))
                    if fit is not None and not fit.told
                ),
                vuong=vuongs[predicted, clinical],
                area=area.difference(position, areas[clinical][1])
                if area is not None and first and second
                else None,
                added=added,
                separated=tuple(
                    severity
                    for severity, fit in ((PREDICTED, first), (CLINICAL, second))
                    if fit is not None and fit.separated
                ),
                failed="; ".join(text for text in said if text) or None,
            )
        )
    return found


def _added(
    smaller: LogisticFit | None, larger: LogisticFit | None
) -> tuple[LikelihoodRatio | None, str | None]:
    """Compare nested models of exact sums; noisy ones do not agree on how many children they have."""
    if smaller is None or larger is None or smaller.noise_sd_of_coefficients.any():
        return None, None
    try:
        return likelihood_ratio(smaller, larger), None
    except DataError as error:
        return None, str(error)


def _pair(interval: Floats) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])
