"""What a ledger knows of its people beside what they spent: cohorts of runs, scans, withdrawn consent."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from esn_client.gate.frozen_cohort import FrozenCohort


class Register:
    """The notes of one ledger, kept up with it entry by entry."""

    def __init__(self) -> None:
        self._cohorts: dict[tuple[str, str], FrozenCohort] = {}
        self._owners: dict[str, set[str]] = defaultdict(set)
        self._withdrawn: frozenset[str] = frozenset()
        self._closed: frozenset[str] = frozenset()

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add one entry; what is no note says nothing here."""
        if "cohort" in facts:
            cohort = FrozenCohort.from_facts(facts["cohort"])
            self._cohorts[facts["protocol_sha256"], facts["run"]] = cohort
            for scan, who in cohort.owners.items():
                self._owners[scan] |= who
        if "lost" in facts:
            self._closed |= {facts["protocol_sha256"]}
        if "withdrawn" in facts:
            self._withdrawn |= {facts["withdrawn"]}
            for scan in facts["scans"]:
                self._owners[scan].add(facts["withdrawn"])

    def cohort_of(self, protocol_sha256: str, run: str) -> FrozenCohort | None:
        """Return the cohort of a run; None where it had no roll call."""
        return self._cohorts.get((protocol_sha256, run))

    @property
    def closed(self) -> frozenset[str]:
        """The protocols of which sums were lost with an earlier ledger: they are not answered any more."""
        return self._closed

    @property
    def withdrawn(self) -> frozenset[str]:
        """Whose consent was withdrawn."""
        return self._withdrawn

    def owners(self, scans: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return under which identifiers each of some scans was seen."""
        return {scan: frozenset(self._owners[scan]) for scan in scans if scan in self._owners}
