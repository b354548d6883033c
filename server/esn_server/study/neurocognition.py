"""Neurocognition at the centre: all models of impairment, fitted and compared from sums."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from esn_core.analyses.neurocognition import (
    Kinds,
    Model,
    logit_clip,
    models_of,
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
from esn_core.statistics.logistic_fit import LogisticFit, LogisticNewton
from esn_core.statistics.logistic_sums import newton_dimension
from esn_core.statistics.model_comparison import LikelihoodRatio, Vuong, likelihood_ratio, vuong_test
from esn_core.statistics.roc import Auc, AucDifference, DeLong
from esn_server.study.asking import Arrays, Ask


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
    vuong : Vuong or None
        Positive where the prediction is closer to the truth.
    area : AucDifference or None
        DeLong's paired test, where sums were exact.
    added : LikelihoodRatio or None
        What the prediction adds to the clinical score, where the protocol has the model with both and
        sums were exact.

    """

    predicted: int
    clinical: int
    aic_difference: float | None
    bic_difference: float | None
    vuong: Vuong | None
    area: AucDifference | None
    added: LikelihoodRatio | None


@dataclass(frozen=True)
class Neurocognition:
    """All models, and all comparisons of predicted with clinical severity."""

    models: tuple[ModelFound, ...]
    rivalries: tuple[Rivalry, ...]


def run_neurocognition(protocol: Protocol, ask: Ask, given: Arrays) -> Neurocognition:
    """Ask for all models of a protocol, together.

    Parameters
    ----------
    protocol : Protocol
    ask : Ask
    given : dict of str to array
        Weights, edge weights and calibration of the prediction.

    """
    kinds, price = Kinds(models_of(protocol)), price_of(protocol)
    pooled, noise = ask("linear", kinds.linear, 0, given)
    widths = [linear_dimension(len(m.names)) for m in kinds.models]
    lines = [
        _linear(m, part, noise, protocol)
        for m, part in zip(kinds.models, _parts(pooled.total, widths), strict=True)
    ]
    clip = logit_clip(price.of("newton").noise_multiplier)
    fits, coefficients = _newton(protocol, kinds, ask, given, clip)
    given = {**given, "coefficients": coefficients}
    pooled, noise = ask("comparison", kinds.comparison, 0, given)
    histograms, curves, vuongs = _compared(kinds, pooled.total, noise, fits, clip)
    areas: dict[str, DeLong] = {}
    if any(phase.phase == "ranking" for phase in price.phases):
        pooled, _ = ask("ranking", kinds.ranking, 0, {**given, "histograms": np.concatenate(histograms)})
        areas = _ranked(kinds, pooled.total)
    found = []
    for i, model in enumerate(kinds.models):
        fit, why = fits[i]
        own = kinds.by_outcome()[model.outcome.name]
        area = areas.get(model.outcome.name)
        said = [text for text in (why, lines[i][1]) if text]
        found.append(
            ModelFound(
                model=model,
                logistic=None if fit is None else _in_units(fit, model, protocol),
                linear=lines[i][0],
                auc=None if fit is None else roc.auc(histograms[i], noise_sd=noise),
                area_interval=None if area is None or fit is None else _pair(area.intervals[own.index(i)]),
                calibration=None if fit is None else curves[i],
                failed="; ".join(said) or None,
            )
        )
    return Neurocognition(tuple(found), tuple(_rivalries(kinds, fits, vuongs, areas)))


