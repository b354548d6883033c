"""The privacy ledger: every release that touched a patient, kept for ever.

A charge and the noised sum that it pays for are written in one transaction,
fsynced, before the sum may leave: whatever happens to the process, no sum
leaves without its charge, and a question that is asked again is answered with
the sum that was paid for. That the seed of a mask was revealed is an entry of
the same chain.

The ledger stores facts (mechanism, bound, patients as keyed hashes); epsilon
is computed from them. `ledger_store` has the file, its chain and its
signatures. The site's audit log and the centre each keep the last entry that
they saw, and `Ledger.mark_at` is compared with it. Beside charges and reveals
the chain holds notes: the cohort of each run as it was at roll call
(`frozen_cohort`), whose consent was withdrawn, and what an earlier ledger
that was lost is known to have held.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esn_client.gate.charge import Charge
from esn_client.gate.frozen_cohort import FrozenCohort
from esn_client.gate.ledger_store import Key, LedgerStore, Paid, StoredEntry
from esn_client.gate.register import Register
from esn_client.gate.spending import Spending, Spent
from esn_core.errors import GateError, LedgerError, PrivacyBudgetError, ProtocolError
from esn_core.messages.facts import EMPTY_LEDGER, LedgerMark
from esn_core.privacy.accounting import NO_NOISE, GaussianRelease

# The cap is compared with an epsilon that two root searches and a sum computed: a protocol that
# spends the cap to the last digit is not above it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Entry:
    """A charge, as it stands in the ledger."""

    sequence: int
    at: str
    charge: Charge
    previous: str
    hash: str


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
        The file is no ledger, its chain is broken, or another site or a newer release wrote it.

    """

    def __init__(self, path: Path, key: Key) -> None:
        self._path = path
        self._seen, self._spending, self._register = EMPTY_LEDGER, Spending(), Register()
        self._store = LedgerStore(path, key)
        try:
            self.verify()
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError) as cause:
            self.close()
            raise LedgerError(f"{path}: cannot be opened as a ledger: {cause}") from cause
        except LedgerError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def entries(self) -> list[Entry]:
        """Return all charges, oldest first."""
        return _charges_in(self._store.verified(after=EMPTY_LEDGER))

    @property
    def mark(self) -> LedgerMark:
        """The newest entry."""
        return self._store.mark

    def mark_at(self, entries: int) -> LedgerMark:
        """Return the mark that the ledger had when it held so many entries.

        Raises
        ------
        LedgerError
            It does not hold so many: it was cut short, or came back from a backup.

        """
        return self._store.mark_at(entries)

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
        with self._store.lock:
            found = self._store.verified(after=EMPTY_LEDGER)
            self._store.check_beside()
            self._seen, self._spending, self._register = EMPTY_LEDGER, Spending(), Register()
            self._count(found)
        return len(found)

    def _catch_up(self) -> None:
        """Walk what was written since the last look; what was walked before must still end as it did.

        So the whole chain is verified once, when the file is opened, and each entry once after that:
        what other processes write is looked at before it counts.
        """
        with self._store.lock:
            if self.mark_at(self._seen.entries) != self._seen:
                raise LedgerError(
                    f"{self._path}: entry {self._seen.entries} is not the one that was verified; the file "
                    "was replaced while it was open"
                )
            self._count(self._store.verified(after=self._seen))

    def _count(self, found: Sequence[StoredEntry]) -> None:
        """Add verified entries to what the patients have spent."""
        # All are read before one counts: an entry that cannot be read leaves everything as it was.
        for entry in _charges_in(found):
            self._spending.add(entry.charge)
        for stored in found:
            self._register.add(stored.facts)
            if "lost" in stored.facts:
                self._spending.add_lost(
                    stored.facts["protocol_sha256"],
                    [(GaussianRelease(noise), times) for _, noise, times in stored.facts["lost"]],
                    stored.facts["patients"],
                )
        if found:
            self._seen = found[-1].mark

    def paid(self, question: str) -> Paid | None:
        """Return the sum that was charged for `question`, if it was."""
        return self._store.paid(question)

    def revealed(self, question: str) -> tuple[str, ...] | None:
        """Return the sites for whose sum the seed of a mask was revealed, if it was."""
        found = self._store.revealed(question)
        return found[0] if found else None

    def reveal(
        self, question: str, participants: Sequence[str], *, one_set: Sequence[str] = ()
    ) -> LedgerMark:
        """Note, durably, for which sum the seed of this site's mask is revealed.

        Parameters
        ----------
        question : str
        participants : sequence of str
            The sites whose sum it is.
        one_set : sequence of str
            Questions that have to be summed over the same sites, this one among them.

        Raises
        ------
        ProtocolError
            It was revealed for another set of sites, or one of the others was; or the question was never
            answered.

        """
        with self._writing():
            first = self.set_of(one_set)
            if first is not None and first != tuple(participants):
                raise ProtocolError(
                    f"the first sum without noise of this protocol was of {', '.join(first)}, and all others "
                    f"are of these sites; a seed for {', '.join(participants)} was asked for"
                )
            found = self._store.revealed(question)
            if found is None:
                if self.paid(question) is None:
                    raise ProtocolError("a seed was asked for before its question was answered")
                return self._store.append_reveal(question, participants)
            before, mark = found
            if before != tuple(participants):
                raise ProtocolError(
                    f"the seed of this question was revealed for {', '.join(before)}, and is for nobody else"
                )
            return mark

    def set_of(self, questions: Sequence[str]) -> tuple[str, ...] | None:
        """Return the sites for whose sum the first seed among some questions was revealed, if one was."""
        found = (self._store.revealed(question) for question in questions)
        known = [reveal for reveal in found if reveal is not None]
        return min(known, key=lambda reveal: reveal[1].entries)[0] if known else None

    def charge(
        self,
        charge: Charge,
        total: NDArray[np.int64],
        *,
        content_sha256: str,
        epsilon_cap: float,
        delta: float,
        exact_again: bool = False,
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
        exact_again : bool
            Whether the site consents to exact sums of patients whom another protocol's exact sums hold.

        Returns
        -------
        Paid
            The sum that may leave: another process may have been faster.

        Raises
        ------
        PrivacyBudgetError
            The cap would be exceeded, the protocol was answered in another run, or another protocol's exact
            sums hold some of the patients; nothing was written.
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
            self._check_open(charge.protocol_sha256)
            self._check_run(charge.protocol_sha256, charge.run)
            self._check_salt(charge.salt_sha256)
            if self._register.withdrawn.intersection(charge.patients):
                raise GateError("consent was withdrawn while the sum was made; ask again")
            if charge.noise_multiplier != NO_NOISE:
                self._check_cap(
                    charge.patients,
                    [charge.mechanism],
                    what="the release",
                    epsilon_cap=epsilon_cap,
                    delta=delta,
                )
            elif not exact_again:
                self._check_first_exact(charge.patients, charge.protocol_sha256)
            return self._store.append_sum(
                asdict(charge), total, question=charge.question, content_sha256=content_sha256
            )

    def freeze(
        self, cohort: FrozenCohort, *, protocol_sha256: str, run: str, salt_sha256: str
    ) -> FrozenCohort:
        """Keep the cohort of a run, unless one is kept already; return the one that is.

        One entry for each run, whoever is in it: the number of entries leaves at roll call.

        Raises
        ------
        LedgerError
            Patients of the ledger were hashed with another key.
        GateError
            The file cannot be written to now.

        """
        with self._writing():
            self._catch_up()
            before = self._register.cohort_of(protocol_sha256, run)
            if before is None:
                self._check_salt(salt_sha256)
                self._store.append_note(
                    {
                        "cohort": cohort.facts,
                        "protocol_sha256": protocol_sha256,
                        "run": run,
                        "salt_sha256": salt_sha256,
                    }
                )
            return before or cohort

    def cohort_of(self, protocol_sha256: str, run: str) -> FrozenCohort | None:
        """Return the cohort of a run, as it was at roll call; None before it."""
        with self._store.lock:
            self._catch_up()
            return self._register.cohort_of(protocol_sha256, run)

    def charged_in(self, protocol_sha256: str) -> dict[str, frozenset[str]]:
        """Return whom a protocol charged, by release."""
        found: dict[str, set[str]] = {}
        for entry in self.entries():
            if entry.charge.protocol_sha256 == protocol_sha256:
                found.setdefault(entry.charge.release, set()).update(entry.charge.patients)
        return {release: frozenset(patients) for release, patients in found.items()}

    @property
    def closed(self) -> frozenset[str]:
        """The protocols of which sums were lost with an earlier ledger."""
        with self._store.lock:
            self._catch_up()
            return self._register.closed

    @property
    def withdrawn(self) -> frozenset[str]:
        """The patients whose consent was withdrawn."""
        with self._store.lock:
            self._catch_up()
            return self._register.withdrawn

    def withdraw(self, patient: str, *, scans: Sequence[str], salt_sha256: str) -> LedgerMark:
        """Note, for good, that a patient's consent is withdrawn; return the ledger's end.

        Parameters
        ----------
        patient : str
            The keyed hash.
        scans : sequence of str
            Keyed digests of the patient's scans, as far as they are known.
        salt_sha256 : str

        Raises
        ------
        LedgerError
            Patients of the ledger were hashed with another key.
        GateError
            The file cannot be written to now.

        """
        with self._writing():
            self._catch_up()
            self._check_salt(salt_sha256)
            note = {"withdrawn": patient, "scans": list(scans), "salt_sha256": salt_sha256}
            return self._store.append_note(note)

    def count_lost(
        self,
        releases: Sequence[tuple[str, GaussianRelease, int]],
        *,
        protocol_sha256: str,
        patients: Sequence[str] | None,
        salt_sha256: str,
    ) -> LedgerMark:
        """Charge releases whose entries were lost with an earlier ledger, and close their protocol.

        Parameters
        ----------
        releases : sequence of (str, GaussianRelease, int)
            Name and mechanism of each, and how often it left.
        protocol_sha256 : str
        patients : sequence of str or None
            Who can have been in them; None for everybody, known or not.
        salt_sha256 : str

        Raises
        ------
        LedgerError
            Patients of the ledger were hashed with another key.
        GateError
            The file cannot be written to now.

        """
        with self._writing():
            self._catch_up()
            self._check_salt(salt_sha256)
            return self._store.append_note(
                {
                    "lost": [[name, release.noise_multiplier, times] for name, release, times in releases],
                    "patients": None if patients is None else sorted(patients),
                    "protocol_sha256": protocol_sha256,
                    "salt_sha256": salt_sha256,
                }
            )

    def require_open(self, protocol_sha256: str) -> None:
        """Refuse a protocol of which sums were lost with an earlier ledger.

        Raises
        ------
        PrivacyBudgetError
            Some were.

        """
        with self._store.lock:
            self._catch_up()
            self._check_open(protocol_sha256)

    def _check_open(self, protocol_sha256: str) -> None:
        # A sum that is lost would be made again, with other noise under the same masks.
        if protocol_sha256 in self._register.closed:
            raise PrivacyBudgetError(
                "sums of this protocol were lost with an earlier ledger, and it is answered no more; another "
                "run needs a protocol of its own"
            )

    def has_exact(self, protocol_sha256: str) -> bool:
        """Tell whether sums without noise were charged to a protocol."""
        return any(
            entry.charge.noise_multiplier == NO_NOISE
            for entry in self.entries()
            if entry.charge.protocol_sha256 == protocol_sha256
        )

    def charged_for(self, scans: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return which patients were charged with each of some scans, or withdrew them."""
        with self._store.lock:
            self._catch_up()
            owners = self._register.owners(scans)
            spent = self._spending.of({who for found in owners.values() for who in found})
            known = {who for who in spent if spent[who].releases} | self._register.withdrawn
            return {scan: found & known for scan, found in owners.items()}

    def begun(self, protocol_sha256: str) -> bool:
        """Tell whether anything was ever charged to a protocol."""
        return self.run_of(protocol_sha256) is not None

    def sums_of(self, protocol_sha256: str) -> int:
        """Return how many sums were charged to a protocol."""
        with self._store.lock:
            self._catch_up()
            return self._spending.sums_of(protocol_sha256)

    def run_of(self, protocol_sha256: str) -> str | None:
        """Return the run in which a protocol was answered; None where nothing was ever charged to it."""
        with self._store.lock:
            self._catch_up()
            return self._spending.run_of(protocol_sha256)

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
        exact_again: bool = False,
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
        exact_again : bool
            As of `charge`.

        Raises
        ------
        PrivacyBudgetError
            The cap would be exceeded, the protocol was answered in another run, or another protocol's exact
            sums hold some of the patients.
        LedgerError
            Patients of the ledger were hashed with another key.

        """
        with self._store.lock:
            self._catch_up()
            self._check_open(protocol_sha256)
            if run is not None:
                self._check_run(protocol_sha256, run)
            self._check_salt(salt_sha256)
            patients = tuple(patients)
            exact = any(release.noise_multiplier == NO_NOISE for release in planned)
            if exact and not exact_again:
                self._check_first_exact(patients, protocol_sha256)
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
        with self._store.lock:
            self._catch_up()
            return self._spending.of(patients)

    def export(self) -> Iterator[str]:
        """Yield every entry as a line of JSON, with its signature in hex."""
        return self._store.export()

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

    def _check_first_exact(self, patients: Iterable[str], protocol_sha256: str) -> None:
        # Two exact sums over cohorts that differ by one child are that child, by a subtraction.
        before = self._spending.exact_elsewhere(patients, protocol_sha256)
        if before:
            raise PrivacyBudgetError(
                f"exact sums of protocol {', '.join(p[:16] for p in before)} hold some of these children "
                "already, and two of them subtracted may leave one child; to consent all the same, list "
                f"{protocol_sha256} in limits.exact_again"
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
        with self._store.lock:
            try:
                with self._store.writing():
                    yield
                self._catch_up()
            except sqlite3.Error as cause:
                raise GateError(f"{self._path}: the ledger cannot be written to: {cause}") from cause


def _charges_in(found: Iterable[StoredEntry]) -> list[Entry]:
    """Read the charges among verified entries; the others are reveals and notes."""
    return [_entry(stored) for stored in found if "total_sha256" in stored.facts]


def _entry(stored: StoredEntry) -> Entry:
    beside = ("at", "content_sha256", "total_sha256")
    said = {name: fact for name, fact in stored.facts.items() if name not in beside}
    # Format 1 names how each patient was drawn: all took part, always.
    rate = said.pop("sampling_rate", 1.0)
    if rate != 1.0:
        raise LedgerError(
            f"entry {stored.sequence} of the ledger was sampled at rate {rate:g}; this release composes only "
            "what all patients took part in"
        )
    charge = Charge(**{**said, "patients": tuple(said["patients"])})
    return Entry(stored.sequence, stored.facts["at"], charge, stored.previous, stored.hash)
