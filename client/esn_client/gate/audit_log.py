"""The site's audit log: one line of JSON for every message that came or left, and for every refusal."""

import json
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.gate.ledger import Ledger
from esn_core.errors import AuditError, GateError, LedgerError
from esn_core.identity.signing import sign
from esn_core.messages.facts import LedgerMark
from esn_core.system.chained_log import BrokenChainError, ChainedLog, hash_of, read_chain

REBUILT = "ledger-rebuilt"
"""The event from which on another ledger counts: a person decided so."""

_CURE = (
    "find the newest copy of the ledger; without one, 'esn-client ledger rebuild' counts again what has left"
)


class AuditLog:
    """An append-only file of chained JSON lines, each on disk before the next step.

    Lines hold question ids, hashes and error classes; never a patient, a path
    or a text that the centre chose.
    """

    def __init__(self, path: Path, *, site: str) -> None:
        self._path = path
        self._site = site
        self._log = ChainedLog(path)

    def write(self, event: str, **facts: str | int | float) -> None:
        """Append one line.

        Raises
        ------
        GateError
            The file cannot be written to: what should have been logged may not leave.

        """
        try:
            self._log.append(site=self._site, event=event, **facts)
        except OSError as cause:
            raise GateError(f"{self._path}: the audit log cannot be written to: {cause.strerror}") from cause

    def export(self, key: Ed25519PrivateKey) -> Iterator[str]:
        """Yield all lines and a last one that is signed, for the centre to compare with its own log.

        Parameters
        ----------
        key : Ed25519PrivateKey
            The site's identity.

        Raises
        ------
        AuditError
            A line was changed, removed, added or moved.

        """
        lines = list(self._log.lines())
        try:
            read_chain(lines)
        except BrokenChainError as cause:
            raise AuditError(f"{self._path}: {cause}") from cause
        # A part of a line that a kill left may be no text at all; its hash stands in the line after it.
        yield from (line.decode("utf-8", "surrogateescape") for line in lines)
        head = hash_of(lines[-1] if lines else None)
        signature = sign(f"{self._site}\n{len(lines)}\n{head}".encode(), key, "audit-log")
        yield json.dumps(
            {"site": self._site, "lines": len(lines), "head": head, "signature": signature.hex()}
        )

    def last_charge(self) -> LedgerMark | None:
        """Return the newest ledger entry that this log knows of, or None.

        Raises
        ------
        LedgerError
            The log cannot be read: there is nothing to compare the ledger with.

        """
        last: LedgerMark | None = None
        try:
            for line in self._log.lines():
                # A process that was killed may have left half a line.
                if b'"entry"' not in line or not line.endswith(b"}"):
                    continue
                said = json.loads(line)
                mark = LedgerMark(entries=said["entry"], head=said["entry_hash"])
                newer = last is None or mark.entries > last.entries or said.get("event") == REBUILT
                last = mark if newer else last
        except (OSError, ValueError, KeyError) as cause:
            raise LedgerError(f"{self._path}: cannot be read as an audit log: {cause}") from cause
        return last


def check_against_audit_log(ledger: Ledger, audit: AuditLog) -> None:
    """Refuse a ledger that lacks what the audit log saw leave.

    Raises
    ------
    LedgerError
        It was replaced, cut short, or restored from a backup.

    """
    seen = audit.last_charge()
    if seen is None:
        return
    try:
        same = ledger.mark_at(seen.entries) == seen
    except LedgerError as fault:
        raise LedgerError(f"{fault}; {_CURE}") from fault
    if not same:
        raise LedgerError(
            f"entry {seen.entries} of the ledger is not the one that the audit log saw: the ledger was "
            f"replaced or restored from a backup; {_CURE}"
        )
