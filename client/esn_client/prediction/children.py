"""The children to predict, and the own controls by whom they are scored: all faults are named at once."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from esn_client.cohort.members import lacks_too_much, scans_behind, strengths_in
from esn_client.cohort.participants import Participant, read_participants, read_phenotypes
from esn_client.cohort.scoring import People, Visits
from esn_client.cohort.withdrawn import Withdrew
from esn_client.imaging.bids.derivatives import (
    Derivative,
    is_record,
    prepared_visits,
    scans_of,
    strength_of,
)
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.quality.ratings import Rating, read_ratings
from esn_client.imaging.quality.site_table import read_exclusions
from esn_core.connectome.connectome import Connectome
from esn_core.connectome.template import edge_strengths
from esn_core.errors import DataError
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.quality_limits import Verdict, overall
from esn_core.released_model.archive import ReleasedModel

_MOST_AGE_SDS = 3.0
NO_AGES = "The study released no ages, or noise alone: nothing says whether this child is of its ages."
_WITHDREW = "consent was withdrawn at this hospital: nothing more is computed of this child"


def nobody_known(_: Participant, __: Iterable[str]) -> bool:
    """Stand for the ledger of a hospital that has none."""
    return False


@dataclass(frozen=True)
class Child:
    """One child to predict.

    Attributes
    ----------
    participant : Participant
    visits : Visits
        Edge strengths of each usable visit.
    values : dict of str to float
        Of the data dictionary's columns; NaN where one is not known.
    quality : Verdict

    """

    participant: Participant
    visits: Visits
    values: Mapping[str, float] = field(default_factory=dict)
    quality: Verdict = "not measured"


def controls_of(
    participants: Sequence[Participant],
    derivatives: Path,
    model: ReleasedModel,
    *,
    withdrew: Withdrew = nobody_known,
) -> People:
    """Return the hospital's own controls who have a usable connectome, and whose consent stands.

    Raises
    ------
    DataError
        There are fewer than the model needs; the message says what to do.

    """
    protocol = model.protocol
    excluded = read_exclusions(derivatives, protocol.imaging)
    found = []
    for person in participants:
        if person.group == "control":
            visits = strengths_in(derivatives, protocol.imaging, person.label, excluded)
            scans = scans_behind(derivatives, protocol.imaging, person.label, excluded)
            if visits and not withdrew(person, scans):
                found.append((person, visits))
    needed, pooled = model.content.reference.fewest_controls, protocol.cohort.reference is not None
    if len(found) < needed:
        raise DataError(
            f"{len(found)} own healthy controls have a connectome of the model's recipe; {needed} or more "
            "are needed, scanned as the child was: prepare them by the model's protocol, which "
            "'python3 -m zipfile -e MODEL DIR' writes into DIR, with 'esn-client prepare'"
            + ("; or take the study's pooled controls (--pooled-reference)" if pooled else "")
        )
    return found


def children_in(
    dataset: Path,
    derivatives: Path,
    model: ReleasedModel,
    *,
    labels: Sequence[str],
    pooled: bool = False,
    withdrew: Withdrew = nobody_known,
) -> tuple[list[Child], People]:
    """Read children of a BIDS dataset and the own controls of the same dataset.

    Parameters
    ----------
    dataset, derivatives : Path
    model : ReleasedModel
    labels : sequence of str
        With or without ``sub-``; where there are none, all children with epilepsy whose consent stands.
    pooled : bool
        Whether no own controls are wanted.
    withdrew : callable
        Tells whose consent was withdrawn.

    Raises
    ------
    DataError
        A child cannot be predicted, or there are too few controls; the message names every fault.

    """
    participants = read_participants(dataset)
    controls = [] if pooled else controls_of(participants, derivatives, model, withdrew=withdrew)
    known = {person.label: person for person in participants}
    wanted = [f"sub-{label.removeprefix('sub-')}" for label in labels] or [
        person.label for person in participants if person.group == "dre" and not withdrew(person, ())
    ]
    faults: list[str] = []
    found = []
    for label in dict.fromkeys(wanted):
        try:
            found.append(_child(label, known, derivatives, model, withdrew))
        except DataError as fault:
            faults.append(f"{label}: {fault}")
    if faults:
        raise DataError("; ".join(faults))
    if not found:
        raise DataError(f"{dataset}: lists no child with epilepsy; name whom by --participant-label")
    return found, controls


def _child(
    label: str,
    known: Mapping[str, Participant],
    derivatives: Path,
    model: ReleasedModel,
    withdrew: Withdrew,
) -> Child:
    protocol = model.protocol
    if label not in known:
        raise DataError("is not in participants.tsv with age and sex")
    person = known[label]
    if withdrew(person, scans_behind(derivatives, protocol.imaging, label, frozenset())):
        raise DataError(_WITHDREW)
    if person.group == "control":
        raise DataError("is a healthy control; the model is about children with epilepsy")
    for visit in prepared_visits(derivatives, protocol.imaging, participant=label):
        Derivative(derivatives, visit, protocol.imaging).read_connectome()  # says what is wrong with it
    quality = _quality(label, derivatives, protocol)
    excluded = read_exclusions(derivatives, protocol.imaging)
    visits = strengths_in(derivatives, protocol.imaging, label, excluded)
    if not visits:
        raise DataError("has no connectome of the model's recipe; run 'esn-client prepare' with its protocol")
    require_fit(visits, person.age_years, model)
    used = {name for risk in model.content.risks for name in risk.predictors} & set(protocol.phenotypes)
    values = read_phenotypes([person], {name: protocol.phenotypes[name] for name in sorted(used)})
    return Child(
        person,
        visits,
        {name: column[label] for name, column in values.items()},
        quality,
    )


def require_fit(visits: Visits, age_years: float | None, model: ReleasedModel) -> None:
    """Do nothing where a child is one that the model may be asked about; `DataError` says why not."""
    if lacks_too_much(visits, model.protocol):
        raise DataError(
            f"lacks tissue for more than {model.protocol.cohort.missing_edges:.0%} of the candidate "
            "connections, or for all"
        )
    ages = ages_of(model)
    if ages is None:
        return
    mean, reach = ages[0], _MOST_AGE_SDS * ages[1]
    were = f"the study's children were {mean - reach:.1f} to {mean + reach:.1f}"
    if age_years is None:
        raise DataError(f"the child's age is not known; say it by --age-years: {were}")
    if abs(age_years - mean) > reach:
        raise DataError(f"is {age_years:g} years old; {were}")


def ages_of(model: ReleasedModel) -> tuple[float, float] | None:
    """Return mean and standard deviation of the age of the study's children; None where it told none."""
    ages = model.content.children
    if ages.mean_age_years is None or not ages.sd_age_years:
        return None
    return ages.mean_age_years, ages.sd_age_years


