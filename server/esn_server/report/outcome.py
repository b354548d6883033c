"""What a study found, put into the words and the schema of result.json."""

import math
from collections.abc import Mapping

import numpy as np

from esn_core.gase import GASE_UNIT
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.price import Price
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.rules import SelectionRules
from esn_core.protocol.warnings import LARGEST_NOISE_IN_R, cautions
from esn_core.severity_network.candidates import Source
from esn_core.severity_network.selection import SeverityNetwork as Network
from esn_server.report.analyses import Harmonisation
from esn_server.report.analyses_outcome import (
    absent_of,
    cohort_of,
    cross_site_of,
    cross_validation_of,
    estimates_of,
    exact_network_of,
    explanation_of,
    random_score_of,
    subgroups_of,
)
from esn_server.report.impairment_outcome import children_lost, neurocognition_of
from esn_server.report.result import (
    Evaluation,
    GaseBin,
    NetworkEdge,
    PhasePrice,
    PrivacySummary,
    PublicInput,
    RoundLoss,
    SeverityNetwork,
    SiteSummary,
    StudyResult,
)
from esn_server.study.study import Findings

UNIT = "one patient: all scans and scores of a child with epilepsy"
ADJACENCY = "add or remove one patient; sites are disjoint"
_JUDGED_BY_CONTROLS = "Each child is judged by its hospital's own healthy controls."
_JUDGED_BY_POOLED = (
    "Each child is judged by its hospital's own healthy controls, and the children of {sites} by the pooled "
    "controls of other sites. The pooled reference is public and was made of exact sums: whoever knows a "
    "control's connectome can tell that it is in it."
)
_JUDGED_BY_TEMPLATE = (
    "Each child is judged by a public template, less the offset of its hospital, which is estimated from the "
    "hospital's own healthy controls."
)
_WITHOUT_BOUND = (
    "Epsilon covers children with epilepsy only: controls take part in every release without a bound."
)
# Measured where children are judged by own controls (decision 0231).
_AS_OPEN_AS = (
    "With ten controls, whether somebody is one is about as open as whether somebody is a child of the "
    "study; more so with fewer, less so with more."
)
_CONTROLS_NOTE_COMBAT = (
    "ComBat estimates each site's shift and scale from its children with epilepsy: no healthy control enters "
    "a child's scores."
)

HARMONISATION_NOTE = (
    "Edge scores are taken against each site's own healthy controls: their mean, and their spread moderated "
    "by that of the site's edges of like strength. Mean and spread stay at the site; no patient enters them."
)
_POOLED_NOTE = (
    "Of {sites}, which have too few controls, children are judged by the pooled controls of other sites, and "
    "train nothing: the ranking of these predictions is usable, and the absolute score may be off by half a "
    "step."
)
_OFFSET_NOTE = (
    "Edge scores are taken against a public template, less each site's own offset: the mean of its controls, "
    "shrunk by n / (n + {shrinkage:g}). The offset stays at the site; no patient enters it."
)

_COMBAT_NOTE = (
    "Edge scores are taken against a public template, and harmonised by ComBat over the training children of "
    "all sites, the effects of age, sex and severity kept (Johnson et al. 2007). What the sites share is "
    "computed from sums about their own means; each site's shift and scale stay there. Other children enter "
    "a child's scores: no privacy budget holds for any of them."
)

# Every retained edge is listed, and the strongest others up to this many in all.
_LISTED_EDGES = 40