def _newton(
    protocol: Protocol, kinds: Kinds, ask: Ask, given: Arrays, clip: float
) -> tuple[list[tuple[LogisticFit | None, str | None]], Floats]:
    """Take all Newton steps of all models; return the fits, or why there is none, and all coefficients."""
    machines: list[LogisticNewton] = []
    widths = [newton_dimension(len(m.names)) for m in kinds.models]
    for number in range(rules_of(protocol).rounds):
        at = [machine.coefficients for machine in machines] or [np.zeros(len(m.names)) for m in kinds.models]
        pooled, noise = ask("newton", kinds.newton, number, {**given, "coefficients": np.concatenate(at)})
        machines = machines or [
            LogisticNewton(m.names, feature_norm=m.feature_norm, logit_clip=clip, noise_sd=noise)
            for m in kinds.models
        ]
        for machine, part in zip(machines, _parts(pooled.total, widths), strict=True):
            machine.step(part)
    fits: list[tuple[LogisticFit | None, str | None]] = []
    for machine in machines:
        try:
            fits.append((machine.fit(), None))
        except StudyError as error:
            fits.append((None, str(error)))
    coefficients = [
        np.zeros(len(m.names)) if fit is None else fit.coefficients
        for m, (fit, _) in zip(kinds.models, fits, strict=True)
    ]
    return fits, np.concatenate(coefficients)


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
    return (
        replace(
            fit,
            coefficients=coefficients,
            covariance=covariance,
            standard_errors=np.sqrt(np.diag(covariance)),
            noise_sd_of_coefficients=fit.noise_sd_of_coefficients * grown,
            intervals=coefficients[:, None] + np.array([-1.0, 1.0]) * (ends * grown)[:, None],
            t=np.concatenate([[coefficients[0] / (fit.standard_errors[0] * grown[0])], fit.t[1:]]),
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
    fits: list[tuple[LogisticFit | None, str | None]],
    clip: float,
) -> tuple[list[Floats], list[Reliability | None], dict[tuple[int, int], Vuong | None]]:
    histograms: list[Floats] = []
    curves: list[Reliability | None] = []
    vuongs: dict[tuple[int, int], Vuong | None] = {}
    blocks = list(kinds.comparison_blocks())
    parts = _parts(total, [kind.dimension for kind, _ in blocks])
    for (kind, chosen), part in zip(blocks, parts, strict=True):
        if kind.name == "histogram":
            histograms.append(part)
        elif kind.name == "reliability":
            curves.append(_curve(part, noise))
        else:
            first, second = chosen
            known = fits[first][0] is not None and fits[second][0] is not None
            vuongs[first, second] = (
                vuong_test(
                    part,
                    first_features=len(kinds.models[first].names),
                    second_features=len(kinds.models[second].names),
                    logit_clip=clip,
                    noise_sd=noise,
                )
                if known
                else None
            )
    return histograms, curves, vuongs


def _curve(part: Floats, noise: float) -> Reliability | None:
    try:
        return judge_reliability(part, noise_sd=noise)
    except DataError:
        return None


def _ranked(kinds: Kinds, total: Floats) -> dict[str, DeLong]:
    areas = {}
    outcomes = kinds.by_outcome()
    parts = _parts(total, [roc.delong(len(own)).dimension for own in outcomes.values()])
    for (name, own), part in zip(outcomes.items(), parts, strict=True):
        try:
            areas[name] = roc.delong_areas(part, len(own))
        except DataError:
            continue  # fewer than two children with, or without, the impairment
    return areas


def _rivalries(
    kinds: Kinds,
    fits: list[tuple[LogisticFit | None, str | None]],
    vuongs: Mapping[tuple[int, int], Vuong | None],
    areas: Mapping[str, DeLong],
) -> list[Rivalry]:
    found = []
    at = {(m.outcome.name, frozenset(m.predictors)): i for i, m in enumerate(kinds.models)}
    for predicted, clinical in rivals(kinds.models):
        name = kinds.models[predicted].outcome.name
        own = kinds.by_outcome()[name]
        first, second = fits[predicted][0], fits[clinical][0]
        both = at.get(
            (
                name,
                frozenset(kinds.models[predicted].predictors) | frozenset(kinds.models[clinical].predictors),
            )
        )
        larger = None if both is None else fits[both][0]
        known = first is not None and second is not None
        found.append(
            Rivalry(
                predicted=predicted,
                clinical=clinical,
                aic_difference=first.aic - second.aic if first and second else None,
                bic_difference=first.bic - second.bic if first and second else None,
                vuong=vuongs[predicted, clinical],
                area=areas[name].difference(own.index(predicted), own.index(clinical))
                if known and name in areas
                else None,
                added=_added(second, larger),
            )
        )
    return found


def _added(smaller: LogisticFit | None, larger: LogisticFit | None) -> LikelihoodRatio | None:
    """Compare nested models of exact sums; noisy ones do not agree on how many children they have."""
    if smaller is None or larger is None or smaller.noise_sd_of_coefficients.any():
        return None
    return likelihood_ratio(smaller, larger)


def _parts(total: Floats, widths: list[int]) -> list[Floats]:
    return np.split(total, np.cumsum(widths)[:-1])


def _pair(interval: Floats) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])
