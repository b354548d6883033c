"""Everybody of a site's table as a study sees them: with edge strengths, or left out for a reason."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from esn_client.cohort.participants import STUDY_COLUMNS, Participant
from esn_client.cohort.scoring import Visits
from esn_client.cohort.strata import STRATA
from esn_client.gate.frozen_cohort import canonical_line
from esn_client.imaging.bids.derivatives import Derivative, prepared_visits, scans_of
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.quality.scan_kinds import ScanKind, kinds_of
from esn_client.imaging.quality.site_table import read_exclusions
from esn_core.arrays import Floats
from esn_core.connectome.template import edge_strengths
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.matching import Standing

_log = logging.getLogger(__name__)


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
    age_years: Floats
    sex: Floats

    @property
    def others(self) -> Mapping[Standing, tuple[str, ...]]:
        """The participants who are no training children, by standing."""
        found: dict[Standing, list[str]] = {}
        for label, standing in zip(self.participants, self.standing, strict=True):
            if standing != "child":
                found.setdefault(standing, []).append(label)
        return {standing: tuple(labels) for standing, labels in found.items()}


@dataclass(frozen=True)
class Member:
    """A participant, with edge strengths or with the reason why there are none.

    Attributes
    ----------
    participant : Participant
    visits : tuple of (E,) float64
        Edge strengths of each usable visit.
    left_out : Standing or None
        Why there are none.
    held_out : bool
        Whether it is a child whom the study holds out.
    scans : tuple of str
        Digests of the scans behind the edge strengths.
    lacks_tissue : bool
        Whether that is why there are none: for too many of the candidates. Never released.

    """

    participant: Participant
    visits: Visits
    left_out: Standing | None
    held_out: bool
    scans: tuple[str, ...] = ()
    lacks_tissue: bool = False


@dataclass(frozen=True)
class Members:
    """Everybody of the site's table, in its order."""

    members: tuple[Member, ...]

    @classmethod
    def read(
        cls, participants: Sequence[Participant], *, site: str, derivatives: Path, protocol: Protocol
    ) -> Self:
        """Read every participant's connectomes; `DataError` where nobody can be judged."""
        excluded = read_exclusions(derivatives, protocol.imaging)
        if excluded:
            _log.warning("site %s: %d visits are left out for their quality", site, len(excluded))
        return cls(
            tuple(
                _member(p, site=site, derivatives=derivatives, protocol=protocol, excluded=excluded)
                for p in participants
            )
        )

    def of(self, group: str, *, held_out: bool | None = None) -> list[tuple[Participant, Visits]]:
        """Return those of a group who take part; both splits unless one is asked for."""
        return [
            (m.participant, m.visits)
            for m in self.members
            if m.left_out is None
            and m.participant.group == group
            and (held_out is None or m.held_out == held_out)
        ]

    @property
    def untrained(self) -> Self:
        """Those who count at a site that trains nothing: the held-out children, and who is left out."""
        return type(self)(tuple(m for m in self.members if m.held_out or m.left_out is not None))

    @property
    def participants(self) -> tuple[Participant, ...]:
        """Everybody, whether they take part or not."""
        return tuple(member.participant for member in self.members)

    @property
    def left_out(self) -> Counter[Standing]:
        """How many are left out, by reason."""
        return Counter(m.left_out for m in self.members if m.left_out is not None)

    @property
    def lacking_tissue(self) -> tuple[str, ...]:
        """The participants who lack tissue for more of the candidates than the protocol allows."""
        return tuple(m.participant.label for m in self.members if m.lacks_tissue)

    @property
    def scans(self) -> dict[str, tuple[str, ...]]:
        """The digests of everybody's scans, by label."""
        return {m.participant.label: m.scans for m in self.members}

    def lines(self, columns: Iterable[str]) -> dict[str, str]:
        """Return everybody's line of the table, by label: what each study reads, and some more columns."""
        found = {}
        for member in self.members:
            row = member.participant.row
            # A column that decides by whom a child is judged, where the table has one.
            read = [*STUDY_COLUMNS, *columns, *(name for name in STRATA if name in row)]
            found[member.participant.label] = canonical_line({name: row.get(name, "") for name in read})
        return found

    @property
    def people(self) -> People:
        """Everybody but the held-out children, with what each counts as."""
        counted = list(self._counted())
        return People(
            participants=tuple(p.label for p, _ in counted),
            standing=tuple(standing for _, standing in counted),
            age_years=np.array([p.age_years for p, _ in counted]),
            sex=np.array([p.sex for p, _ in counted]),
        )

    def _counted(self) -> Iterator[tuple[Participant, Standing]]:
        for member in self.members:
            if member.left_out is not None:
                yield member.participant, member.left_out
            elif not member.held_out:
                yield member.participant, "child" if member.participant.group == "dre" else "control"