def result_of(
    protocol: Protocol, findings: Findings, *, run: str, timing_s: Mapping[str, float]
) -> StudyResult:
    """Return the result of a study.

    Parameters
    ----------
    protocol : Protocol
    findings : Findings
    run : str
    timing_s : dict of str to float
        Seconds of what happened around the study, added to those of its phases.

    """
    found = findings.agreement
    random_score = random_score_of(findings)
    cross_site = cross_site_of(findings)
    cross_validation = cross_validation_of(findings)
    subgroups = subgroups_of(findings)
    explanation = explanation_of(protocol, findings)
    exact_network = exact_network_of(protocol, findings)
    cohort = cohort_of(findings)
    neurocognition = neurocognition_of(protocol, findings)
    return StudyResult(
        study=protocol.study,
        protocol_sha256=protocol.sha256,
        run=run,
        simulated=protocol.simulated,
        sites=[
            SiteSummary(name=site, cohort_size_band=facts.cohort_band, software=facts.software)
            for site, facts in findings.facts.items()
        ],
        inputs=[PublicInput(**one.model_dump(), ships=one.ships) for one in protocol.public_inputs],
        evaluation=Evaluation(
            children=found.children,
            r=found.r,
            r_interval=found.r_interval,
            r_noise_sd=findings.r_noise_sd,
            mae=found.mae,
            mae_noise_sd=findings.mae_noise_sd,
            rmse=found.rmse,
            calibration_slope=found.slope,
            calibration_intercept=found.intercept,
            by_gase=[
                GaseBin(
                    gase=level.gase,
                    children=level.children,
                    mean_prediction=level.mean_prediction,
                    sd_prediction=level.sd_prediction,
                )
                for level in found.levels
            ],
            estimates=estimates_of(findings.estimates),
            undefined_because=found.undefined_because,
        ),
        random_score=random_score,
        cross_site=cross_site,
        cross_validation=cross_validation,
        severity_network=_network(protocol, findings.network, findings.weight_of_slope),
        harmonisation=_harmonisation(protocol),
        subgroups=subgroups,
        explanation=explanation,
        exact_network=exact_network,
        cohort=cohort,
        neurocognition=neurocognition,
        absent=absent_of(
            {
                "random_score": random_score,
                "cross_site": cross_site,
                "cross_validation": cross_validation,
                "subgroups": subgroups,
                "explanation": explanation,
                "exact_network": exact_network,
                "cohort": cohort,
                "neurocognition": neurocognition,
            },
            findings.left_out,
        ),
        training=protocol.training.in_words,
        learning_curve=[RoundLoss(round=i, loss=loss) for i, loss in enumerate(findings.losses)],
        privacy=privacy_of(protocol, findings.price),
        timing_s={**timing_s, **findings.timing_s},
        warnings=_warnings(protocol, findings),
    )


def _harmonisation(protocol: Protocol) -> Harmonisation:
    if protocol.cohort.harmonisation == "combat":
        return Harmonisation(method="ComBat", note=_COMBAT_NOTE, compared=None)
    shrinkage = protocol.cohort.offset_shrinkage
    if shrinkage is not None:
        note = _OFFSET_NOTE.format(shrinkage=shrinkage)
        return Harmonisation(method="public template", note=note, compared=None)
    note, named = HARMONISATION_NOTE, protocol.cohort.without_controls
    if named:
        note += f" {_POOLED_NOTE.format(sites=', '.join(named))}"
    return Harmonisation(method="own controls", note=note, compared=None)


def privacy_of(protocol: Protocol, price: Price) -> PrivacySummary:
    """Return the price of a protocol as result.json tells it."""

    def finite(epsilon: float) -> float | None:
        return epsilon if math.isfinite(epsilon) else None

    return PrivacySummary(
        trust=protocol.privacy.trust,
        colluding_sites=protocol.privacy.colluding_sites if protocol.masked else None,
        noise=protocol.privacy.noise,
        delta=protocol.privacy.delta,
        unit=UNIT,
        adjacency=ADJACENCY,
        epsilon_training_child=finite(price.epsilon("training")),
        epsilon_held_out_child=finite(price.epsilon("held-out")),
        epsilon_replace_one_training_child=finite(price.replace_one_epsilon("training")),
        epsilon_replace_one_held_out_child=finite(price.replace_one_epsilon("held-out")),
        exact_phases=[] if protocol.privacy.noise == "none" else [phase.phase for phase in price.exact],
        epsilon_of_noised=None
        if protocol.privacy.noise == "none"
        else max(price.noised.epsilon(children) for children in CHILDREN),
        members_found=None if price.exact else max(price.true_positives(children) for children in CHILDREN),
        controls_note=controls_note(protocol),
        phases=[
            PhasePrice(phase="roll-call", children="none", releases=0, noise_multiplier=None, epsilon=0.0),
            *(
                PhasePrice(
                    phase=phase.phase,
                    children=phase.children,
                    releases=phase.releases,
                    noise_multiplier=phase.noise_multiplier or None,
                    epsilon=finite(price.epsilon_alone(phase)),
                )
                for phase in price.phases
            ),
        ],
    )


