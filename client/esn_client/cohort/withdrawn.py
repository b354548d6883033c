"""Who is left of a site's table when those are out whose consent was withdrawn."""

import logging
from collections.abc import Callable, Iterable, Sequence

from esn_client.cohort.participants import Participant
from esn_client.gate.frozen_cohort import keyed_scans
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes

Withdrew = Callable[[Participant, Iterable[str]], bool]
"""Tells of a participant, with the digests of the scans, whether consent was withdrawn."""

_log = logging.getLogger(__name__)


def remaining(participants: Sequence[Participant], ledger: Ledger, *, salt: bytes) -> tuple[Participant, ...]:
    """Return the participants whose consent stands, by the ledger's notes."""
    withdrawn = ledger.withdrawn
    left = tuple(p for p in participants if name_of(p.label, salt, simulated=p.simulated) not in withdrawn)
    if len(left) < len(participants):
        count = len(participants) - len(left)
        _log.warning("%d participants are left out: their consent was withdrawn", count)
    return left


def by_ledger(ledger: Ledger, *, salt: bytes) -> Withdrew:
    """Return who withdrew by a ledger's notes as they are now: a label, or a scan under any label."""
    withdrawn = ledger.withdrawn

    def withdrew(person: Participant, scans: Iterable[str]) -> bool:
        simulated = person.simulated
        if name_of(person.label, salt, simulated=simulated) in withdrawn:
            return True
        whose = ledger.charged_for(keyed_scans(scans, salt=salt, simulated=simulated))
        return any(withdrawn & who for who in whose.values())

    return withdrew


def name_of(label: str, salt: bytes, *, simulated: bool) -> str:
    """Return the ledger's identifier of one participant."""
    (name,) = patient_hashes([label], salt=salt, simulated=simulated)
    return name
