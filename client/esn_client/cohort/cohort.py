"""The site's cohort: its children with epilepsy, which split they are in, and their edge scores."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.cohort.participants import Participant, read_phenotypes
from esn_client.imaging.bids.derivatives import Derivative, prepared_visits
from esn_client.imaging.bids.scans import Visit
from esn_client.imaging.quality.site_table import read_exclusions
from esn_core.connectome.control_offset import control_offset
from esn_core.connectome.template import Template, edge_scores, edge_strengths
from esn_core.errors import DataError
from esn_core.privacy.release import Children
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.matching import Standing

_log = logging.getLogger(__name__)


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
    age_years, sex : (n,) float64

    """

    participants: tuple[str, ...]
    scores: NDArray[np.float64]
    gase: NDArray[np.float64]
    phenotypes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    age_years: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    sex: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


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
    # ComBat finds the offset by itself, from the children.
    used = [] if protocol.cohort.harmonisation == "combat" else controls
    offset = control_offset(np.array(used).reshape(-1, len(template.mean)))
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
        age_years=np.array([p.age_years for p, _ in children], dtype=np.float64),
        sex=np.array([p.sex for p, _ in children], dtype=np.float64),
    )
