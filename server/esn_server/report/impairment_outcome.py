"""What the models of impairment found, put into the schema of result.json."""

import math
from typing import TypeVar

import numpy as np
from scipy.special import chdtrc

from esn_core.analyses.neurocognition import rules_of
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.calibration_curve import AtThreshold, Share
from esn_core.statistics.intervals import Z_95
from esn_core.statistics.linear import LinearFit
from esn_core.statistics.logistic_fit import LogisticFit
from esn_core.statistics.roc import Auc
from esn_server.report.analyses import Estimated
from esn_server.report.contests import contests_of
from esn_server.report.impairment import (
    CalibrationGroup,
    Coefficient,
    LinearCoefficient,
    ModelSummary,
    NeurocognitionSummary,
    OperatingPoint,
    RocPoint,
)
from esn_server.study.neurocognition import ModelFound, Neurocognition
from esn_server.study.study import Findings

Said = TypeVar("Said", Coefficient, LinearCoefficient)

_LOSSES_UNKNOWN = (
    "How many children a model of impairment lacks because a hospital has not one of its columns cannot be "
    "counted under the privacy noise."
)


def neurocognition_of(protocol: Protocol, findings: Findings) -> NeurocognitionSummary | None:
    """Return all models of impairment, and what their comparison says in plain words."""
    found = findings.neurocognition
    if found is None:
        return None
    rules = rules_of(protocol)
    held_out = findings.estimates.children.value
    return NeurocognitionSummary(
        exact=findings.price.of("newton").noise_multiplier == 0,
        models=[summary_of(model, held_out) for model in found.models],
        contests=contests_of(found, rules.primary),
        called_impaired_from=rules.called_impaired_from,
    )


def children_lost(found: Neurocognition) -> list[str]:
    """Say which predictors cost a model children, beside the models of the same outcome that do without."""
    fitted = [m for m in found.models if m.logistic is not None]
    if any(m.logistic.noise_sd_of_coefficients.any() for m in fitted if m.logistic):
        some = any(m.model.others for m in fitted)
        return [_LOSSES_UNKNOWN] if some else []
    said = []
    for outcome in dict.fromkeys(m.model.outcome.name for m in fitted):
        own = [m for m in fitted if m.model.outcome.name == outcome]
        most = max(m.logistic.children for m in own if m.logistic)
        for others in dict.fromkeys(m.model.others for m in own):
            left = max(m.logistic.children for m in own if m.logistic and m.model.others == others)
            if left < most - 0.5:
                said.append(
                    f"Models of {outcome} with {', '.join(sorted(others))} have {left:.0f} of "
                    f"{most:.0f} children: the others lack one of these."
                )
    return said


def summary_of(found: ModelFound, held_out: float) -> ModelSummary:
    """Return one model of one impairment; `held_out` is how many children could have been among its own."""
    fit, auc, curve = found.logistic, found.auc, found.calibration
    area = found.area_interval or (auc.interval if auc is not None else None)
    predictors = len(found.model.predictors)
    r_squared = None if found.linear is None or not found.linear.told else found.linear.r_squared
    noised = fit is not None and bool(fit.noise_sd_of_coefficients.any())
    likelihood = fit if fit is not None and fit.possible and (noised or fit.maximum) else None
    counted = fit if fit is not None and 0 <= fit.positives <= fit.children else None
    return ModelSummary(
        outcome=found.model.outcome.name,
        predictors=list(found.model.predictors),
        children=None if fit is None else fit.children,
        impaired=None if counted is None else counted.positives,
        left_out=None if fit is None else max(held_out - fit.children, 0.0),
        events_per_variable=None if counted is None else _rarer(counted) / predictors,
        coefficients=[] if fit is None else _coefficients(fit),
        converged=None if fit is None else fit.converged,
        log_likelihood=None if likelihood is None else likelihood.log_likelihood,
        model_p=None if fit is None else model_p(fit),
        aic=None if likelihood is None else likelihood.aic,
        bic=None if likelihood is None else likelihood.bic,
        auc=None if auc is None else auc.value,
        auc_interval=area,
        auc_interval_by=None if area is None else "DeLong" if found.area_interval else "Hanley and McNeil",
        auc_binning=None if auc is None else auc.binning_bound,
        roc=[] if auc is None else _roc(auc),
        brier=None if curve is None else curve.brier,
        brier_interval=None if curve is None else curve.brier_interval,
        expected_slope=None if fit is None else _expected_slope(fit),
        calibration_in_the_large=None
        if curve is None
        else _estimated(curve.in_the_large, curve.in_the_large_interval),
        calibration=[]
        if curve is None
        else [
            CalibrationGroup(
                children=g.children, predicted=g.predicted, observed=g.observed, interval=g.interval
            )
            for g in curve.groups
        ],
        operating_points=[] if curve is None else [_operating_point(at) for at in curve.thresholds],
        hosmer_lemeshow_p=None if curve is None else curve.p_value,
        guard=None if fit is None else fit.guard,
        r_squared=r_squared if r_squared is not None and 0 <= r_squared <= 1 else None,
        linear=[] if found.linear is None else _linear(found.linear),
        lost=_lost(found),
        failed=found.failed,
    )