def _quality(label: str, derivatives: Path, protocol: Protocol) -> Verdict:
    """Return the worst verdict of a child's visits; `DataError` where one fails."""
    ratings = read_ratings(derivatives, protocol.imaging)
    found: dict[str, Verdict] = {}
    for visit in prepared_visits(derivatives, protocol.imaging, participant=label):
        record = Derivative(derivatives, visit, protocol.imaging).read_record()
        found[visit.label] = _judged(record, protocol, ratings.get(visit, ()))
    return overall(found)


def _judged(record: Mapping[str, Any], protocol: Protocol, ratings: Iterable[Rating]) -> Verdict:
    """Judge one visit by its numbers, its warnings, and those who rated this connectome, unless it fails."""
    digest = record["MatricesSha256"].get("count")
    rated: dict[str, Verdict] = {
        f"rated fail by {one.initials}": "fail"
        for one in ratings
        if one.rating == "fail" and one.connectome_sha256 == digest
    }
    warned: dict[str, Verdict] = dict.fromkeys(record.get("Warnings", ()), "warn")
    verdicts = protocol.imaging.quality.judge(dict(record.get("Quality", {}))) | warned | rated
    failed = [name for name, verdict in verdicts.items() if verdict == "fail"]
    if failed:
        raise DataError(f"fails the protocol's limits of quality or a rating: {', '.join(failed)}")
    return overall(verdicts)


