"""Everybody of a site's table as a study sees them: with edge scores, or left out for a reason."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from esn_client.cohort.participants import Participant
from esn_client.imaging.bids.derivatives import Derivative, prepared_visits
from esn_client.imaging.bids.scans import Visit
from esn_client.imaging.quality.site_table import read_exclusions
from esn_core.arrays import Floats
from esn_core.connectome.template import edge_scores, edge_strengths
from esn_core.errors import DataError
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
    """A participant, with scores or with the reason why there are none.

    Attributes
    ----------
    participant : Participant
    scores : (E,) float64 or None
        Edge z-scores against the public template, the site's offset still in them.
    left_out : Standing or None
        Why there are none.
    held_out : bool
        Whether it is a child whom the study holds out.

    """

    participant: Participant
    scores: Floats | None
    left_out: Standing | None
    held_out: bool


@dataclass(frozen=True)
class Members:
    """Everybody of the site's table, in its order."""

    members: tuple[Member, ...]

    @classmethod
    def read(
        cls, participants: Sequence[Participant], *, site: str, derivatives: Path, protocol: Protocol
    ) -> Self:
        """Score every participant who has a connectome; `DataError` where nobody can be judged."""
        excluded = read_exclusions(derivatives, protocol.imaging)
        if excluded:
            _log.warning("site %s: %d visits are left out for their quality", site, len(excluded))
        return cls(
            tuple(
                _member(p, site=site, derivatives=derivatives, protocol=protocol, excluded=excluded)
                for p in participants
            )
        )

    def scored(self, group: str, *, held_out: bool | None = None) -> list[tuple[Participant, Floats]]:
        """Return those of a group who have scores; both splits unless one is asked for."""
        return [
            (m.participant, m.scores)
            for m in self.members
            if m.scores is not None
            and m.participant.group == group
            and (held_out is None or m.held_out == held_out)
        ]

    @property
    def left_out(self) -> Counter[Standing]:
        """How many are left out, by reason."""
        return Counter(m.left_out for m in self.members if m.left_out is not None)

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
    """Score a participant, or say why that cannot be."""
    label, child = participant.label, participant.group == "dre"
    if child and participant.gase is None:
        return Member(participant, None, "no-score", held_out=False)
    try:
        scores = _scores(participant, derivatives, protocol, excluded)
    except DataError:
        poor = any(visit.participant == label for visit in excluded)
        return Member(participant, None, "poor-quality" if poor else "no-connectome", held_out=False)
    held_out = child and protocol.cohort.holds_out(label, site=site)
    return Member(participant, scores, None, held_out=held_out)


def _scores(
    participant: Participant,
    derivatives: Path,
    protocol: Protocol,
    excluded: frozenset[Visit],
) -> Floats:
    """Average the edge scores of a participant's usable visits."""
    found, fault = [], DataError(f"{participant.label}: no connectome that may be used")
    for visit in prepared_visits(derivatives, protocol.imaging, participant=participant.label):
        if visit in excluded:
            continue
        try:
            connectome = Derivative(derivatives, visit, protocol.imaging).read_connectome()
            found.append(
                edge_scores(
                    edge_strengths(connectome),
                    protocol.template,
                    age_years=participant.age_years,
                    sex=participant.sex,
                )
            )
        except DataError as error:
            fault = error
    if not found:
        raise fault
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)
