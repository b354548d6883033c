"""The site's cohort: its children with epilepsy, which split they are in, and their edge scores."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esn_client.cohort.members import Members, People
from esn_client.cohort.participants import Participant, read_phenotypes
from esn_client.cohort.scoring import Score, Visits, mean_over_visits, scoring
from esn_client.gate.frozen_cohort import Person
from esn_client.imaging.bids.simulated_mark import misfit
from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import Children
from esn_core.protocol.protocol import Protocol

_log = logging.getLogger(__name__)

POOLED = (
    "its children are judged by the other sites' pooled controls, as the protocol says: they train nothing; "
    "the ranking of their predictions is usable, and the absolute score may be off by half a step"
)
"""What the protocol's choice means at a site without controls."""


@dataclass(frozen=True)
class Split:
    """Children with drug-resistant epilepsy of one split.

    Attributes
    ----------
    participants : tuple of n str
    scores : (n, E) float64
        Edge scores, against what the protocol judges by.
    gase : (n,) float64
    phenotypes : dict of str to (n,) float64
        The columns of the protocol's data dictionary, in their units; NaN where a value is not known.
    age_years, sex : (n,) float64

    """

    participants: tuple[str, ...]
    scores: Floats
    gase: Floats
    phenotypes: Mapping[str, Floats] = field(default_factory=dict)
    age_years: Floats = field(default_factory=lambda: np.empty(0))
    sex: Floats = field(default_factory=lambda: np.empty(0))


_NOBODY = People((), (), np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Cohort:
    """A site's children with DRE, split once and for all.

    Attributes
    ----------
    training, held_out : Split
    controls : int
        How many of the site's controls have a connectome.
    people : People
    control_strengths : (n, E) float64
        Edge strengths of the controls who have a connectome, in the order of `people`.
    control_scores : (n, E) float64
        Of the same, as a child of theirs is scored; none where nobody is scored.
    lines : dict of str to str
        Each participant's line of the table, as far as the study reads it.
    scans : dict of str to tuple of str
        Digests of the scans behind each participant's scores.
    lacking_tissue : tuple of str
        Those of whom too much tissue is missing, left out as without a connectome. For the site's own eyes.

    """

    training: Split
    held_out: Split
    controls: int
    people: People = _NOBODY
    control_strengths: Floats = field(default_factory=lambda: np.empty((0, 0)))
    control_scores: Floats = field(default_factory=lambda: np.empty((0, 0)))
    lines: Mapping[str, str] = field(default_factory=dict)
    scans: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lacking_tissue: tuple[str, ...] = ()

    @property
    def enrolled(self) -> tuple[Person, ...]:
        """Everybody, with what they count as, their lines and their scans."""
        standing: dict[str, str] = dict.fromkeys(self.training.participants, "training")
        standing |= dict.fromkeys(self.held_out.participants, "held-out")
        for other, labels in self.people.others.items():
            standing |= dict.fromkeys(labels, other)
        return tuple(
            Person(label, of, self.lines.get(label, ""), self.scans.get(label, ()))
            for label, of in standing.items()
        )

    def split(self, children: Children) -> Split:
        """Return one of the two splits."""
        return self.training if children == "training" else self.held_out


def load_cohort(
    participants: tuple[Participant, ...], *, site: str, derivatives: Path, protocol: Protocol
) -> Cohort:
    """Score every participant that has a connectome.

    A child's scores depend on the child's own scans, on public numbers, and on
    the site's controls; never on another child with epilepsy. A participant without a
    usable connectome is left out, and so is a visit that the site's table of
    quality excludes; the log says how many were.

    Raises
    ------
    DataError
        No child with epilepsy has a connectome, there are too few controls for the protocol, the table of
        quality is older than a connectome, or simulated people are to be in a study of real ones, or real
        ones in a rehearsal.

    """
    if protocol.voting:
        _require_own_people(participants, site=site, protocol=protocol)
        return _of_controls(participants, site=site, derivatives=derivatives, protocol=protocol)
    members = read_members(participants, site=site, derivatives=derivatives, protocol=protocol)
    return cohort_of(members, scoring(members.of("control"), protocol, site=site), protocol)


def read_members(
    participants: tuple[Participant, ...], *, site: str, derivatives: Path, protocol: Protocol
) -> Members:
    """Read the connectomes of everybody whom a study of children is about; `DataError` as `load_cohort`."""
    _require_own_people(participants, site=site, protocol=protocol)
    members = Members.read(participants, site=site, derivatives=derivatives, protocol=protocol)
    for reason, count in members.left_out.items():
        _log.warning("site %s: %d participants are left out: %s", site, count, reason)
    if not members.of("dre"):
        raise DataError(f"site {site}: no child with DRE has a connectome; run 'esn-client prepare' first")
    if not protocol.trains(site):
        _log.warning("site %s: %s", site, POOLED)
        return members.untrained
    return members


def _require_own_people(participants: tuple[Participant, ...], *, site: str, protocol: Protocol) -> None:
    """Refuse simulated people in a study of real ones, and real ones in a rehearsal."""
    for simulated in {person.simulated for person in participants}:
        words = misfit(simulated, protocol.simulated)
        if words:
            raise DataError(f"site {site}: {words}")


def cohort_of(members: Members, score: Score, protocol: Protocol) -> Cohort:
    """Return the cohort whose children are scored in a given way."""
    phenotypes = read_phenotypes(members.participants, protocol.phenotypes)
    controls = members.of("control")
    edges = len(protocol.atlas.edges)
    strengths = mean_over_visits([visits for _, visits in controls])
    return Cohort(
        training=_split(members.of("dre", held_out=False), score, edges, phenotypes),
        held_out=_split(members.of("dre", held_out=True), score, edges, phenotypes),
        controls=len(controls),
        people=members.people,
        control_strengths=strengths,
        control_scores=np.array([score(p, (own,)) for (p, _), own in zip(controls, strengths, strict=True)]),
        lines=members.lines(protocol.phenotypes),
        scans=members.scans,
        lacking_tissue=members.lacking_tissue,
    )


def _of_controls(
    participants: tuple[Participant, ...], *, site: str, derivatives: Path, protocol: Protocol
) -> Cohort:
    """Read the controls alone, for a protocol that asks about nobody else: no child is looked at."""
    controls = tuple(person for person in participants if person.group == "control")
    members = Members.read(controls, site=site, derivatives=derivatives, protocol=protocol)
    found = members.of("control")
    nobody = Split((), np.empty((0, len(protocol.atlas.edges))), np.empty(0))
    return Cohort(
        training=nobody,
        held_out=nobody,
        controls=len(found),
        people=members.people,
        control_strengths=mean_over_visits([visits for _, visits in found]),
        lines=members.lines(()),
        scans=members.scans,
    )


def _split(
    children: list[tuple[Participant, Visits]],
    score: Score,
    edges: int,
    phenotypes: Mapping[str, Mapping[str, float]],
) -> Split:
    return Split(
        participants=tuple(p.label for p, _ in children),
        scores=np.array([score(*child) for child in children]).reshape(-1, edges),
        gase=np.array([p.gase for p, _ in children], dtype=np.float64),
        phenotypes={
            name: np.array([values[p.label] for p, _ in children]) for name, values in phenotypes.items()
        },
        age_years=np.array([p.age_years for p, _ in children], dtype=np.float64),
        sex=np.array([p.sex for p, _ in children], dtype=np.float64),
    )
