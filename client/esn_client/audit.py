"""The site's audit log: one line of JSON for everything that left, and for every refusal."""

import datetime
import json
import os
from pathlib import Path

from esn_core.errors import GateError


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
