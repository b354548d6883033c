"""Who is left of a site's table when those are out whose consent was withdrawn."""

import logging
from collections.abc import Sequence

from esn_client.cohort.participants import Participant
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes

_log = logging.getLogger(__name__)


def remaining(participants: Sequence[Participant], ledger: Ledger, *, salt: bytes) -> tuple[Participant, ...]:
    """Return the participants whose consent stands, by the ledger's notes."""
    withdrawn = ledger.withdrawn
    left = tuple(p for p in participants if name_of(p.label, salt, simulated=p.simulated) not in withdrawn)
    if len(left) < len(participants):
        count = len(participants) - len(left)
        _log.warning("%d participants are left out: their consent was withdrawn", count)
    return left


def name_of(label: str, salt: bytes, *, simulated: bool) -> str:
    """Return the ledger's identifier of one participant."""
    (name,) = patient_hashes([label], salt=salt, simulated=simulated)
    return name
