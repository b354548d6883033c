"""The finished steps of a run: a start is a resume from step 0."""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from esn_core.errors import StudyError
from esn_core.formats import RUN
from esn_core.messages.facts import EMPTY_LEDGER, LedgerMark, SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.release import ReleaseKind
from esn_server.study.asking import Pooled
from esn_server.study.rounds import Rounds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    protocol_sha256 TEXT NOT NULL,
    name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS steps (
    question TEXT PRIMARY KEY,
    content_sha256 TEXT NOT NULL,
    sites TEXT NOT NULL,
    total BLOB NOT NULL,
    relayed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS final_sets (
    question TEXT PRIMARY KEY,
    sites TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ledgers (
    site TEXT PRIMARY KEY,
    entries INTEGER NOT NULL,
    head TEXT NOT NULL
);
"""


class RunStore:
    """The file of one run: its name, its finished steps, for which sites seeds were asked, ends of ledgers.

    Parameters
    ----------
    path : Path
        SQLite file, created when it does not exist.
    protocol_sha256 : str
        The file belongs to one run of this protocol.

    Attributes
    ----------
    run : str
        Name of the run, drawn at its first start; part of every question's id.

    Raises
    ------
    StudyError
        The file belongs to another protocol, a newer release wrote it, or it is no such file.

    """

    def __init__(self, path: Path, *, protocol_sha256: str) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        except sqlite3.Error as cause:
            raise StudyError(f"{path}: cannot be opened as a run: {cause}") from cause
        try:
            found = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            new = not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            # 0 is what a file has that names none: a new one, or one of the first release.
            fault = None if new and not found else RUN.fault_in(found or None)
            if fault:
                self._connection.close()
                raise StudyError(f"{path}: cannot be opened as a run: {fault}")
            if found != RUN.version:
                self._connection.execute(f"PRAGMA user_version = {RUN.version}")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            # The first of two starts at once names the run.
            self._connection.execute(
                "INSERT OR IGNORE INTO run VALUES (1, ?, ?)", (protocol_sha256, secrets.token_hex(6))
            )
            row = self._connection.execute("SELECT protocol_sha256, name FROM run").fetchone()
        except sqlite3.Error as cause:
            self._connection.close()
            raise StudyError(f"{path}: cannot be opened as a run: {cause}") from cause
        if row[0] != protocol_sha256:
            self._connection.close()
            raise StudyError(
                f"{path}: belongs to a run of protocol {row[0][:16]}, not of {protocol_sha256[:16]}"
            )
        self.run = str(row[1])

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def stored(self, question: Question, kind: ReleaseKind) -> Pooled | None:
        """Return the sum of a finished step, if it is one.

        Raises
        ------
        StudyError
            The step is damaged, or was finished after other sums than those before it.

        """
        with self._database():
            row = self._connection.execute(
                "SELECT content_sha256, sites, total, relayed FROM steps WHERE question = ?",
                (str(question.id),),
            ).fetchone()
        if row is None:
            return None
        if row[0] != question.content_sha256:
            raise StudyError(f"step {question.id} was finished after other sums; start a new run")
        total = np.frombuffer(row[2], dtype="<f8").copy() if len(row[2]) == 8 * kind.dimension else None
        if total is None or not np.isfinite(total).all():
            raise StudyError(f"{self._path}: step {question.id} is damaged; start a new run")
        return Pooled(total, tuple(json.loads(row[1])), row[3])

    def keep(self, question: Question, pooled: Pooled) -> None:
        """Keep the sum of a finished step, and the answers that it is of; the first of two stays."""
        total = np.ascontiguousarray(pooled.total, dtype="<f8").tobytes()
        with self._database():
            self._connection.execute(
                "INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)",
                (
                    str(question.id),
                    question.content_sha256,
                    json.dumps(pooled.sites),
                    total,
                    pooled.relayed,
                ),
            )

    def final_set(self, question: str) -> tuple[str, ...] | None:
        """Return the sites whose seeds were asked for, if any were."""
        with self._database():
            row = self._connection.execute(
                "SELECT sites FROM final_sets WHERE question = ?", (question,)
            ).fetchone()
        return tuple(json.loads(row[0])) if row else None

    def finalise(self, question: str, sites: tuple[str, ...]) -> None:
        """Keep, durably, that seeds are asked for the sum of these sites.

        Raises
        ------
        StudyError
            They were asked for another set: two processes run this study.

        """
        with self._database():
            self._connection.execute(
                "INSERT OR IGNORE INTO final_sets VALUES (?, ?)", (question, json.dumps(sites))
            )
        if self.final_set(question) != sites:
            raise StudyError(f"{self._path}: another process runs this study; stop one of the two")

    def ledger_seen(self, site: str) -> LedgerMark:
        """Return the newest entry of a site's ledger that this run saw."""
        with self._database():
            row = self._connection.execute(
                "SELECT entries, head FROM ledgers WHERE site = ?", (site,)
            ).fetchone()
        return LedgerMark(entries=row[0], head=row[1]) if row else EMPTY_LEDGER

    def see_ledger(self, site: str, mark: LedgerMark) -> None:
        """Keep the newest entry: it travels with the run's directory to another machine."""
        with self._database():
            self._connection.execute(
                "INSERT INTO ledgers VALUES (?, ?, ?) ON CONFLICT (site) DO UPDATE "
                "SET entries = excluded.entries, head = excluded.head WHERE excluded.entries > entries",
                (site, mark.entries, mark.head),
            )

    @contextmanager
    def _database(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as cause:
            raise StudyError(f"{self._path}: the run's store cannot be used: {cause}") from cause


class Checkpoints:
    """The way to ask through a run's store.

    The sums that came in are all that a study is computed from. A step that is
    in the store is not asked again; a step that was asked but not stored is
    asked again, and the sites answer with the sum that they already paid for.
    The roll call is repeated at each start.

    Parameters
    ----------
    store : RunStore
    rounds : Rounds
        Asks the sites.

    """

    def __init__(self, store: RunStore, rounds: Rounds) -> None:
        self._store = store
        self._rounds = rounds

    def roll_call(self, question: Question) -> dict[str, SiteFacts]:
        """Ask every site what it runs."""
        return self._rounds.roll_call(question)

    def sum(self, question: Question, kind: ReleaseKind) -> Pooled:
        """Return the stored sum of a finished step, or ask for it and store it.

        Raises
        ------
        StudyError
            The phase cannot be finished; or the stored step cannot be used.

        """
        stored = self._store.stored(question, kind)
        if stored is not None:
            return stored
        pooled = self._rounds.sum(question, kind)
        self._store.keep(question, pooled)
        # What is in the store counts: another process may have been faster, with another set of sites.
        return self._store.stored(question, kind) or pooled
