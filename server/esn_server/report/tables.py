"""A result as tidy tables: one line an observation, one column a variable, for any statistics program."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from esn_server.report.analyses import CohortSummary, Correlation, Estimated, LocalOnly
from esn_server.report.figures.correlations import lines_of
from esn_server.report.result import Evaluation, StudyResult
from esn_server.report.verdict import likely_r

Rows = Sequence[Mapping[str, Any]]


def tables_of(result: StudyResult) -> dict[str, str]:
    """Return every table of a result as CSV, by its name; one that would be empty is left out.

    Intervals are two columns, `_low` and `_high`; what is null is an empty cell.
    """
    models = [] if result.neurocognition is None else result.neurocognition.models
    told = result.evaluation.estimates
    exact, explained = result.exact_network, result.explanation
    chance = None if result.random_score is None else result.random_score.simulated
    found: dict[str, Rows] = {
        "single_numbers": list(_single(result)),
        "sites": [{"site": s.name, "cohort_size_band": s.cohort_size_band} for s in result.sites],
        "software": [
            {"site": site.name, "program": program, "version": version}
            for site in result.sites
            for program, version in site.software.items()
        ],
        "public_inputs": _records(result.inputs),
        "agreement": [] if told is None else _estimates(told),
        "predictions_by_gase": _records(result.evaluation.by_gase),
        "correlations": list(_correlations(result)),
        "local_only": [] if result.local_only is None else _alone(result.local_only),
        "random_score_simulated": [] if chance is None else [_flat(chance)],
        "baselines": _records(result.baselines or ()),
        "harmonisation_compared": _records(result.harmonisation.compared or ()),
        "subgroups": _subgroups(result),
        "severity_network": _records(result.severity_network.edges),
        "explanation": [] if explained is None else _records(explained.edges),
        "exact_network": [] if exact is None else _records(exact.edges),
        "exact_network_components": [] if exact is None else _records(exact.components),
        "learning_curve": _records(result.learning_curve),
        "privacy_by_phase": _records(result.privacy.phases),
        "cohort": [] if result.cohort is None else _groups(result.cohort),
        "cohort_differences": [] if result.cohort is None else _differences(result.cohort),
        "left_out": [] if result.cohort is None else _counts(result.cohort.left_out),
        "impairment_models": _records(models),
        "impairment_coefficients": _parts(models, "coefficients"),
        "score_coefficients": _parts(models, "linear"),
        "roc": _parts(models, "roc"),
        "calibration_groups": _parts(models, "calibration"),
        "operating_points": _parts(models, "operating_points"),
        "comparisons": [] if result.neurocognition is None else _records(result.neurocognition.contests),
        "absent": [{"analysis": name, "why": why} for name, why in result.absent.items()],
        "timings": [{"step": step, "seconds": seconds} for step, seconds in result.timing_s.items()],
    }
    return {name: _csv(rows) for name, rows in found.items() if rows}


def _records(records: Iterable[BaseModel]) -> Rows:
    return [_flat(record) for record in records]


def _flat(record: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return the plain fields of a record; of its lists, only those of words."""
    row: dict[str, Any] = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, Estimated):
            row |= {f"{prefix}{name}": value.value} | _ends(f"{prefix}{name}", value.interval)
        elif isinstance(value, tuple) or (value is None and name.endswith("interval")):
            row |= _ends(f"{prefix}{name}".removesuffix("_interval"), value)
        elif isinstance(value, list):
            if all(isinstance(item, str) for item in value) and name != "lost":
                row[f"{prefix}{name}"] = " + ".join(value)
        elif not isinstance(value, BaseModel | dict):
            row[f"{prefix}{name}"] = value
    return row


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _estimates(told: BaseModel) -> Rows:
    return [
        {"figure": name, "value": one.value, **_ends("value", one.interval)}
        for name in type(told).model_fields
        if (one := getattr(told, name)) is not None
    ]


def _subgroups(result: StudyResult) -> Rows:
    return [
        {"group": group.name, **row}
        for group in result.subgroups or ()
        if group.estimates is not None
        for row in _estimates(group.estimates)
    ]


def _single(record: BaseModel, place: str = "") -> Iterable[dict[str, Any]]:
    """Return every number of a result that is in no list, by its place in result.json."""
    for name in type(record).model_fields:
        value, at = getattr(record, name), f"{place}{name}"
        if isinstance(value, Estimated):
            yield {"number": at, "value": value.value, **_ends("value", value.interval)}
        elif isinstance(value, BaseModel):
            yield from _single(value, f"{at}.")
        elif isinstance(value, tuple):
            yield {"number": at, "value": None, **_ends("value", value)}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield {"number": at, "value": value, **_ends("value", None)}


def _alone(alone: LocalOnly) -> Rows:
    pooled = {"site": "all, pooled", "r": alone.pooled_r, **_ends("r", alone.pooled_r_interval)}
    return [*_records(alone.by_site), pooled]


def _groups(cohort: CohortSummary) -> Rows:
    return [
        {"group": "training children", **_flat(cohort.children)},
        {"group": "controls", **_flat(cohort.controls)},
    ]


def _differences(cohort: CohortSummary) -> Rows:
    found = {"age": cohort.age_difference, "share_male": cohort.sex_difference}
    return [{"figure": name, "standardised_difference": value} for name, value in found.items()]


def _counts(counts: Mapping[str, float | None]) -> Rows:
    return [{"reason": reason, "people": count} for reason, count in counts.items()]


def _parts(models: Iterable[BaseModel], name: str) -> Rows:
    """Return a list that every model of impairment has, with the model's outcome and predictors."""
    return [
        {"outcome": m.outcome, "predictors": " + ".join(m.predictors), **_flat(part)}  # type: ignore[attr-defined]
        for m in models
        for part in getattr(m, name)
    ]


def _correlations(result: StudyResult) -> Iterable[dict[str, Any]]:
    """Return the correlations of the study and of its reruns, then those that only the figure has."""
    found: list[tuple[str, Evaluation | Correlation]] = [("this study, held-out children", result.evaluation)]
    if result.cross_site is not None:
        found.append(("without the site, all sites", result.cross_site.together))
        found += [(f"without {one.site}", one) for one in result.cross_site.by_site]
    if result.cross_validation is not None:
        found.append(("cross-validation", result.cross_validation))
    if result.random_score is not None:
        found += [(f"random scores {i}", one) for i, one in enumerate(result.random_score.draws, start=1)]
    for name, one in found:
        likely, error = likely_r(one), None if one.estimates is None else one.estimates.mae
        yield {
            "analysis": name,
            "children": one.children,
            "r_released": one.r,
            "r_released_noise_sd": one.r_noise_sd,
            **_ends("r_released", one.r_interval),
            "r": None if likely is None else likely.value,
            **_ends("r", None if likely is None else likely.interval),
            "mae_released": one.mae,
            "mae": None if error is None else error.value,
            **_ends("mae", None if error is None else error.interval),
        }
    for line in lines_of(result, no_noise=None):
        if line.simulated:
            yield {"analysis": line.label.strip(), "r": line.r, **_ends("r", line.interval)}


def _csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()
