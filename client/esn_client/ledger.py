"""The privacy ledger: every release that touched a patient, kept for ever.

One SQLite file in WAL mode. Entries are only ever appended; each holds the
hash of the one before. A charge and the noised sum that it pays for are
written in one transaction, fsynced, before the sum may leave: whatever
happens to the process, no sum leaves without its charge, and a question that
is asked again is answered with the sum that was paid for.

The ledger stores facts (noise multiplier, bound, patients as keyed hashes);
epsilon is computed from them.

The chain shows what was changed, removed or moved inside the file. A tail that
was cut off leaves a shorter, whole chain: who fears that keeps the head that
`esn-client ledger verify` prints, or the audit log, elsewhere.
"""

import datetime
import hashlib
import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import GateError, PrivacyBudgetError, ProtocolError
from esn_core.privacy import NO_NOISE, GaussianRelease, compose, epsilon_of

# The cap is compared with an epsilon that two root searches and a sum computed: a protocol that
# spends the cap to the last digit is not above it.
_ROUNDING = 1e-9

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
        # One connection: without the lock a second thread would read what the first has not committed.
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as cause:
            raise PrivacyBudgetError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit returns only when the log is on disk.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            self.verify()
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError) as cause:
            self._connection.close()
            raise PrivacyBudgetError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        except PrivacyBudgetError:
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
        """Return all entries, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT sequence, body, previous, hash FROM entries ORDER BY sequence"
            ).fetchall()
        return [_entry(*row) for row in rows]

    @property
    def head(self) -> str:
        """Hash of the newest entry."""
        with self._lock:
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
            An entry or its sum was changed, removed, added or moved; the message names the first.

        """
        with self._lock:
            # One statement sees one state of the file, whatever another process writes meanwhile.
            rows = self._connection.execute(
                "SELECT e.sequence, e.body, e.previous, e.hash, s.question, s.content_sha256, s.total "
                "FROM entries e LEFT JOIN sums s ON s.sequence = e.sequence ORDER BY e.sequence"
            ).fetchall()
            stray = self._connection.execute(
                "SELECT question FROM sums WHERE sequence NOT IN (SELECT sequence FROM entries)"
            ).fetchone()
        if stray:
            raise PrivacyBudgetError(f"{self._path}: the sum of {stray[0]} was never charged")
        previous = GENESIS
        for count, (sequence, body, said, digest, question, content, total) in enumerate(rows, start=1):
            if sequence != count or said != previous or digest != _hash(sequence, body, said):
                raise PrivacyBudgetError(f"{self._path}: the ledger's chain is broken at entry {count}")
            previous = digest
            paid = json.loads(body)
            if (
                total is None
                or paid["question"] != question
                or paid["content_sha256"] != content
                or paid["total_sha256"] != _sha256(total)
            ):
                raise PrivacyBudgetError(
                    f"{self._path}: the sum of {paid['question']} (entry {count}) is not the one charged"
                )
        return len(rows)

    def paid(self, question: str) -> Paid | None:
        """Return the sum that was charged for `question`, if it was."""
        with self._lock:
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
        GateError
            The file cannot be written to now; nothing was.

        """
        with self._writing():
            before = self.paid(charge.question)
            if before is not None:
                if before.content_sha256 != content_sha256:
                    raise ProtocolError("a question was asked again with other content")
                return before
            self._check_run(charge.protocol_sha256, charge.run)
            if charge.noise_multiplier != NO_NOISE:
                before_mu = self._largest_mu(charge.patients)
                worst = math.hypot(before_mu, 1 / charge.noise_multiplier)
                self._check_cap(worst, what=f"release {charge.release}", epsilon_cap=epsilon_cap, delta=delta)
            blob = np.ascontiguousarray(total, dtype="<i8").tobytes()
            sequence = 1 + int(self._connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0])
            body = json.dumps(
                {
                    "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "content_sha256": content_sha256,
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

    def check_plan(
        self,
        *,
        protocol_sha256: str,
        run: str,
        patients: Iterable[str],
        mu: float,
        epsilon_cap: float,
        delta: float,
    ) -> None:
        """Refuse a protocol that could not be answered to its end.

        Parameters
        ----------
        protocol_sha256, run : str
        patients : iterable of str
            Keyed hashes of the patients of one split.
        mu : float
            Gaussian-DP parameter of all that the protocol asks about them, started or not;
            infinite when it asks for exact sums, which the cap does not govern.
        epsilon_cap, delta : float

        Raises
        ------
        PrivacyBudgetError
            The cap would be exceeded, or the protocol was answered in another run.

        """
        self._check_run(protocol_sha256, run)
        if math.isfinite(mu):
            worst = math.hypot(self._largest_mu(patients, without=protocol_sha256), mu)
            self._check_cap(worst, what="the protocol", epsilon_cap=epsilon_cap, delta=delta)

    def spent(self, patients: Iterable[str] | None = None, *, without: str | None = None) -> dict[str, Spent]:
        """Return what each patient has spent.

        Parameters
        ----------
        patients : iterable of str, optional
            All patients of the ledger by default.
        without : str, optional
            Hash of a protocol whose charges are left out.

        """
        noise: dict[str, list[float]] = {} if patients is None else {p: [] for p in patients}
        for entry in self.entries():
            if entry.charge.protocol_sha256 == without:
                continue
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

    def _largest_mu(self, patients: Iterable[str], *, without: str | None = None) -> float:
        return max((s.noisy_mu for s in self.spent(patients, without=without).values()), default=0.0)

    def _check_run(self, protocol_sha256: str, run: str) -> None:
        # An approval is for one run: its price was printed for one.
        for entry in self.entries():
            if entry.charge.protocol_sha256 == protocol_sha256 and entry.charge.run != run:
                raise PrivacyBudgetError(
                    f"the protocol was already answered in run {entry.charge.run}; "
                    "another run needs a protocol of its own"
                )

    def _check_cap(self, mu: float, *, what: str, epsilon_cap: float, delta: float) -> None:
        epsilon = epsilon_of(mu, delta)
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
            except sqlite3.Error as cause:
                raise GateError(f"{self._path}: the ledger cannot be written to: {cause}") from cause
            finally:
                # Not after a commit; and a full disk may have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def patient_hashes(participants: Sequence[str], *, salt: bytes) -> tuple[str, ...]:
    """Return the ledger's identifier of each participant: a hash keyed with the site's secret."""
    return tuple(hashlib.blake2b(p.encode(), key=salt[:64], digest_size=16).hexdigest() for p in participants)


def _entry(sequence: int, body: str, previous: str, digest: str) -> Entry:
    said = json.loads(body)
    at = said.pop("at")
    del said["content_sha256"], said["total_sha256"]
    return Entry(sequence, at, Charge(**{**said, "patients": tuple(said["patients"])}), previous, digest)


def _hash(sequence: int, body: str, previous: str) -> str:
    return _sha256(f"{sequence}\n{previous}\n{body}".encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