def _lost(found: ModelFound) -> list[str]:
    """Name what noise hides, or left nothing possible of."""
    fit, curve, line = found.logistic, found.calibration, found.linear
    lost: dict[str, bool] = {}
    if fit is not None and fit.noise_sd_of_coefficients.any():
        at = () if curve is None else curve.thresholds
        lost = {
            "coefficients": not fit.told,
            "impaired": not 0 <= fit.positives <= fit.children,
            "log_likelihood": not fit.possible,
            "aic": not fit.possible,
            "bic": not fit.possible,
            "auc": found.auc is None,
            "calibration": curve is None,
            "brier": curve is None or curve.brier is None,
            "calibration_in_the_large": curve is None or curve.in_the_large is None,
            "calibration_children": curve is not None and any(g.children is None for g in curve.groups),
            "net_benefit": any(one.net_benefit is None for one in at),
            "net_benefit_of_all": any(one.net_benefit_of_all is None for one in at),
        }
    if line is not None:
        lost["linear"] = not line.told
        lost["r_squared"] = not (line.told and 0 <= line.r_squared <= 1)
    return [name for name, gone in lost.items() if gone]


def _estimated(value: float | None, interval: tuple[float, float] | None) -> Estimated | None:
    return None if value is None or interval is None else Estimated(value=value, interval=interval)


def _rarer(fit: LogisticFit) -> float:
    return max(min(fit.positives, fit.children - fit.positives), 0.0)


def _chi_squared(fit: LogisticFit) -> float | None:
    """Return twice the gain in log-likelihood over the intercept alone, for exact sums with a maximum."""
    separated = fit.ratio_p is not None
    if fit.noise_sd_of_coefficients.any() or separated or not fit.maximum or fit.null_log_likelihood is None:
        return None
    return 2 * (fit.log_likelihood - fit.null_log_likelihood)


def model_p(fit: LogisticFit) -> float | None:
    """Return p of the likelihood ratio against the intercept alone, for exact sums with a maximum."""
    gain = _chi_squared(fit)
    return None if gain is None else float(chdtrc(len(fit.names) - 1, max(gain, 0.0)))


def _expected_slope(fit: LogisticFit) -> Estimated | None:
    """Return the shrinkage of van Houwelingen & le Cessie (1990, Statistics in Medicine 9:1303).

    Its interval is that of the apparent slope, 1, whose standard error is 1 over the root of Wald's
    chi-squared of all predictors together; where the model explains less than its predictors would by
    chance, the slope is 0.
    """
    gain, freedom = _chi_squared(fit), len(fit.names) - 1
    if gain is None:
        return None
    effects = fit.coefficients[1:]
    wald = float(effects @ np.linalg.solve(fit.covariance[1:, 1:], effects))
    slope = max(1 - freedom / gain, 0.0) if gain > 0 else 0.0
    half = Z_95 / math.sqrt(wald) if wald > 0 else math.inf
    if not math.isfinite(half):
        return None
    return Estimated(value=slope, interval=(slope - half, slope + half))


def _coefficients(fit: LogisticFit) -> list[Coefficient]:
    said = []
    ends, by_profile = fit.odds_ratio_intervals, fit.by_profile
    for k, name in enumerate(fit.names):
        low, high = (float(x) for x in ends[k])
        ratio = float(fit.odds_ratios[k])
        said.append(
            Coefficient(
                name=name,
                coefficient=float(fit.coefficients[k]),
                standard_error=float(fit.standard_errors[k]),
                noise_sd=float(fit.noise_sd_of_coefficients[k]),
                odds_ratio=ratio if math.isfinite(ratio) else None,
                odds_ratio_interval=(low, high) if np.isfinite([low, high]).all() else None,
                interval_by="profile likelihood" if by_profile[k] else "Wald",
                p_value=float(fit.p_values[k]),
            )
        )
    return said if fit.told else [_hidden(one) for one in said]


def _hidden(one: Said) -> Said:
    """Return a coefficient of which the noise leaves nothing but its name."""
    nothing = {name: None for name in type(one).model_fields if name != "name"}
    return one.model_copy(update=nothing)


def _linear(fit: LinearFit) -> list[LinearCoefficient]:
    said = [
        LinearCoefficient(
            name=name,
            coefficient=float(fit.coefficients[k]),
            interval=(float(fit.intervals[k, 0]), float(fit.intervals[k, 1])),
            p_value=float(fit.p_values[k]),
        )
        for k, name in enumerate(fit.names)
    ]
    return said if fit.told else [_hidden(one) for one in said]


def _roc(auc: Auc) -> list[RocPoint]:
    """Return the points at which the curve moves, within 0 and 1."""
    x, y = (np.clip(rate, 0.0, 1.0) for rate in (auc.false_positive_rate, auc.true_positive_rate))
    moves = np.concatenate([[True], (np.diff(x) != 0) | (np.diff(y) != 0)])
    return [
        RocPoint(false_positive_rate=float(a), true_positive_rate=float(b))
        for a, b in zip(x[moves], y[moves], strict=True)
    ]


def _operating_point(at: AtThreshold) -> OperatingPoint:
    def told(share: Share | None) -> Estimated | None:
        return None if share is None else Estimated(value=share.value, interval=share.interval)

    return OperatingPoint(
        threshold=at.threshold,
        sensitivity=told(at.sensitivity),
        specificity=told(at.specificity),
        positive_predictive_value=told(at.positive_predictive_value),
        negative_predictive_value=told(at.negative_predictive_value),
        net_benefit=_estimated(at.net_benefit, at.net_benefit_interval),
        net_benefit_of_all=at.net_benefit_of_all,
    )
