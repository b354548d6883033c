"""TRIPOD+AI on a model card: every item, filled by protocol and result or left to the authors."""

from esn_core.connectome.own_controls import FEWEST_CONTROLS
from esn_core.protocol.protocol import Protocol
from esn_server.report.result import StudyResult
from esn_server.report.wording import fixed

ITEMS = {
    "1": "title",
    "2": "abstract",
    "3": "background, intended use, health inequalities",
    "4": "objectives: development or evaluation",
    "5": "data sources, dates",
    "6": "participants, setting, eligibility",
    "7": "data preparation, harmonisation",
    "8": "outcome and how it was assessed",
    "9": "predictors",
    "10": "sample size",
    "11": "missing data",
    "12": "analysis: split, model, tuning, performance",
    "12e": "heterogeneity between clusters",
    "13": "class imbalance",
    "14": "fairness",
    "15": "model output",
    "16": "training against evaluation",
    "17": "ethics",
    "18": "funding, protocol, registration, sharing",
    "19": "patient and public involvement",
    "20": "participants: numbers, flow, characteristics",
    "21": "model development: participants and events in each analysis",
    "22": "full model",
    "23": "performance with intervals",
    "24": "model updating",
    "25": "interpretation",
    "26": "limitations",
    "27": "usability",
}
"""By number, as docs/tripod.md has them (Collins et al. 2024, BMJ 385:e078378)."""


def tripod(protocol: Protocol, result: StudyResult) -> list[str]:
    """Return the table, in lines of Markdown.

    Parameters
    ----------
    protocol : Protocol
        Signed.
    result : StudyResult

    """
    said = _study(protocol, result) | _model(protocol, result) | _findings(protocol, result)
    return ["| item | here |", "|---|---|", *(f"| {n} {title} | {said[n]} |" for n, title in ITEMS.items())]


def _study(protocol: Protocol, result: StudyResult) -> dict[str, str]:
    """Fill what was planned, of whom, and by whom it was agreed."""
    sites = ", ".join(site.name for site in result.sites)
    bands = ", ".join(f"{site.name} {site.cohort_size_band}" for site in result.sites)
    return {
        "1": "authors",
        "2": "authors",
        "3": "see Intended use; background and health inequalities: authors",
        "4": "development, and evaluation in held-out children of the same sites",
        "5": f"{len(result.sites)} sites: {sites}; dates: authors",
        "6": f"children with drug-resistant epilepsy; bands of each site's number: {bands}; setting: authors",
        "10": "fixed by the protocol; 'esn-server protocol price' prints power",
        "17": "not applicable: every child is simulated"
        if protocol.simulated
        else "every site approved the protocol before it answered; names of the committees: authors",
        "18": f"protocol.toml in this file, signed, SHA-256 `{protocol.sha256}`; children's data never left "
        "their sites; funding, registration, interests: authors",
        "19": "authors",
    }


def _model(protocol: Protocol, result: StudyResult) -> dict[str, str]:
    """Fill how the model was made and what it gives."""
    imaging, network, cross_site = protocol.imaging, result.severity_network, result.cross_site
    impairment = protocol.analyses.neurocognition
    outcomes = [] if impairment is None else impairment.outcomes
    cut_offs = [f"{one.name}: {one.column} below {one.impaired_below:g}" for one in outcomes]
    risks = "" if impairment is None else "; the probability of each impairment, with its 95 % interval"
    return {
        "7": f"recipe {imaging.sha256[:16]} on atlas {imaging.atlas}; {result.harmonisation.method}",
        "8": "; ".join(["clinical GASE, 1 to 7", *cut_offs]),
        "9": f"{network.candidates} candidate connections; {network.note}",
        "11": "complete cases; a missing connection counts as unknown, with the score 0",
        "12": f"{protocol.training.in_words}; the plan is the protocol {protocol.sha256[:16]}",
        "12e": "r is not adjusted for sites; "
        + ("no site was left out to test it" if cross_site is None else "see Performance for sites left out"),
        "13": "none is corrected",
        "14": "not asked for" if result.subgroups is None else "see Subgroups",
        "15": f"predicted GASE from 1 to 7 with its 95 % interval{risks}; no class is decided",
        "16": f"{protocol.cohort.held_out_fraction:.0%} held out by a hash of the label, before anything was "
        "asked; models of impairment have no evaluation but that of the children that they were fitted to",
        "22": "model.safetensors and model.json",
        "24": "predictions were calibrated in the study; not applicable: nothing is updated after it",
    }


def _findings(protocol: Protocol, result: StudyResult) -> dict[str, str]:
    """Fill who took part, how well it does, and what it needs."""
    models = [] if result.neurocognition is None else result.neurocognition.models
    events = [
        f"{one.outcome} from {', '.join(one.predictors)}: {fixed(one.impaired, 0, 'unknown')} impaired of "
        f"{fixed(one.children, 0, 'unknown')}"
        for one in models
    ]
    cohort = result.cohort
    left_out = {} if cohort is None else cohort.left_out
    away = [f"{reason} {fixed(people, 0, 'too few to say')}" for reason, people in left_out.items()]
    trained = [] if cohort is None else [f"{fixed(cohort.children.people, 0)} training children"]
    held_out = f"{fixed(result.evaluation.children, 0)} held-out children"
    fewest = max(protocol.cohort.minimum_controls, FEWEST_CONTROLS)
    return {
        "20": "; ".join([*trained, held_out, *(["left out: " + ", ".join(away)] if away else [])]),
        "21": "; ".join([*(trained or ["training children: see the bands of item 6"]), *events]),
        "23": f"see Performance: r, errors, calibration slope and intercept in {held_out}",
        "25": "the report's verdicts begin it; the prediction repeats what GASE says, its errors included; "
        "authors",
        "26": "see What is known not to hold",
        "27": f"see Use; a connectome of the recipe on {protocol.imaging.atlas} and {fewest} own controls or "
        "more; 'esn-client predict' refuses other recipes, scans of poor quality and, where ages were "
        f"released, other ages; connections may be missing up to {protocol.cohort.missing_edges:.0%}",
    }
