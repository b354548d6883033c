"""What each patient has spent, kept up with the ledger entry by entry.

Most patients have the same history: each history is held once, however many
patients share it, as counts of equal releases. So a charge costs the same in the
first year of a ledger and in the tenth.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esn_client.gate.charge import Charge
from esn_core.privacy.accounting import NO_NOISE, GaussianRelease, compose, epsilon_of

_History = tuple[tuple[str, GaussianRelease, int], ...]
"""Sorted: protocol, release, how often. The empty one is that of a patient who has spent nothing."""


@dataclass(frozen=True)
class Spent:
    """What one patient has spent.

    Attributes
    ----------
    releases : int
    exact_releases : int
        Of these, without noise.
    noisy : tuple of GaussianRelease
        The others.

    """

    releases: int
    exact_releases: int
    noisy: tuple[GaussianRelease, ...]

    def epsilon(self, delta: float) -> float:
        """Epsilon of everything; infinite when there was an exact release."""
        return math.inf if self.exact_releases else epsilon_of(compose(self.noisy), delta)


class Spending:
    """The histories of all patients of one ledger."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}
        self._everybody: _History = ()  # also of those who are not known yet
        self._runs: dict[str, str] = {}
        self._sums: Counter[str] = Counter()
        self._salt: str | None = None

    def add(self, charge: Charge) -> None:
        """Add one charge; charges are added in the order of the ledger."""
        self._runs.setdefault(charge.protocol_sha256, charge.run)
        self._sums[charge.protocol_sha256] += 1
        self._salt = charge.salt_sha256
        longer: dict[_History, _History] = {}
        for patient in charge.patients:
            before = self._histories.get(patient, self._everybody)
            if before not in longer:
                longer[before] = _with(before, charge.protocol_sha256, charge.mechanism)
            self._histories[patient] = longer[before]

    def add_lost(
        self,
        protocol_sha256: str,
        releases: Iterable[tuple[GaussianRelease, int]],
        patients: Iterable[str] | None,
    ) -> None:
        """Add releases whose charges were lost, and so whom they were about.

        Parameters
        ----------
        protocol_sha256 : str
        releases : iterable of (GaussianRelease, int)
            Each with how often it left.
        patients : iterable of str or None
            Who can have been in them; None for everybody, known or not.

        """
        whose = [*self._histories] if patients is None else list(patients)
        for release, times in releases:
            for patient in whose:
                before = self._histories.get(patient, self._everybody)
                self._histories[patient] = _with(before, protocol_sha256, release, times)
            if patients is None:
                self._everybody = _with(self._everybody, protocol_sha256, release, times)

    @property
    def salt_sha256(self) -> str | None:
        """Fingerprint of the key by which the newest charge's patients are hashed; None without charges."""
        return self._salt

    def sums_of(self, protocol_sha256: str) -> int:
        """Return how many sums were charged to a protocol."""
        return self._sums[protocol_sha256]

    def run_of(self, protocol_sha256: str) -> str | None:
        """Return the run in which a protocol was answered, if it was in any."""
        return self._runs.get(protocol_sha256)

    def exact_elsewhere(self, patients: Iterable[str], protocol_sha256: str) -> tuple[str, ...]:
        """Return the other protocols that have exact releases of one of the patients, in order."""
        histories = {self._histories.get(patient, self._everybody) for patient in patients}
        found = {p for history in histories for p, r, _ in history if r.noise_multiplier == NO_NOISE}
        return tuple(sorted(found - {protocol_sha256}))

    def of(self, patients: Iterable[str] | None = None, *, without: str | None = None) -> dict[str, Spent]:
        """Return what each patient has spent; all patients by default.

        Parameters
        ----------
        patients : iterable of str, optional
        without : str, optional
            A protocol whose releases are left out.

        """
        names = self._histories if patients is None else patients
        known: dict[_History, Spent] = {}
        found = {}
        for patient in names:
            history = self._histories.get(patient, self._everybody)
            if history not in known:
                known[history] = _spent(history, without)
            found[patient] = known[history]
        return found

    def largest_epsilon(
        self,
        patients: Iterable[str],
        more: Sequence[GaussianRelease],
        *,
        delta: float,
        without: str | None = None,
    ) -> float:
        """Return the largest noisy epsilon that one of the patients would have after `more`."""
        # Each history is composed once.
        histories = {self._histories.get(patient, self._everybody) for patient in patients}
        noisy = {_spent(history, without).noisy for history in histories}
        return max((epsilon_of(compose([*releases, *more]), delta) for releases in noisy), default=0.0)


def _with(history: _History, protocol: str, release: GaussianRelease, more: int = 1) -> _History:
    """Return a history with one more release, or several equal ones."""
    counts = {(p, r): times for p, r, times in history}
    counts[protocol, release] = counts.get((protocol, release), 0) + more
    return tuple(
        sorted(
            ((p, r, times) for (p, r), times in counts.items()),
            key=lambda item: (item[0], item[1].noise_multiplier),
        )
    )


def _spent(history: _History, without: str | None) -> Spent:
    releases = [r for protocol, r, times in history if protocol != without for _ in range(times)]
    noisy = [release for release in releases if release.noise_multiplier != NO_NOISE]
    return Spent(
        releases=len(releases),
        exact_releases=len(releases) - len(noisy),
        noisy=tuple(sorted(noisy, key=lambda r: r.noise_multiplier)),
    )
