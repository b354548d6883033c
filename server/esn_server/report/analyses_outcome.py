"""What the further analyses found, put into the words and the schema of result.json."""

import math
from collections.abc import Mapping

import numpy as np

from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.analyses import SEVERITIES
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.logistic_fit import LogisticFit
from esn_core.statistics.matching import Group
from esn_server.report.analyses import (
    Coefficient,
    CohortSummary,
    Contest,
    Correlation,
    CrossSite,
    EdgeShare,
    ExactEdge,
    ExactNetworkSummary,
    Explanation,
    GroupSummary,
    LeftOut,
    ModelSummary,
    NetworkComponent,
    NeurocognitionSummary,
    RandomScore,
)
from esn_server.study.neurocognition import ModelFound, Neurocognition, Rivalry
from esn_server.study.reruns import Tested
from esn_server.study.study import Findings

_SURE = 0.05


_ABSENT = {
    "cross_site": "the protocol did not ask for it",
    "cross_validation": "the protocol did not ask for it",
    "random_score": "the protocol did not ask for it",
    "explanation": "the protocol did not ask for it",
    "exact_network": "the protocol did not ask for it; it needs exact sums and the consent of all sites",
    "cohort": "the protocol did not ask for it",
    "neurocognition": "the protocol did not ask for it",
    "local_only": "it is computed beside a study of simulated children alone: it stays at the site",
    "baselines": "they are computed beside a study of simulated children alone: they need pooled children",
}


def absent_of(analyses: Mapping[str, object]) -> dict[str, str]:
    """Return why analyses are null, by the name of each.

    Parameters
    ----------
    analyses : dict of str to object
        What result.json holds of each analysis; None, or no entry, where it holds null.

    """
    return {name: why for name, why in _ABSENT.items() if analyses.get(name) is None}


def cross_site_of(findings: Findings) -> CrossSite | None:
    """Return what leaving out each site showed."""
    reruns = findings.reruns
    if reruns is None or reruns.across_sites is None:
        return None
    return CrossSite(
        by_site=[
            LeftOut(site=site, **_correlation(tested).model_dump()) for site, tested in reruns.by_site.items()
        ],
        together=_correlation(reruns.across_sites),
    )


def cross_validation_of(findings: Findings) -> Correlation | None:
    """Return the cross-validation of the training children."""
    reruns = findings.reruns
    return None if reruns is None or reruns.across_parts is None else _correlation(reruns.across_parts)


def random_score_of(findings: Findings) -> RandomScore | None:
    """Return the runs with scores drawn at random."""
    reruns = findings.reruns
    if reruns is None or not reruns.random:
        return None
    return RandomScore(draws=[_correlation(tested) for tested in reruns.random], simulated=None)


def cohort_of(findings: Findings) -> CohortSummary | None:
    """Return how children and controls match."""
    found = findings.matching
    if found is None:
        return None
    return CohortSummary(
        children=_group(found.children),
        controls=_group(found.controls),
        age_difference=found.age_difference,
        sex_difference=found.sex_difference,
        left_out=dict(found.left_out),
    )


def neurocognition_of(findings: Findings) -> NeurocognitionSummary | None:
    """Return all models of impairment, and what their comparison says in plain words."""
    found = findings.neurocognition
    if found is None:
        return None
    return NeurocognitionSummary(
        exact=findings.price.of("newton").noise_multiplier == 0,
        models=[_model(model) for model in found.models],
        contests=[_contest(rivalry, found) for rivalry in found.rivalries],
    )


def explanation_of(protocol: Protocol, findings: Findings) -> Explanation | None:
    """Return what each candidate connection contributes, the largest first."""
    found = findings.attribution
    if found is None:
        return None
    atlas = load_atlas(protocol.imaging.atlas)
    order = np.argsort(-np.abs(found.mean), kind="stable")
    ends = atlas.edges[findings.network.edges]
    return Explanation(
        edges=[
            EdgeShare(
                region_a=atlas.names[ends[i, 0]], region_b=atlas.names[ends[i, 1]], mean=float(found.mean[i])
            )
            for i in order
        ],
        noise_sd=found.noise_sd,
        truth_r=None,
    )


def _correlation(tested: Tested) -> Correlation:
    found = tested.agreement
    return Correlation(
        children=found.children,
        r=found.r,
        r_interval=found.r_interval,
        r_noise_sd=tested.r_noise_sd,
        mae=found.mae,
    )


def _group(group: Group) -> GroupSummary:
    return GroupSummary(
        people=group.people,
        mean_age_years=group.mean_age_years,
        sd_age_years=group.sd_age_years,
        share_male=group.share_male,
    )