def child_in_file(
    path: Path,
    model: ReleasedModel,
    *,
    age_years: float | None,
    simulated: bool = False,
    withdrew: Withdrew = nobody_known,
) -> Child:
    """Read a child from one matrix that 'esn-client prepare' or 'import' wrote, and its record.

    Parameters
    ----------
    path : Path
    model : ReleasedModel
    age_years : float or None
        None is refused where the study released ages.
    simulated : bool
        Whether the dataset of the controls says that its people do not exist.
    withdrew : callable
        Tells whose consent was withdrawn.

    Raises
    ------
    DataError
        Consent was withdrawn, or the matrix cannot be read, has other regions, negative or asymmetric counts,
        was changed after it was made, or another recipe made it; or it fails the protocol's limits of quality
        or, where it lies in a derivative dataset, that one's ratings or table of quality.

    """
    protocol = model.protocol
    content, record = _matrix_and_record(path)
    label = str(record.get("Participant", "sub-unknown"))
    age = np.nan if age_years is None else age_years
    person = Participant(label, age, np.nan, "dre", None, simulated=simulated)
    names = protocol.atlas.names
    try:
        lines = content.decode().splitlines() or [""]
        matrix = np.array([line.split("\t") for line in lines], dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as cause:
        raise DataError(f"{path.name}: is no matrix of tab-separated numbers") from cause
    if tuple(record.get("Nodes", ())) != names or matrix.shape != (len(names),) * 2:
        raise DataError(
            f"{path.name}: its regions are not the {len(names)} of the model's atlas {protocol.imaging.atlas}"
        )
    away = tuple(record.get("RegionsWithoutTissue", ()))
    try:
        connectome = Connectome(np.where(np.isnan(matrix), 0.0, matrix), names, away)
    except DataError as fault:
        raise DataError(f"{path.name}: {fault}") from fault
    _check_record(path, content, record, protocol)
    if withdrew(person, scans_of(record)):
        raise DataError(f"{path.name}: {_WITHDREW}")
    visits = (edge_strengths(connectome),)
    try:
        quality = _quality_beside(path, record, protocol)
        require_fit(visits, age_years, model)
    except DataError as fault:
        raise DataError(f"{path.name}: {fault}") from fault
    return Child(person, visits, {}, quality)


def _quality_beside(path: Path, record: Mapping[str, Any], protocol: Protocol) -> Verdict:
    """Judge a matrix as the derivative dataset that it lies in does, where it lies in one."""
    recipe = protocol.imaging
    label, _, session = path.name.partition("_seg-")[0].partition("_")
    visit = Visit(label, session or None)
    ratings: list[Rating] = []
    for out in dict.fromkeys([*path.absolute().parents, *path.resolve().parents]):
        place = Derivative(out, visit, recipe).matrix(strength_of(recipe))
        if place in (path.absolute(), path.resolve()):
            ratings += read_ratings(out, recipe).get(visit, ())
            if visit in read_exclusions(out, recipe):
                raise DataError(f"is left out by the table of quality of {out}")
    return _judged(record, protocol, ratings)


def _matrix_and_record(path: Path) -> tuple[bytes, dict[str, Any]]:
    stem, _, measure = path.name.partition("_meas-")
    record = path.with_name(f"{stem}_meas-count_relmat.json")
    if not measure.endswith("_relmat.dense.tsv"):
        raise DataError(f"{path.name}: is no '…_meas-…_relmat.dense.tsv' of 'esn-client prepare' or 'import'")
    try:
        content, said = path.read_bytes(), json.loads(record.read_text(encoding="utf-8"))
    except OSError as cause:
        raise DataError(f"{path.name}: it, or {record.name} beside it, cannot be read") from cause
    except (ValueError, RecursionError) as cause:
        raise DataError(f"{record.name}: is not a record of a connectome") from cause
    if not is_record(said):
        raise DataError(f"{record.name}: is not a record of a connectome")
    return content, said


def _check_record(path: Path, content: bytes, record: Mapping[str, Any], protocol: Protocol) -> None:
    measure, recipe = strength_of(protocol.imaging), protocol.imaging.sha256
    if record.get("RecipeSha256") != recipe:
        raise DataError(
            f"{path.name}: made by recipe {str(record.get('RecipeSha256'))[:12]}; the model's is "
            f"{recipe[:12]}; prepare it again by the model's protocol"
        )
    if f"_meas-{measure}_" not in path.name:
        raise DataError(f"{path.name}: the model's strengths are of the measure '{measure}'")
    if record.get("MatricesSha256", {}).get(measure) != hashlib.sha256(content).hexdigest():
        raise DataError(f"{path.name}: was changed after it was made; prepare it again")
