"""The site's children: who they are, which split they are in, and their edge scores."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.derivatives import Derivative, prepared_visits
from esn_client.imaging.quality.site import read_exclusions
from esn_client.imaging.scans import Visit
from esn_core.connectome import Template, edge_scores, edge_strengths
from esn_core.errors import DataError
from esn_core.harmonise import control_offset
from esn_core.matching import Standing
from esn_core.phenotypes import MISSING, Phenotypes
from esn_core.protocol import Protocol
from esn_core.releases import GASE_LEVELS, Children

_log = logging.getLogger(__name__)

_COLUMNS = ("participant_id", "age", "sex", "group", "gase")
_SEX = {"F": 0.0, "M": 1.0}
_GROUPS = ("dre", "control")


@dataclass(frozen=True)
class Participant:
    """One line of participants.tsv.

    Attributes
    ----------
    label : str
        BIDS participant label with its prefix, such as 'sub-012'.
    age_years : float
    sex : float
        0 female, 1 male.
    group : {'dre', 'control'}
    gase : int or None
        1 to 7; None for controls, and for children whose score is not known.

    """

    label: str
    age_years: float
    sex: float
    group: str
    gase: int | None
    row: Mapping[str, str] = field(default_factory=dict)
    """All fields of the line, by column."""


@dataclass(frozen=True)
class Split:
    """Children with drug-resistant epilepsy of one split.

    Attributes
    ----------
    participants : tuple of n str
    scores : (n, E) float64
        Edge z-scores against the public template and the site's own controls.
    gase : (n,) float64
    phenotypes : dict of str to (n,) float64
        The columns of the protocol's data dictionary, in their units; NaN where a value is not known.

    """

    participants: tuple[str, ...]
    scores: NDArray[np.float64]
    gase: NDArray[np.float64]
    phenotypes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class People:
    """Who is counted in a comparison of children and controls, and who was left out.

    Attributes
    ----------
    participants : tuple of n str
    standing : tuple of n str
        Training children, controls, and everybody who was left out, by reason.
    age_years, sex : (n,) float64

    """

    participants: tuple[str, ...]
    standing: tuple[Standing, ...]
    age_years: NDArray[np.float64]
    sex: NDArray[np.float64]


_NOBODY = People((), (), np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Cohort:
    """A site's children with DRE, split once and for all.

    Attributes
    ----------
    training, held_out : Split
    controls : int
        How many controls the site's offsets were estimated from.
    people : People

    """

    training: Split
    held_out: Split
    controls: int
    people: People = _NOBODY

    def split(self, children: Children) -> Split:
        """Return one of the two splits."""
        return self.training if children == "training" else self.held_out


def read_participants(dataset: Path) -> tuple[Participant, ...]:
    """Read and check participants.tsv.

    Raises
    ------
    DataError
        The table is missing or has faults; the message lists all of them, with their lines.

    """
    path = dataset / "participants.tsv"
    try:
        # 'utf-8-sig': spreadsheets put a mark in front of the first column's name.
        head, *lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as cause:
        raise DataError(f"{path}: there is no such file") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise DataError(f"{path}: cannot be read as a table of tab-separated values") from cause
    columns = head.rstrip("\r").split("\t")
    missing = [c for c in _COLUMNS if columns.count(c) != 1]
    if missing:
        raise DataError(f"{path}: line 1: missing or repeated column {', '.join(map(repr, missing))}")
    participants, faults = [], []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t")
        try:
            if len(fields) != len(columns):
                raise DataError(f"holds {len(fields)} fields, not {len(columns)}")  # noqa: TRY301
            participants.append(_participant(dict(zip(columns, fields, strict=True))))
        except DataError as fault:
            faults.append(f"line {number}: {fault}")
    if not participants and not faults:
        faults.append("lists no participant")
    labels = [p.label for p in participants]
    faults += [f"{label} is listed twice" for label in sorted({x for x in labels if labels.count(x) > 1})]
    if faults:
        raise DataError(f"{path}: {'; '.join(faults)}")
    return tuple(participants)


def load_cohort(
    participants: tuple[Participant, ...], *, site: str, derivatives: Path, protocol: Protocol
) -> Cohort:
    """Score every participant that has a connectome.

    A child's scores depend on the child's own scans, the public template, and
    the site's controls; never on another child with epilepsy. Several sessions
    of one child are averaged: one patient counts once. A participant without a
    usable connectome is left out, and so is a visit that the site's table of
    quality excludes; the log says how many were.

    Raises
    ------
    DataError
        No child with epilepsy has a connectome, or the table of quality is older than one.

    """
    template = protocol.template
    excluded = read_exclusions(derivatives, protocol.imaging)
    if excluded:
        _log.warning("site %s: %d visits are left out for their quality", site, len(excluded))
    phenotypes = read_phenotypes(participants, protocol.phenotypes)
    scored: list[tuple[Participant, NDArray[np.float64]]] = []
    standing: dict[str, Standing] = {}
    for participant in participants:
        label = participant.label
        if participant.group == "dre" and participant.gase is None:
            standing[label] = "no-score"
            continue
        try:
            scored.append((participant, _scores(participant, derivatives, protocol, template, excluded)))
        except DataError:
            poor = any(visit.participant == label for visit in excluded)
            standing[label] = "poor-quality" if poor else "no-connectome"
    for reason, count in Counter(standing.values()).items():
        _log.warning("site %s: %d participants are left out: %s", site, count, reason)
    controls = [scores for p, scores in scored if p.group == "control"]
    offset = control_offset(np.array(controls).reshape(-1, len(template.mean)))
    children = [(p, scores - offset) for p, scores in scored if p.group == "dre"]
    if not children:
        raise DataError(f"site {site}: no child with DRE has a connectome; run 'esn-client prepare' first")
    held = {p.label for p, _ in children if protocol.cohort.holds_out(p.label, site=site)}
    for p, _ in scored:
        if p.label not in held:
            standing[p.label] = "child" if p.group == "dre" else "control"
    counted = [p for p in participants if p.label in standing]
    return Cohort(
        training=_split([c for c in children if c[0].label not in held], len(offset), phenotypes),
        held_out=_split([c for c in children if c[0].label in held], len(offset), phenotypes),
        controls=len(controls),
        people=People(
            participants=tuple(p.label for p in counted),
            standing=tuple(standing[p.label] for p in counted),
            age_years=np.array([p.age_years for p in counted]),
            sex=np.array([p.sex for p in counted]),
        ),
    )


def read_phenotypes(
    participants: Sequence[Participant], phenotypes: Phenotypes
) -> Mapping[str, Mapping[str, float]]:
    """Read the columns of a data dictionary: by column, then by participant.

    Raises
    ------
    DataError
        A column is missing, or a value is not what the dictionary says; the message lists all faults.

    """
    faults: list[str] = []
    found: dict[str, dict[str, float]] = {}
    for name, phenotype in phenotypes.items():
        if any(name not in p.row for p in participants):
            faults.append(f"participants.tsv has no column {name!r}, which the protocol explains")
            continue
        found[name] = {}
        for p in participants:
            try:
                found[name][p.label] = phenotype.value(p.row[name])
            except DataError as fault:
                faults.append(f"{p.label}: {name} {fault}")
    if faults:
        raise DataError("; ".join(faults))
    return found


def _scores(
    participant: Participant,
    derivatives: Path,
    protocol: Protocol,
    template: Template,
    excluded: frozenset[Visit],
) -> NDArray[np.float64]:
    """Average the edge scores of a participant's usable visits."""
    found, fault = [], DataError(f"{participant.label}: no connectome that may be used")
    for visit in prepared_visits(derivatives, protocol.imaging, participant=participant.label):
        if visit in excluded:
            continue
        try:
            connectome = Derivative(derivatives, visit, protocol.imaging).read_connectome()
            found.append(
                edge_scores(
                    edge_strengths(connectome), template, age_years=participant.age_years, sex=participant.sex
                )
            )
        except DataError as error:
            fault = error
    if not found:
        raise fault
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def _split(
    children: list[tuple[Participant, NDArray[np.float64]]],
    edges: int,
    phenotypes: Mapping[str, Mapping[str, float]],
) -> Split:
    return Split(
        participants=tuple(p.label for p, _ in children),
        scores=np.array([s for _, s in children]).reshape(-1, edges),
        gase=np.array([p.gase for p, _ in children], dtype=np.float64),
        phenotypes={
            name: np.array([values[p.label] for p, _ in children]) for name, values in phenotypes.items()
        },
    )


def _participant(row: dict[str, str]) -> Participant:
    label = row["participant_id"]
    if not (label.startswith("sub-") and label[4:].isalnum() and label.isascii()):
        raise DataError(f"participant_id must be 'sub-' and plain letters or digits, not {label!r}")
    if row["sex"] not in _SEX:
        raise DataError(f"{label}: sex must be F or M, not {row['sex']!r}")
    if row["group"] not in _GROUPS:
        raise DataError(f"{label}: group must be dre or control, not {row['group']!r}")
    try:
        age = float(row["age"])
    except ValueError:
        age = float("nan")
    if not 0 <= age <= 120:
        raise DataError(f"{label}: age must be in years, not {row['age']!r}")
    gase = None
    if row["group"] == "dre" and row["gase"] != MISSING:
        if row["gase"] not in {str(level) for level in GASE_LEVELS}:
            raise DataError(
                f"{label}: gase must be a whole number from 1 to 7, or {MISSING}, not {row['gase']!r}"
            )
        gase = int(row["gase"])
    return Participant(label, age, _SEX[row["sex"]], row["group"], gase, row)
