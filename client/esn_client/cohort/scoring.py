"""What a site's children are judged by: its own controls, those of other sites, or a template, as agreed.

A participant is the edge strengths of one visit or of several, and a score is the mean over visits: one
patient counts once. Controls alone enter what all children are judged by, never another child.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from esn_client.cohort.participants import Participant
from esn_client.cohort.strata import judges
from esn_core.arrays import Floats
from esn_core.connectome.control_offset import control_offset
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import edge_scores
from esn_core.errors import ControlsError, DataError
from esn_core.protocol.protocol import Protocol

Visits: TypeAlias = tuple[Floats, ...]
"""The (E,) edge strengths of each usable visit of a participant."""
People: TypeAlias = Sequence[tuple[Participant, Visits]]
Score: TypeAlias = Callable[[Participant, Visits], Floats]
"""Gives a participant (E,) edge scores."""


def scoring(controls: People, protocol: Protocol, *, site: str) -> Score:
    """Return how a site's children are scored.

    Parameters
    ----------
    controls : sequence of participants with their visits
        The site's healthy controls who have a connectome.
    protocol : Protocol
    site : str

    Raises
    ------
    ControlsError
        The protocol judges by the site's own controls, and there are fewer than it asks for.

    """
    if protocol.cohort.harmonisation != "site-controls":
        return judged_by(controls, protocol)
    pooled = protocol.pooled_reference
    if pooled is not None and not protocol.trains(site):
        return by_controls(pooled)
    least = protocol.cohort.minimum_controls
    if len(controls) < least:
        raise ControlsError(
            f"site {site}: {len(controls)} healthy controls have a usable connectome; the protocol scores "
            f"each child by the mean and spread of {least} or more of the site's own. Prepare more, or ask "
            "the centre for a protocol that judges this site's children by the other sites' pooled controls "
            "(cohort.without_controls)"
        )
    return judged_by(controls, protocol)


def judged_by(controls: People, protocol: Protocol) -> Score:
    """Return how children are scored by so many controls, fewer than the protocol asks for or not.

    Raises
    ------
    DataError
        There are too few controls for a mean and a spread.

    """
    if protocol.cohort.harmonisation != "site-controls":
        return _by_template(controls, protocol)
    return _by_own_controls(controls, minimum=protocol.cohort.minimum_controls)


def mean_over_visits(people: Sequence[Visits]) -> Floats:
    """Return each participant's (n, E) edge strengths, the mean over the visits in which an edge is known."""
    return np.array([_mean(np.array(visits)) for visits in people])


def _mean(visits: Floats) -> Floats:
    """Average (v, E) strengths; NaN stays where no visit knows an edge."""
    known = np.isfinite(visits)
    total = np.where(known, visits, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _by_own_controls(controls: People, *, minimum: int) -> Score:
    """Score by the controls of a participant's scanner or session, where these are enough, or by all."""
    people = [person for person, _ in controls]
    strengths = mean_over_visits([visits for _, visits in controls])
    known: dict[bytes, Score] = {}

    def score(participant: Participant, visits: Visits) -> Floats:
        chosen = judges(participant, people, minimum=minimum)
        key = chosen.tobytes()
        if key not in known:
            known[key] = by_controls(ControlReference.of_controls(strengths[chosen]))
        return known[key](participant, visits)

    return score


def by_controls(reference: ControlReference) -> Score:
    """Return how children are scored by a reference."""
    return lambda _, visits: np.mean([reference.scores(strengths) for strengths in visits], axis=0)


def _by_template(controls: People, protocol: Protocol) -> Score:
    template = protocol.template
    if template is None:
        raise DataError("the protocol has no template to score by")

    def raw(participant: Participant, visits: Visits) -> Floats:
        each = [
            edge_scores(strengths, template, age_years=participant.age_years, sex=participant.sex)
            for strengths in visits
        ]
        return np.asarray(np.mean(each, axis=0), dtype=np.float64)

    shrinkage = protocol.cohort.offset_shrinkage
    if shrinkage is None:  # ComBat finds the offset by itself, from the children
        return raw
    found = np.array([raw(*control) for control in controls]).reshape(-1, len(template.mean))
    offset = control_offset(found, shrinkage_controls=shrinkage)

    def less_offset(participant: Participant, visits: Visits) -> Floats:
        known = np.isfinite(visits).any(axis=0)
        return np.where(known, raw(participant, visits) - offset, 0.0)

    return less_offset
