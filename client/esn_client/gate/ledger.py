"""The privacy ledger: every release that touched a patient, kept for ever.

One SQLite file in WAL mode. Entries are only ever appended; each holds the
hash of the one before, and is signed by the site. A charge and the noised sum
that it pays for are written in one transaction, fsynced, before the sum may
leave: whatever happens to the process, no sum leaves without its charge, and a
question that is asked again is answered with the sum that was paid for. That
the seed of a mask was revealed is an entry of the same chain.

The ledger stores facts (mechanism, bound, patients as keyed hashes); epsilon
is computed from them.

The chain shows what was changed, removed or moved inside the file; the
signature, that the site wrote it. A tail that was cut off, or a file that came
back from a backup, leaves a shorter, whole chain: the site's audit log and the
centre each keep the last entry that they saw, and `mark_at` is compared with it.
"""

import datetime
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from esn_client.gate.charge import Charge
from esn_client.gate.spending import Spending, Spent
from esn_core.errors import GateError, LedgerError, PrivacyBudgetError, ProtocolError
from esn_core.messages.facts import EMPTY_LEDGER, LedgerMark
from esn_core.privacy.accounting import NO_NOISE, GaussianRelease

# The cap is compared with an epsilon that two root searches and a sum computed: a protocol that
# spends the cap to the last digit is not above it.
_ROUNDING = 1e-9

GENESIS = EMPTY_LEDGER.head
"""What the first entry has for the hash of the one before."""

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
class Entry:
    """A charge, as it stands in the ledger."""

    sequence: int
    at: str
    charge: Charge
    previous: str
    hash: str


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


