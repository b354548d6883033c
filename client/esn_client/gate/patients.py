"""The ledger's names of patients: hashes of their labels, keyed with the site's secret."""

import hashlib
from collections.abc import Sequence


def patient_hashes(participants: Sequence[str], *, salt: bytes, simulated: bool) -> tuple[str, ...]:
    """Return the ledger's identifier of each participant.

    Simulated people have names of their own: what a rehearsal spends is nobody's who has the same label.
    """
    person = b"simulated" if simulated else b""
    return tuple(
        hashlib.blake2b(p.encode(), key=salt[:64], digest_size=16, person=person).hexdigest()
        for p in participants
    )


def salt_fingerprint(salt: bytes) -> str:
    """Return what the ledger notes of the key of its patients' hashes."""
    return hashlib.sha256(b"esn-federated patient salt\n" + salt).hexdigest()
