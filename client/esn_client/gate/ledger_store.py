"""The file of the privacy ledger: a chain of signed entries in SQLite, and what stands beside them.

One SQLite file in WAL mode. Entries are only ever appended; each holds the
hash of the one before, and is signed by the site. An entry and the sum that it
pays for, or the seed that it reveals, are written in one transaction and
fsynced. What an entry says is a mapping of facts; `ledger` has the rules by
which entries come about, and reads their meaning.

The chain shows what was changed, removed or moved inside the file; the
signature, that the site wrote it. A tail that was cut off, or a file that came
back from a backup, leaves a shorter, whole chain: `mark_at` is compared with
the marks that others keep.

The version of the format stands in SQLite's ``user_version``: 0, as it was
before there was one, is 1. It is raised with the first entry that is appended.
"""

import datetime
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from esn_core.errors import GateError, LedgerError
from esn_core.formats import LEDGER
from esn_core.messages.facts import EMPTY_LEDGER, LedgerMark

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    signature BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sums (
    question TEXT PRIMARY KEY,
    content_sha256 TEXT NOT NULL,
    total BLOB NOT NULL,
    sequence INTEGER NOT NULL REFERENCES entries (sequence)
);
CREATE TABLE IF NOT EXISTS reveals (
    question TEXT PRIMARY KEY,
    participants TEXT NOT NULL,
    sequence INTEGER NOT NULL REFERENCES entries (sequence)
);
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS sums_stay BEFORE UPDATE ON sums
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS sums_remain BEFORE DELETE ON sums
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS reveals_stay BEFORE UPDATE ON reveals
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS reveals_remain BEFORE DELETE ON reveals
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""

Key = Ed25519PrivateKey | Ed25519PublicKey
"""The site's identity: the private key can charge, the public one can only read."""


@dataclass(frozen=True)
class StoredEntry:
    """An entry whose place in the chain, signature and sum were verified.

    Attributes
    ----------
    sequence : int
        From 1 on.
    facts : dict
        What the entry says, the time ``at`` included.
    previous, hash : str

    """

    sequence: int
    facts: dict[str, Any]
    previous: str
    hash: str

    @property
    def mark(self) -> LedgerMark:
        """The ledger's mark when this entry was its newest."""
        return LedgerMark(entries=self.sequence, head=self.hash)


@dataclass(frozen=True)
class Paid:
    """A sum that was charged: it may leave, as often as the same question is asked.

    Attributes
    ----------
    content_sha256 : str
    total : (d,) int64
    mark : LedgerMark
        The entry that charged it.

    """

    content_sha256: str
    total: NDArray[np.int64]
    mark: LedgerMark


