"""The privacy ledger: every release that touched a patient, kept for ever.

One SQLite file in WAL mode. Entries are only ever appended; each holds the
hash of the one before. A charge and the noised sum that it pays for are
written in one transaction, fsynced, before the sum may leave: whatever
happens to the process, no sum leaves without its charge, and a question that
is asked again is answered with the sum that was paid for.

The ledger stores facts (noise multiplier, bound, patients as keyed hashes);
epsilon is computed from them.
"""

import datetime
import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import GateError, PrivacyBudgetError, ProtocolError
from esn_core.privacy import NO_NOISE, GaussianRelease, compose, epsilon_of

GENESIS = "0" * 64
"""What the first entry has for the hash of the one before."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS sums (
    question TEXT PRIMARY KEY,
    content_sha256 TEXT NOT NULL,
    total BLOB NOT NULL,
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
"""


@dataclass(frozen=True)
class Charge:
    """One release, as it is charged.

    Attributes
    ----------
    question : str
        Id of the question that is answered.
    protocol_sha256 : str
    run : str
        The run of the protocol; a protocol is answered in one run only.
    release : str
        Name of the kind of release.
    noise_multiplier : float
        Over `l2_bound`; 0 for an exact release.
    l2_bound : float
    dimension : int
    patients : tuple of str
        Keyed hashes of the patients in the sum, sorted.
    software : str

    """

    question: str
    protocol_sha256: str
    run: str
    release: str
    noise_multiplier: float
    l2_bound: float
    dimension: int
    patients: tuple[str, ...]
    software: str


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    sequence: int
    at: str
    charge: Charge
    previous: str
    hash: str


@dataclass(frozen=True)
class Paid:
    """A sum that was charged: it may leave, as often as the same question is asked."""

    content_sha256: str
    total: NDArray[np.int64]


@dataclass(frozen=True)
class Spent:
    """What one patient has spent.

    Attributes
    ----------
    releases : int
    exact_releases : int
        Of these, without noise.
    noisy_mu : float
        Gaussian-DP parameter of the noisy ones.

    """

    releases: int
    exact_releases: int
    noisy_mu: float

    @property
    def mu(self) -> float:
        """Gaussian-DP parameter of everything; infinite when there was an exact release."""
        return math.inf if self.exact_releases else self.noisy_mu