class Ledger:
    """A site's ledger file, open.

    Parameters
    ----------
    path : Path
        Created when it does not exist.
    key : Ed25519PrivateKey or Ed25519PublicKey
        The site's identity.

    Raises
    ------
    LedgerError
        The file is no ledger, its chain is broken, or another site wrote it.

    """

    def __init__(self, path: Path, key: Key) -> None:
        self._path = path
        self._key = key
        # One connection: without the lock a second thread would read what the first has not committed.
        self._lock = threading.RLock()
        self._seen, self._spending = EMPTY_LEDGER, Spending()
        try:
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as cause:
            raise LedgerError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit returns only when the log is on disk.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            self.verify()
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError) as cause:
            self._connection.close()
            raise LedgerError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        except LedgerError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def entries(self) -> list[Entry]:
        """Return all charges, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT sequence, body, previous, hash FROM entries ORDER BY sequence"
            ).fetchall()
        said = [(row, json.loads(row[1])) for row in rows]
        return [_entry(body, row) for row, body in said if "reveals" not in body]

    @property
    def mark(self) -> LedgerMark:
        """The newest entry."""
        with self._lock:
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
        with self._lock:
            row = self._connection.execute(
                "SELECT hash FROM entries WHERE sequence = ?", (entries,)
            ).fetchone()
        if row is None:
            raise LedgerError(
                f"{self._path}: holds {self.mark.entries} entries where {entries} were seen: it was cut "
                "short or restored from a backup"
            )
        return LedgerMark(entries=entries, head=row[0])

    def verify(self) -> int:
        """Walk the chain from its beginning.

        Returns
        -------
        int
            Number of entries.

        Raises
        ------
        LedgerError
            An entry or its sum was changed, removed, added or moved, or has another's signature; the
            message names the first.

        """
        with self._lock:
            rows = self._rows(after=0)
            stray = self._connection.execute(
                "SELECT question FROM sums WHERE sequence NOT IN (SELECT sequence FROM entries) "
                "UNION SELECT question FROM reveals WHERE sequence NOT IN (SELECT sequence FROM entries)"
            ).fetchone()
        if stray:
            raise LedgerError(f"{self._path}: the sum of {stray[0]} was never charged")
        spending = Spending()
        self._seen, self._spending = self._walk(rows, EMPTY_LEDGER, spending), spending
        return len(rows)

    def _catch_up(self) -> None:
        """Walk what was written since the last look; what was walked before must still end as it did.

        So the whole chain is verified once, when the file is opened, and each entry once after that:
        what other processes write is looked at before it counts.
        """
        with self._lock:
            if self.mark_at(self._seen.entries) != self._seen:
                raise LedgerError(
                    f"{self._path}: entry {self._seen.entries} is not the one that was verified; the file "
                    "was replaced while it was open"
                )
            self._seen = self._walk(self._rows(after=self._seen.entries), self._seen, self._spending)

    def _rows(self, *, after: int) -> list[tuple[Any, ...]]:
        # One statement sees one state of the file, whatever another process writes meanwhile.
        return self._connection.execute(
            "SELECT e.sequence, e.body, e.previous, e.hash, e.signature, "
            "s.question, s.content_sha256, s.total, r.question, r.participants "
            "FROM entries e LEFT JOIN sums s ON s.sequence = e.sequence "
            "LEFT JOIN reveals r ON r.sequence = e.sequence WHERE e.sequence > ? ORDER BY e.sequence",
            (after,),
        ).fetchall()

    def _walk(self, rows: list[tuple[Any, ...]], seen: LedgerMark, spending: Spending) -> LedgerMark:
        """Verify entries that follow a mark, and count their charges; return the mark after them."""
        public = self._key if isinstance(self._key, Ed25519PublicKey) else self._key.public_key()
        charges = []
        for count, row in enumerate(rows, start=seen.entries + 1):
            sequence, body, said, digest, signature = row[:5]
            if sequence != count or said != seen.head or digest != _hash(sequence, body, said):
                raise LedgerError(f"{self._path}: the ledger's chain is broken at entry {count}")
            try:
                public.verify(signature, digest.encode())
            except InvalidSignature as cause:
                raise LedgerError(
                    f"{self._path}: entry {count} is not signed by this site's identity key"
                ) from cause
            seen = LedgerMark(entries=count, head=digest)
            facts = json.loads(body)
            if not _fits(facts, *row[5:]):
                question = facts.get("question", "")
                raise LedgerError(
                    f"{self._path}: the sum of {question} (entry {count}) is not the one charged"
                )
            if "reveals" not in facts:
                charges.append(_entry(facts, (sequence, body, said, digest)).charge)
        for charge in charges:
            spending.add(charge)
        return seen

    def paid(self, question: str) -> Paid | None:
        """Return the sum that was charged for `question`, if it was."""
        with self._lock:
            row = self._connection.execute(
                "SELECT s.content_sha256, s.total, e.sequence, e.hash "
                "FROM sums s JOIN entries e ON e.sequence = s.sequence WHERE s.question = ?",
                (question,),
            ).fetchone()
        if row is None:
            return None
        return Paid(row[0], np.frombuffer(row[1], dtype="<i8"), LedgerMark(entries=row[2], head=row[3]))

    def revealed(self, question: str) -> tuple[str, ...] | None:
        """Return the sites for whose sum the seed of a mask was revealed, if it was."""
        with self._lock:
            row = self._connection.execute(
                "SELECT participants FROM reveals WHERE question = ?", (question,)
            ).fetchone()
        return tuple(json.loads(row[0])) if row else None

    def reveal(self, question: str, participants: Sequence[str]) -> LedgerMark:
        """Note, durably, for which sum the seed of this site's mask is revealed.

        Raises
        ------
        ProtocolError
            It was revealed for another set of sites, or the question was never answered.

        """
        with self._writing():
            before = self.revealed(question)
            if before is None:
                if self.paid(question) is None:
                    raise ProtocolError("a seed was asked for before its question was answered")
                sequence = self._append({"question": question, "reveals": list(participants)})
                self._connection.execute(
                    "INSERT INTO reveals VALUES (?, ?, ?)",
                    (question, json.dumps(list(participants)), sequence),
                )
            elif before != tuple(participants):
                raise ProtocolError(
                    f"the seed of this question was revealed for {', '.join(before)}, and is for nobody else"
                )
            row = self._connection.execute(
                "SELECT e.sequence, e.hash FROM reveals r JOIN entries e ON e.sequence = r.sequence "
                "WHERE r.question = ?",
                (question,),
            ).fetchone()
        return LedgerMark(entries=row[0], head=row[1])

    def charge(
        self,
        charge: Charge,
        total: NDArray[np.int64],
        *,
        content_sha256: str,
        epsilon_cap: float,
        delta: float,
    ) -> Paid:
        """Charge a release and keep its sum, in one durable step.

        Parameters
        ----------
        charge : Charge
        total : (d,) int64
            The noised sum.
        content_sha256 : str
            Hash of what was asked, so that the same id cannot ask for something else.
        epsilon_cap, delta : float
            No patient may be above this afterwards. Exact releases are
            governed by the site's consent, not by the cap.

        Returns
        -------
        Paid
            The sum that may leave: another process may have been faster.

        Raises
        ------
        PrivacyBudgetError
            The cap would be exceeded, or the protocol was answered in another run;
            nothing was written.
        ProtocolError
            The question was asked before with other content.
        GateError
            The file cannot be written to now; nothing was.

        """
        with self._writing():
            before = self.paid(charge.question)
            if before is not None:
                if before.content_sha256 != content_sha256:
                    raise ProtocolError("a question was asked again with other content")
                return before
            self._catch_up()
            self._check_run(charge.protocol_sha256, charge.run)
            self._check_salt(charge.salt_sha256)
            if charge.noise_multiplier != NO_NOISE:
                self._check_cap(
                    charge.patients,
                    [charge.mechanism],
                    what="the release",
                    epsilon_cap=epsilon_cap,
                    delta=delta,
                )
            blob = np.ascontiguousarray(total, dtype="<i8").tobytes()
            sequence = self._append(
                {"content_sha256": content_sha256, "total_sha256": _sha256(blob), **asdict(charge)}
            )
            self._connection.execute(
                "INSERT INTO sums VALUES (?, ?, ?, ?)", (charge.question, content_sha256, blob, sequence)
            )
            return Paid(content_sha256, total, self.mark)

    def _append(self, facts: dict[str, object]) -> int:
        """Chain and sign one entry, inside a transaction."""
        if not isinstance(self._key, Ed25519PrivateKey):
            raise GateError(f"{self._path}: was opened to be read; only the site itself can write to it")
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
        return sequence

    def check_plan(
        self,
        *,
        protocol_sha256: str,
        run: str | None,
        patients: Iterable[str],
        salt_sha256: str,
        planned: Sequence[GaussianRelease],
        epsilon_cap: float,
        delta: float,
    ) -> None:
        """Refuse a protocol that could not be answered to its end.

        Parameters
        ----------
        protocol_sha256 : str
        run : str or None
            None where the run has no name yet: a protocol that was answered in one is not refused for it.
        patients : iterable of str
            Keyed hashes of the patients of one split.
        salt_sha256 : str
        planned : sequence of GaussianRelease
            All that the protocol asks about them, started or not. The cap does not govern exact ones.
        epsilon_cap, delta : float

        Raises
        ------
        PrivacyBudgetError
            The cap would be exceeded, or the protocol was answered in another run.
        LedgerError
            Patients of the ledger were hashed with another key.

        """
        with self._lock:
            self._catch_up()
            if run is not None:
                self._check_run(protocol_sha256, run)
            self._check_salt(salt_sha256)
            self._check_cap(
                patients,
                [release for release in planned if release.noise_multiplier != NO_NOISE],
                what="the protocol",
                epsilon_cap=epsilon_cap,
                delta=delta,
                without=protocol_sha256,
            )

    def spent(self, patients: Iterable[str] | None = None) -> dict[str, Spent]:
        """Return what each patient has spent.

        Parameters
        ----------
        patients : iterable of str, optional
            All patients of the ledger by default.

        """
        with self._lock:
            self._catch_up()
            return self._spending.of(patients)

    def export(self) -> Iterator[str]:
        """Yield every entry as a line of JSON, with its signature in hex."""
        with self._lock:
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

    def _check_run(self, protocol_sha256: str, run: str) -> None:
        # An approval is for one run: its price was printed for one.
        before = self._spending.run_of(protocol_sha256)
        if before is not None and before != run:
            raise PrivacyBudgetError(
                f"the protocol was already answered in run {before}; another run needs a protocol of its own"
            )

    def _check_salt(self, salt_sha256: str) -> None:
        # With another salt every patient would look new, and its budget unspent.
        if self._spending.salt_sha256 not in (None, salt_sha256):
            raise LedgerError(
                f"{self._path}: its patients were hashed with another salt than the site's: one of the two "
                "files was replaced"
            )

    def _check_cap(
        self,
        patients: Iterable[str],
        more: Sequence[GaussianRelease],
        *,
        what: str,
        epsilon_cap: float,
        delta: float,
        without: str | None = None,
    ) -> None:
        epsilon = self._spending.largest_epsilon(patients, more, delta=delta, without=without)
        if epsilon > epsilon_cap * (1 + _ROUNDING):
            raise PrivacyBudgetError(
                f"{what} would take a patient to epsilon {epsilon:.2f} at delta {delta:g}; "
                f"the site's cap is {epsilon_cap:g}"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            try:
                # IMMEDIATE: a second process waits here, before it has read anything.
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
                self._catch_up()
            except sqlite3.Error as cause:
                raise GateError(f"{self._path}: the ledger cannot be written to: {cause}") from cause
            finally:
                # Not after a commit; and a full disk may have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def patient_hashes(participants: Sequence[str], *, salt: bytes) -> tuple[str, ...]:
    """Return the ledger's identifier of each participant: a hash keyed with the site's secret."""
    return tuple(hashlib.blake2b(p.encode(), key=salt[:64], digest_size=16).hexdigest() for p in participants)


def salt_fingerprint(salt: bytes) -> str:
    """Return what the ledger notes of the key of its patients' hashes."""
    return _sha256(b"esn-federated patient salt\n" + salt)


def _entry(body: dict[str, Any], row: tuple[int, str, str, str]) -> Entry:
    sequence, _, previous, digest = row
    at = body.pop("at")
    del body["content_sha256"], body["total_sha256"]
    return Entry(sequence, at, Charge(**{**body, "patients": tuple(body["patients"])}), previous, digest)


def _fits(
    body: dict[str, Any],
    question: str | None,
    content_sha256: str | None,
    total: bytes | None,
    revealed: str | None,
    participants: str | None,
) -> bool:
    """Tell whether what stands beside an entry is what the entry says."""
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
