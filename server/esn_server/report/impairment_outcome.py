"""What the models of impairment found, put into the schema of result.json."""

import math

import numpy as np
from scipy.special import chdtrc

from esn_core.analyses.neurocognition import rules_of
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.calibration_curve import AtThreshold, Reliability, Share
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
    said = []
    for outcome in dict.fromkeys(m.model.outcome.name for m in found.models):
        own = [m for m in found.models if m.model.outcome.name == outcome and m.logistic is not None]
        most = max((m.logistic.children for m in own if m.logistic), default=0.0)
        for others in dict.fromkeys(m.model.others for m in own):
            left = max(m.logistic.children for m in own if m.logistic and m.model.others == others)
            noise = any(m.logistic.noise_sd_of_coefficients.any() for m in own if m.logistic)
            if not noise and left < most - 0.5:
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
    r_squared = None if found.linear is None else found.linear.r_squared
    possible = r_squared is not None and 0 <= r_squared <= 1
    lost = [] if fit is None else _lost(fit, auc, curve)
    return ModelSummary(
        outcome=found.model.outcome.name,
        predictors=list(found.model.predictors),
        children=None if fit is None else fit.children,
        impaired=None if fit is None else fit.positives,
        left_out=None if fit is None else max(held_out - fit.children, 0.0),
        events_per_variable=None if fit is None else _rarer(fit) / predictors,
        coefficients=[] if fit is None else _coefficients(fit),
        converged=None if fit is None else fit.converged,
        log_likelihood=None if fit is None else fit.log_likelihood,
        model_p=None if fit is None else _model_p(fit),
        aic=None if fit is None else fit.aic,
        bic=None if fit is None else fit.bic,
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
        else Estimated(value=curve.in_the_large, interval=curve.in_the_large_interval),
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
        r_squared=r_squared if possible else None,
        linear=[] if found.linear is None else _linear(found.linear),
        lost=lost + (["r_squared"] if r_squared is not None and not possible else []),
        failed=found.failed,
    )


def _lost(fit: LogisticFit, auc: Auc | None, curve: Reliability | None) -> list[str]:
    """Name what noise left nothing possible of."""
    if not fit.noise_sd_of_coefficients.any():
        return []
    lost = {"auc": auc, "calibration": curve, "brier": curve and curve.brier}
    return [name for name, found in lost.items() if found is None]


def _rarer(fit: LogisticFit) -> float:
    return max(min(fit.positives, fit.children - fit.positives), 0.0)


def _chi_squared(fit: LogisticFit) -> float | None:
    """Return twice the gain in log-likelihood over the intercept alone, for exact sums with a maximum."""
    separated = fit.ratio_p is not None
    if fit.noise_sd_of_coefficients.any() or separated or not fit.maximum or fit.null_log_likelihood is None:
        return None
    return 2 * (fit.log_likelihood - fit.null_log_likelihood)


def _model_p(fit: LogisticFit) -> float | None:
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
    return said


def _linear(fit: LinearFit) -> list[LinearCoefficient]:
    return [
        LinearCoefficient(
            name=name,
            coefficient=float(fit.coefficients[k]),
            interval=(float(fit.intervals[k, 0]), float(fit.intervals[k, 1])),
            p_value=float(fit.p_values[k]),
        )
        for k, name in enumerate(fit.names)
    ]


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
        net_benefit=Estimated(value=at.net_benefit, interval=at.net_benefit_interval),
        net_benefit_of_all=at.net_benefit_of_all,
    )