class Ledger:
    """A site's ledger file, open.

    Parameters
    ----------
    path : Path
        Created when it does not exist.

    Raises
    ------
    PrivacyBudgetError
        The file is no ledger, or its chain is broken.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit returns only when the log is on disk.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as cause:
            raise PrivacyBudgetError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        self.verify()

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
        """Return all entries, oldest first."""
        rows = self._connection.execute(
            "SELECT sequence, body, previous, hash FROM entries ORDER BY sequence"
        )
        return [_entry(*row) for row in rows]

    @property
    def head(self) -> str:
        """Hash of the newest entry."""
        row = self._connection.execute(
            "SELECT hash FROM entries ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        return str(row[0]) if row else GENESIS

    def verify(self) -> int:
        """Walk the chain from its beginning.

        Returns
        -------
        int
            Number of entries.

        Raises
        ------
        PrivacyBudgetError
            An entry was changed, removed, added or moved; the message names the first.

        """
        previous, count = GENESIS, 0
        rows = self._connection.execute(
            "SELECT sequence, body, previous, hash FROM entries ORDER BY sequence"
        )
        for count, (sequence, body, said, digest) in enumerate(rows, start=1):  # noqa: B007
            if sequence != count or said != previous or digest != _hash(sequence, body, said):
                raise PrivacyBudgetError(f"{self._path}: the ledger's chain is broken at entry {count}")
            previous = digest
        for question, sequence, total in self._connection.execute(
            "SELECT s.question, s.sequence, s.total FROM sums s ORDER BY s.sequence"
        ):
            row = self._connection.execute(
                "SELECT body FROM entries WHERE sequence = ?", (sequence,)
            ).fetchone()
            paid = json.loads(row[0]) if row else {}
            if paid.get("question") != question or paid.get("total_sha256") != _sha256(total):
                raise PrivacyBudgetError(f"{self._path}: the sum of {question} is not the one charged")
        return count

    def paid(self, question: str) -> Paid | None:
        """Return the sum that was charged for `question`, if it was."""
        row = self._connection.execute(
            "SELECT content_sha256, total FROM sums WHERE question = ?", (question,)
        ).fetchone()
        return Paid(row[0], np.frombuffer(row[1], dtype="<i8")) if row else None

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

        """
        with self._writing():
            before = self.paid(charge.question)
            if before is not None:
                if before.content_sha256 != content_sha256:
                    raise ProtocolError("a question was asked again with other content")
                return before
            self._check_run(charge)
            self._check_cap(charge, epsilon_cap=epsilon_cap, delta=delta)
            blob = np.ascontiguousarray(total, dtype="<i8").tobytes()
            sequence = 1 + int(
                self._connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
            )
            body = json.dumps(
                {
                    "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "total_sha256": _sha256(blob),
                    **asdict(charge),
                },
                sort_keys=True,
            )
            previous = self.head
            self._connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?)",
                (sequence, body, previous, _hash(sequence, body, previous)),
            )
            self._connection.execute(
                "INSERT INTO sums VALUES (?, ?, ?, ?)", (charge.question, content_sha256, blob, sequence)
            )
        return Paid(content_sha256, total)

    def spent(self, patients: Iterable[str] | None = None) -> dict[str, Spent]:
        """Return what each patient has spent; all patients of the ledger by default."""
        noise: dict[str, list[float]] = {} if patients is None else {p: [] for p in patients}
        for entry in self.entries():
            for patient in entry.charge.patients:
                if patients is None or patient in noise:
                    noise.setdefault(patient, []).append(entry.charge.noise_multiplier)
        return {
            patient: Spent(
                releases=len(multipliers),
                exact_releases=multipliers.count(NO_NOISE),
                noisy_mu=compose(GaussianRelease(m) for m in multipliers if m != NO_NOISE),
            )
            for patient, multipliers in noise.items()
        }

    def _check_run(self, charge: Charge) -> None:
        # An approval is for one run: its price was printed for one.
        for entry in self.entries():
            if entry.charge.protocol_sha256 == charge.protocol_sha256 and entry.charge.run != charge.run:
                raise PrivacyBudgetError(
                    f"the protocol was already answered in run {entry.charge.run}; "
                    "another run needs a protocol of its own"
                )

    def _check_cap(self, charge: Charge, *, epsilon_cap: float, delta: float) -> None:
        if charge.noise_multiplier == NO_NOISE:
            return
        before = max((s.noisy_mu for s in self.spent(charge.patients).values()), default=0.0)
        worst = math.sqrt(before**2 + charge.noise_multiplier**-2)
        if epsilon_of(worst, delta) > epsilon_cap:
            raise PrivacyBudgetError(
                f"release {charge.release} would take a patient to epsilon "
                f"{epsilon_of(worst, delta):.2f} at delta {delta:g}; the site's cap is {epsilon_cap:g}"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        # IMMEDIATE: a second process waits here, before it has read anything.
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as cause:
            raise GateError(f"{self._path}: the ledger is in use by another process") from cause
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def patient_hashes(participants: Sequence[str], *, salt: bytes) -> tuple[str, ...]:
    """Return the ledger's identifier of each participant: a hash keyed with the site's secret."""
    return tuple(
        hashlib.blake2b(p.encode(), key=salt[:64], digest_size=16).hexdigest() for p in participants
    )


def _entry(sequence: int, body: str, previous: str, digest: str) -> Entry:
    said = json.loads(body)
    at = said.pop("at")
    said.pop("total_sha256")
    return Entry(sequence, at, Charge(**{**said, "patients": tuple(said["patients"])}), previous, digest)


def _hash(sequence: int, body: str, previous: str) -> str:
    return _sha256(f"{sequence}\n{previous}\n{body}".encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
