"""The site's audit log: one line of JSON for everything that left, and for every refusal."""

import datetime
import json
import os
from pathlib import Path

from esn_core.errors import GateError, LedgerError
from esn_core.questions import LedgerMark


class AuditLog:
    """An append-only file of JSON lines, each on disk before the next step.

    Lines hold question ids, hashes and error classes; never a patient, a path
    or a text that the centre chose.
    """

    def __init__(self, path: Path, *, site: str) -> None:
        self._path = path
        self._site = site

    def write(self, event: str, **facts: str | int | float) -> None:
        """Append one line.

        Raises
        ------
        GateError
            The file cannot be written to: what should have been logged may not leave.

        """
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "site": self._site, "event": event, **facts}, sort_keys=True)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as cause:
            raise GateError(f"{self._path}: the audit log cannot be written to: {cause.strerror}") from cause

    def last_charge(self) -> LedgerMark | None:
        """Return the newest ledger entry that this log knows of, or None.

        Raises
        ------
        LedgerError
            The log cannot be read: there is nothing to compare the ledger with.

        """
        if not self._path.exists():
            return None
        last: LedgerMark | None = None
        try:
            with self._path.open(encoding="utf-8") as file:
                for line in file:
                    # A process that was killed may have left half a line.
                    if not line.endswith("\n") or '"entry"' not in line:
                        continue
                    said = json.loads(line)
                    mark = LedgerMark(entries=said["entry"], head=said["entry_hash"])
                    last = mark if last is None or mark.entries > last.entries else last
        except (OSError, ValueError, KeyError) as cause:
            raise LedgerError(f"{self._path}: cannot be read as an audit log: {cause}") from cause
        return last