def _model(found: ModelFound) -> ModelSummary:
    fit, auc, curve = found.logistic, found.auc, found.calibration
    area = found.area_interval or (auc.interval if auc is not None else None)
    return ModelSummary(
        outcome=found.model.outcome.name,
        predictors=list(found.model.predictors),
        children=None if fit is None else fit.children,
        impaired=None if fit is None else fit.positives,
        coefficients=[] if fit is None else _coefficients(fit),
        log_likelihood=None if fit is None else fit.log_likelihood,
        aic=None if fit is None else fit.aic,
        bic=None if fit is None else fit.bic,
        auc=None if auc is None else auc.value,
        auc_interval=area,
        auc_interval_by=None if area is None else "DeLong" if found.area_interval else "Hanley and McNeil",
        brier=None if curve is None else curve.brier,
        hosmer_lemeshow_p=None if curve is None else curve.p_value,
        guard=None if fit is None else fit.guard,
        r_squared=None if found.linear is None else found.linear.r_squared,
        failed=found.failed,
    )


def _coefficients(fit: LogisticFit) -> list[Coefficient]:
    said = []
    for k, name in enumerate(fit.names):
        low, high = (float(x) for x in fit.odds_ratio_intervals[k])
        ratio = float(fit.odds_ratios[k])
        said.append(
            Coefficient(
                name=name,
                coefficient=float(fit.coefficients[k]),
                standard_error=float(fit.standard_errors[k]),
                noise_sd=float(fit.noise_sd_of_coefficients[k]),
                odds_ratio=ratio if math.isfinite(ratio) else None,
                odds_ratio_interval=(low, high) if np.isfinite([low, high]).all() else None,
                p_value=float(fit.p_values[k]),
            )
        )
    return said


def _contest(rivalry: Rivalry, found: Neurocognition) -> Contest:
    model = found.models[rivalry.predicted].model
    area, vuong = rivalry.area, rivalry.vuong
    return Contest(
        outcome=model.outcome.name,
        others=[name for name in model.predictors if name not in SEVERITIES],
        aic_difference=rivalry.aic_difference,
        bic_difference=rivalry.bic_difference,
        vuong_z=None if vuong is None else vuong.z,
        vuong_p=None if vuong is None else vuong.p_value,
        auc_difference=None if area is None else area.value,
        auc_difference_interval=None if area is None else area.interval,
        auc_difference_p=None if area is None else area.p_value,
        added_p=None if rivalry.added is None else rivalry.added.p_value,
        verdict=verdict_of(rivalry),
    )


def verdict_of(rivalry: Rivalry) -> str:
    """Say in plain words which severity explains an impairment better, no surer than the tests are."""
    if rivalry.aic_difference is None or rivalry.vuong is None:
        return "The two models cannot be compared: one of them could not be fitted, or they say the same."
    better = "predicted" if rivalry.aic_difference < 0 else "clinical"
    other = "clinical" if better == "predicted" else "predicted"
    sure = rivalry.vuong.p_value < _SURE
    area = rivalry.area
    ranked = area is not None and area.p_value < _SURE
    said = f"The {better} severity fits better by {abs(rivalry.aic_difference):.1f} units of AIC"
    if not sure and not ranked:
        return (
            f"{said}, but neither Vuong's test (p {rivalry.vuong.p_value:.2g}) nor the areas tell it from "
            f"the {other} one: these children do not decide."
        )
    said += f"; Vuong's test {'agrees' if sure else 'does not decide'} (p {rivalry.vuong.p_value:.2g})"
    if area is not None:
        said += f", the difference of the areas is {area.value:+.2f} (p {area.p_value:.2g})"
    if rivalry.vuong.noise_sd_of_z > 0:
        said += f"; the privacy noise alone moves Vuong's z by {rivalry.vuong.noise_sd_of_z:.1f}"
    return said + "."


def exact_network_of(protocol: Protocol, findings: Findings) -> ExactNetworkSummary | None:
    """Return the network by partial correlation, its components, and how stable its edges are."""
    found = findings.exact_network
    if found is None:
        return None
    atlas = load_atlas(protocol.imaging.atlas)
    ends = atlas.edges[found.edges]
    of_edge = {int(edge): k for k, part in enumerate(found.components, 1) for edge in part.edges}
    network, draws = found.network, len(found.largest)
    order = np.argsort(-np.abs(np.nan_to_num(network.r, nan=0.0)), kind="stable")
    return ExactNetworkSummary(
        children=found.children,
        freedom=network.freedom,
        edges=[
            ExactEdge(
                region_a=atlas.names[ends[i, 0]],
                region_b=atlas.names[ends[i, 1]],
                r=_finite(network.r[i]),
                p=_finite(network.p[i]),
                retained=bool(network.retained[i]),
                frequency=None if found.frequency is None else float(found.frequency[i]),
                component=of_edge.get(int(i)),
            )
            for i in order
        ],
        retained=int(network.retained.sum()),
        t_threshold=found.rules.t_threshold,
        components=[
            NetworkComponent(number=k, edges=len(part.edges), regions=part.regions, p=part.p)
            for k, part in enumerate(found.components, 1)
        ],
        null_draws=draws,
        largest_by_chance=float(np.quantile(found.largest, 0.95)) if draws else None,
        bootstrap_draws=found.rules.bootstrap_draws,
    )


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