class LedgerStore:
    """A ledger's file, open.

    Parameters
    ----------
    path : Path
        Created when it does not exist.
    key : Ed25519PrivateKey or Ed25519PublicKey
        The site's identity.

    Attributes
    ----------
    lock : RLock
        Held by whoever reads twice and needs one state of the file.

    Raises
    ------
    LedgerError
        The file is no ledger, or a newer release wrote it.

    """

    def __init__(self, path: Path, key: Key) -> None:
        self._path = path
        self._key = key
        # One connection: without the lock a second thread would read what the first has not committed.
        self.lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as cause:
            raise LedgerError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        try:
            # Before anything is written: the tables of a newer format may be others.
            self._check_format()
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit returns only when the log is on disk.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as cause:
            self._connection.close()
            raise LedgerError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        except LedgerError:
            self._connection.close()
            raise

    def _check_format(self) -> None:
        fault = LEDGER.fault_in(self._user_version() or None)
        if fault:
            raise LedgerError(f"{self._path}: cannot be opened as a ledger: {fault}")

    def _user_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def mark(self) -> LedgerMark:
        """The newest entry."""
        with self.lock:
            row = self._connection.execute(
                "SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
        return LedgerMark(entries=row[0], head=row[1]) if row else EMPTY_LEDGER

    def mark_at(self, entries: int) -> LedgerMark:
        """Return the mark that the ledger had when it held so many entries.

        Raises
        ------
        LedgerError
            It does not hold so many: it was cut short, or came back from a backup.

        """
        if entries == 0:
            return EMPTY_LEDGER
        with self.lock:
            row = self._connection.execute(
                "SELECT hash FROM entries WHERE sequence = ?", (entries,)
            ).fetchone()
        if row is None:
            raise LedgerError(
                f"{self._path}: holds {self.mark.entries} entries where {entries} were seen: it was cut "
                "short or restored from a backup"
            )
        return LedgerMark(entries=entries, head=row[0])

    def verified(self, *, after: LedgerMark) -> list[StoredEntry]:
        """Return the entries that follow a mark, oldest first.

        Raises
        ------
        LedgerError
            One of them or its sum was changed, removed, added or moved, or has another's signature; the
            message names the first.

        """
        public = self._key if isinstance(self._key, Ed25519PublicKey) else self._key.public_key()
        with self.lock:
            # One statement sees one state of the file, whatever another process writes meanwhile.
            rows = self._connection.execute(
                "SELECT e.sequence, e.body, e.previous, e.hash, e.signature, "
                "s.question, s.content_sha256, s.total, r.question, r.participants "
                "FROM entries e LEFT JOIN sums s ON s.sequence = e.sequence "
                "LEFT JOIN reveals r ON r.sequence = e.sequence WHERE e.sequence > ? ORDER BY e.sequence",
                (after.entries,),
            ).fetchall()
        found, seen = [], after
        for count, (sequence, body, said, digest, signature, *beside) in enumerate(
            rows, start=after.entries + 1
        ):
            if sequence != count or said != seen.head or digest != _hash(sequence, body, said):
                raise LedgerError(f"{self._path}: the ledger's chain is broken at entry {count}")
            try:
                public.verify(signature, digest.encode())
            except InvalidSignature as cause:
                raise LedgerError(
                    f"{self._path}: entry {count} is not signed by this site's identity key"
                ) from cause
            facts = json.loads(body)
            if not _fits(facts, *beside):
                raise LedgerError(
                    f"{self._path}: the sum of {facts.get('question', '')} (entry {count}) is not the one "
                    "charged"
                )
            found.append(StoredEntry(sequence, facts, said, digest))
            seen = found[-1].mark
        return found

    def check_beside(self) -> None:
        """Look for sums and seeds that belong to no entry.

        Raises
        ------
        LedgerError
            There is one.

        """
        with self.lock:
            stray = self._connection.execute(
                "SELECT question FROM sums WHERE sequence NOT IN (SELECT sequence FROM entries) "
                "UNION SELECT question FROM reveals WHERE sequence NOT IN (SELECT sequence FROM entries)"
            ).fetchone()
        if stray:
            raise LedgerError(f"{self._path}: the sum of {stray[0]} was never charged")

    def paid(self, question: str) -> Paid | None:
        """Return the sum that was charged for `question`, if it was."""
        with self.lock:
            row = self._connection.execute(
                "SELECT s.content_sha256, s.total, e.sequence, e.hash "
                "FROM sums s JOIN entries e ON e.sequence = s.sequence WHERE s.question = ?",
                (question,),
            ).fetchone()
        if row is None:
            return None
        return Paid(row[0], np.frombuffer(row[1], dtype="<i8"), LedgerMark(entries=row[2], head=row[3]))

    def revealed(self, question: str) -> tuple[tuple[str, ...], LedgerMark] | None:
        """Return the sites for whose sum the seed of a mask was revealed, and the entry; None before."""
        with self.lock:
            row = self._connection.execute(
                "SELECT r.participants, e.sequence, e.hash "
                "FROM reveals r JOIN entries e ON e.sequence = r.sequence WHERE r.question = ?",
                (question,),
            ).fetchone()
        return (tuple(json.loads(row[0])), LedgerMark(entries=row[1], head=row[2])) if row else None

    def append_sum(
        self, facts: Mapping[str, object], total: NDArray[np.int64], *, question: str, content_sha256: str
    ) -> Paid:
        """Append an entry with the sum that it pays for, inside `writing`.

        Parameters
        ----------
        facts : mapping
            What the entry says beside the digests of content and sum.
        total : (d,) int64
        question, content_sha256 : str

        """
        blob = np.ascontiguousarray(total, dtype="<i8").tobytes()
        digests = {"content_sha256": content_sha256, "total_sha256": _sha256(blob)}
        mark = self._append({**digests, **facts})
        self._connection.execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?)", (question, content_sha256, blob, mark.entries)
        )
        return Paid(content_sha256, total, mark)

    def append_reveal(self, question: str, participants: Sequence[str]) -> LedgerMark:
        """Append that the seed of a mask is revealed for the sum of these sites, inside `writing`."""
        mark = self._append({"question": question, "reveals": list(participants)})
        self._connection.execute(
            "INSERT INTO reveals VALUES (?, ?, ?)", (question, json.dumps(list(participants)), mark.entries)
        )
        return mark

    def append_note(self, facts: Mapping[str, object]) -> LedgerMark:
        """Append what nothing stands beside, inside `writing`."""
        return self._append(dict(facts))

    def _append(self, facts: dict[str, object]) -> LedgerMark:
        """Chain and sign one entry, inside a transaction."""
        if not isinstance(self._key, Ed25519PrivateKey):
            raise GateError(f"{self._path}: was opened to be read; only the site itself can write to it")
        if self._user_version() != LEDGER.version:
            self._connection.execute(f"PRAGMA user_version = {LEDGER.version}")
        body = json.dumps(
            {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **facts},
            sort_keys=True,
        )
        last = self.mark
        sequence = last.entries + 1
        digest = _hash(sequence, body, last.head)
        self._connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
            (sequence, body, last.head, digest, self._key.sign(digest.encode())),
        )
        return LedgerMark(entries=sequence, head=digest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the file for one transaction; what was written is on disk afterwards, or nothing was.

        Raises
        ------
        sqlite3.Error
            The file cannot be written to now.
        LedgerError
            A newer release has written to it since it was opened.

        """
        with self.lock:
            try:
                # IMMEDIATE: a second process waits here, before it has read anything.
                self._connection.execute("BEGIN IMMEDIATE")
                self._check_format()
                yield
                self._connection.execute("COMMIT")
            finally:
                # Not after a commit; and a full disk may have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def export(self) -> Iterator[str]:
        """Yield every entry as a line of JSON, with its signature in hex."""
        with self.lock:
            rows = self._connection.execute(
                "SELECT sequence, previous, hash, signature, body FROM entries ORDER BY sequence"
            ).fetchall()
        for sequence, previous, digest, signature, body in rows:
            yield json.dumps(
                {
                    "sequence": sequence,
                    "previous": previous,
                    "hash": digest,
                    "signature": signature.hex(),
                    "body": body,
                }
            )


def _fits(
    body: dict[str, Any],
    question: str | None,
    content_sha256: str | None,
    total: bytes | None,
    revealed: str | None,
    participants: str | None,
) -> bool:
    """Tell whether what stands beside an entry is what the entry says."""
    if "question" not in body:  # a note
        return total is None and revealed is None
    if "reveals" in body:
        return (
            total is None
            and participants is not None
            and body["question"] == revealed
            and body["reveals"] == json.loads(participants)
        )
    return (
        total is not None
        and revealed is None
        and body["question"] == question
        and body["content_sha256"] == content_sha256
        and body["total_sha256"] == _sha256(total)
    )


def _hash(sequence: int, body: str, previous: str) -> str:
    return _sha256(f"{sequence}\n{previous}\n{body}".encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
