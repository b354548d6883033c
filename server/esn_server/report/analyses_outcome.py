"""What the further analyses found, put into the words and the schema of result.json."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from esn_core.protocol.protocol import Protocol
from esn_core.statistics.agreement_estimates import Estimate, Estimates
from esn_core.statistics.matching import Group
from esn_server.report.analyses import (
    AgreementEstimates,
    CohortSummary,
    Correlation,
    CrossSite,
    EdgeShare,
    Estimated,
    ExactEdge,
    ExactNetworkSummary,
    Explanation,
    GroupSummary,
    LeftOut,
    NetworkComponent,
    RandomScore,
    Subgroup,
)
from esn_server.study.reruns import Tested
from esn_server.study.study import Findings

_ABSENT = {
    "cross_site": "the protocol did not ask for it",
    "cross_validation": "the protocol did not ask for it",
    "random_score": "the protocol did not ask for it",
    "subgroups": "the protocol did not ask for it",
    "explanation": "the protocol did not ask for it",
    "exact_network": "the protocol did not ask for it; it needs exact sums and the consent of all sites",
    "cohort": "the protocol did not ask for it",
    "neurocognition": "the protocol did not ask for it",
    "local_only": "it is computed beside a study of simulated children alone: it stays at the site",
    "baselines": "they are computed beside a study of simulated children alone: they need pooled children",
}


# The analyses that come from one of the parts of a study, which are computed or left out together.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "matching": ("cohort",),
    "reruns": ("cross_site", "cross_validation", "random_score"),
    "subgroups": ("subgroups",),
    "attribution": ("explanation",),
    "exact_network": ("exact_network",),
    "neurocognition": ("neurocognition",),
}


def absent_of(
    analyses: Mapping[str, object], left_out: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return why analyses are null, by the name of each.

    Parameters
    ----------
    analyses : dict of str to object
        What result.json holds of each analysis; None, or no entry, where it holds null.
    left_out : dict of str to str
        Why parts of the study could not be computed (`Findings.left_out`).

    """
    impossible = {name: why for part, why in left_out.items() for name in _PARTS[part]}
    return {name: why for name, why in (_ABSENT | impossible).items() if analyses.get(name) is None}


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


def subgroups_of(findings: Findings) -> list[Subgroup] | None:
    """Return how the prediction does by sex and by age."""
    if findings.subgroups is None:
        return None
    return [
        Subgroup(name=name, estimates=None if found is None else estimates_of(found))
        for name, found in findings.subgroups.items()
    ]


def explanation_of(protocol: Protocol, findings: Findings) -> Explanation | None:
    """Return what each candidate connection contributes, the largest first."""
    found = findings.attribution
    if found is None:
        return None
    atlas = protocol.atlas
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
        sampling_sd=found.sampling_sd,
        truth_r=None,
    )


def estimates_of(found: Estimates) -> AgreementEstimates:
    """Return what sums of predicted and clinical GASE tell."""

    def told(estimate: Estimate | None) -> Estimated | None:
        return None if estimate is None else Estimated(value=estimate.value, interval=estimate.interval)

    return AgreementEstimates(
        children=Estimated(value=found.children.value, interval=found.children.interval),
        r=told(found.r),
        mae=told(found.mae),
        rmse=told(found.rmse),
        calibration_slope=told(found.slope),
        calibration_intercept=told(found.intercept),
    )


def _correlation(tested: Tested) -> Correlation:
    found = tested.agreement
    return Correlation(
        children=found.children,
        r=found.r,
        r_interval=found.r_interval,
        r_noise_sd=tested.r_noise_sd,
        mae=found.mae,
        estimates=estimates_of(tested.estimates),
    )


def _group(group: Group) -> GroupSummary:
    return GroupSummary(
        people=group.people,
        mean_age_years=group.mean_age_years,
        sd_age_years=group.sd_age_years,
        share_male=group.share_male,
    )


def exact_network_of(protocol: Protocol, findings: Findings) -> ExactNetworkSummary | None:
    """Return the network by partial correlation, its components, and how stable its edges are."""
    found = findings.exact_network
    if found is None:
        return None
    atlas = protocol.atlas
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