def controls_note(protocol: Protocol) -> str:
    """Say what is promised to the healthy controls, by whom children are judged or not."""
    if protocol.cohort.harmonisation == "combat":
        return _CONTROLS_NOTE_COMBAT
    if protocol.cohort.offset_shrinkage is not None:
        return f"{_JUDGED_BY_TEMPLATE} {_WITHOUT_BOUND}"
    named = protocol.cohort.without_controls
    judged = _JUDGED_BY_POOLED.format(sites=", ".join(named)) if named else _JUDGED_BY_CONTROLS
    return f"{judged} {_WITHOUT_BOUND} {_AS_OPEN_AS}"


_SOURCES: Mapping[Source, str] = {
    "template": "the edges present in the public template",
    "list": "the edges of a published list, which is public only for children who were not in its study",
    "modules": "the edges of the public template, by pairs of modules whose edges share one weight",
}


def _source(rules: SelectionRules) -> str:
    origin = rules.origin
    if origin is None or origin.kind == "published":
        licensed = f" ({origin.in_words})" if origin is not None and origin.licence else ""
        return f"{_SOURCES[rules.candidates]}{licensed}"
    whose = {"prepared": "the controls of a cohort", "votes": "the sites' controls, by their votes"}
    return f"edges found in {whose[origin.kind]} ({origin.in_words})"


def _network(protocol: Protocol, network: Network, weight_of_slope: float | None) -> SeverityNetwork:
    atlas = protocol.atlas
    private = protocol.privacy.noise != "none"
    order = np.argsort(-np.abs(network.weight), kind="stable")
    others = [i for i in order if not network.retained[i]]
    retained = [i for i in order if network.retained[i]]
    listed = retained + others[: max(_LISTED_EDGES - len(retained), 0)]
    edges = [
        NetworkEdge(
            region_a=atlas.names[atlas.edges[network.edges[i], 0]],
            region_b=atlas.names[atlas.edges[network.edges[i], 1]],
            weight=float(network.weight[i]),
            posterior_sd=float(network.posterior_sd[i]),
            score_per_gase=None
            if weight_of_slope is None
            else float(network.weight[i]) / weight_of_slope / GASE_UNIT,
        )
        for i in sorted(listed, key=lambda i: -abs(network.weight[i]))
    ]
    return SeverityNetwork(
        atlas=atlas.name,
        edges=edges,
        candidates=len(network.edges),
        retained=int(network.retained.sum()),
        private=private,
        note=(
            f"Candidates are {_source(protocol.severity_network)}. A weight is the posterior mean of the "
            "product of edge score and severity residual (spike and slab, one share of network edges per "
            "pair of modules): a covariance and no slope (that is told per step of GASE where the "
            "protocol's sums allow it); "
            + ("the known privacy noise is in its uncertainty. " if private else "no noise was added. ")
            + "No false-discovery rate holds for the number of retained connections: those that go together "
            "are retained together, in up to a quarter of studies without any effect 5 to 8 of them. Where "
            "the controls themselves have few streamlines, a connection without any scores about −1: a "
            "bundle that is lost there does not show. "
            + (
                "What goes with age and sex was taken out of the scores."
                if protocol.severity_network.centre == "adjusted"
                else "Nothing was adjusted for age or sex."
            )
        ),
    )


def _warnings(protocol: Protocol, findings: Findings) -> list[str]:
    """Say what the protocol is known not to do, and what the findings do not allow to conclude."""
    said = [caution.words for caution in cautions(protocol)]
    noise = findings.r_noise_sd
    likely = findings.estimates.r
    if noise is None or noise > LARGEST_NOISE_IN_R:
        low, high = (-1.0, 1.0) if likely is None else likely.interval
        said.append(
            f"The privacy noise decides much of r: children and noise together leave {low:.2f} to {high:.2f}."
        )
    children = findings.estimates.children.value
    if children < 50:
        said.append(f"About {children:.0f} held-out children: the interval of r is wide.")
    if findings.network.retained.sum() == 0:
        said.append(
            "No edge is more likely in the severity network than not; the weights are a ranking at best."
        )
    if findings.neurocognition is not None:
        said += children_lost(findings.neurocognition)
    said += [
        f"The analysis {part.replace('_', ' ')} is missing: {why}." for part, why in findings.left_out.items()
    ]
    missing = [site for site in protocol.sites if site not in findings.facts]
    if missing:
        said.append(f"Not at roll call: {', '.join(missing)}.")
    return said