def _member(
    participant: Participant,
    *,
    site: str,
    derivatives: Path,
    protocol: Protocol,
    excluded: frozenset[Visit],
) -> Member:
    """Read a participant's connectomes, or say why that cannot be."""
    label, child = participant.label, participant.group == "dre"
    if child and participant.gase is None:
        return Member(participant, (), "no-score", held_out=False)
    visits = strengths_in(derivatives, protocol.imaging, label, excluded)
    lacking = bool(visits) and lacks_too_much(visits, protocol)
    if lacking:
        _log.warning("a participant lacks more edges than the protocol allows, and is left out")
        visits = ()
    if not visits:
        poor = any(visit.participant == label for visit in excluded)
        reason: Standing = "poor-quality" if poor else "no-connectome"
        return Member(participant, (), reason, held_out=False, lacks_tissue=lacking)
    held_out = child and protocol.cohort.holds_out(label, site=site)
    scans = scans_behind(derivatives, protocol.imaging, label, excluded)
    return Member(participant, visits, None, held_out=held_out, scans=scans)


def lacks_too_much(visits: Visits, protocol: Protocol) -> bool:
    """Tell whether a visit lacks tissue for more of the candidates than the protocol allows, or for all."""
    if protocol.voting:  # which has no candidates yet, and counts nobody where tissue is missing
        return False
    edges = protocol.candidates.edges
    share = max(float(np.isnan(strengths[edges]).mean()) for strengths in visits)
    return share > protocol.cohort.missing_edges or share == 1


def strengths_in(
    derivatives: Path, recipe: ImagingRecipe, participant: str, excluded: frozenset[Visit]
) -> Visits:
    """Read the edge strengths of a participant's usable visits; of none where none is usable."""
    found = []
    for visit in prepared_visits(derivatives, recipe, participant=participant):
        if visit in excluded:
            continue
        with suppress(DataError):
            connectome = Derivative(derivatives, visit, recipe).read_connectome()
            found.append(edge_strengths(connectome))
    return tuple(found)


def unlisted(listed: Collection[str], derivatives: Path, recipe: ImagingRecipe) -> tuple[str, ...]:
    """Return the participants who have a connectome and no line in the table: nobody reads them."""
    return tuple(sorted({v.participant for v in prepared_visits(derivatives, recipe)} - set(listed)))


def kinds_of_scans(
    derivatives: Path, recipe: ImagingRecipe, participants: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return how each participant's usable visits were scanned, in words that those scanned alike share.

    Participants of whom no record says so are left out.
    """
    excluded, scans = read_exclusions(derivatives, recipe), {}
    for visit in prepared_visits(derivatives, recipe):
        if visit.participant in participants and visit not in excluded:
            with suppress(DataError):
                scans[visit] = ScanKind.of_record(Derivative(derivatives, visit, recipe).read_record())
    found: dict[str, set[str]] = {}
    for visit, words in kinds_of(scans).items():
        found.setdefault(visit.participant, set()).add(words)
    return {label: tuple(sorted(kinds)) for label, kinds in found.items()}


def scans_behind(
    derivatives: Path, recipe: ImagingRecipe, participant: str, excluded: frozenset[Visit]
) -> tuple[str, ...]:
    """Return the digests of the scans of a participant's usable visits, by their records.

    Of a visit whose record names no scan, the digest of its connectome stands for it.
    """
    found: set[str] = set()
    for visit in prepared_visits(derivatives, recipe, participant=participant):
        if visit in excluded:
            continue
        with suppress(DataError):
            found |= scans_of(Derivative(derivatives, visit, recipe).read_record())
    return tuple(sorted(found))
