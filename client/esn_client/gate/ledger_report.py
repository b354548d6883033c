"""What a ledger shows to people and machines: every release, and what the patients have spent."""

import math
from collections.abc import Sequence
from typing import Any, cast

from rich.table import Table

from esn_client.gate.ledger import Entry, Ledger
from esn_client.gate.limits import Limits
from esn_core.protocol.phases import PHASES, PhaseName
from esn_core.statistics.matching import COHORT

UNBOUNDED = "unbounded (an exact release)"


class LedgerReport:
    """The entries of a site's ledger, and the largest epsilon of one patient.

    Parameters
    ----------
    ledger : Ledger
    site : str
    limits : Limits
        At whose delta the epsilon is read.

    Attributes
    ----------
    largest_epsilon : float
        Of one patient; infinite after an exact release. Controls are no patients.
    controls : int
        Healthy controls in exact sums.

    """

    def __init__(self, ledger: Ledger, *, site: str, limits: Limits) -> None:
        self._site = site
        self._limits = limits
        self._entries, spent = ledger.entries(), ledger.spent()
        controls = _controls(self._entries)
        self.controls = len(controls)
        self._withdrawn, self._closed = len(ledger.withdrawn), len(ledger.closed)
        children = {spending for person, spending in spent.items() if person not in controls}
        self._patients = len(spent) - self.controls
        # Most patients have the same history.
        self.largest_epsilon = max((s.epsilon(limits.delta) for s in children), default=0.0)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON can hold it; an exact release has no epsilon, and infinity is no JSON."""
        return {
            "site": self._site,
            "delta": self._limits.delta,
            "epsilon_cap": self._limits.epsilon_cap,
            "patients": self._patients,
            "controls": self.controls,
            "largest_epsilon": self.largest_epsilon if math.isfinite(self.largest_epsilon) else None,
            "withdrawn": self._withdrawn,
            "closed_protocols": self._closed,
            "entries": [
                {
                    "sequence": e.sequence,
                    "at": e.at,
                    "question": e.charge.question,
                    "release": e.charge.release,
                    "noise_multiplier": e.charge.noise_multiplier,
                    "patients": len(e.charge.patients),
                    "hash": e.hash,
                }
                for e in self._entries
            ],
        }

    @property
    def table(self) -> Table:
        """The entries, one a row."""
        table = Table("#", "at", "question", "release", "noise", "patients", title=f"Ledger of {self._site}")
        table.columns[2].overflow = "fold"
        for e in self._entries:
            table.add_row(
                str(e.sequence),
                e.at.partition("+")[0],
                e.charge.question,
                e.charge.release,
                f"{e.charge.noise_multiplier:.3f}" if e.charge.noise_multiplier else "exact",
                str(len(e.charge.patients)),
            )
        return table

    @property
    def in_words(self) -> str:
        """The patients, and the largest epsilon of one of them beside the site's cap."""
        said = f"{self.largest_epsilon:.2f}" if math.isfinite(self.largest_epsilon) else UNBOUNDED
        beside = beside_children(self.controls)
        if self._withdrawn:
            beside += f"; the consent of {self._withdrawn} was withdrawn"
        if self._closed:
            beside += (
                f"; sums of {self._closed} protocols were lost with an earlier ledger, and are counted again"
            )
        return (
            f"{self._patients} patients; largest epsilon of one patient: {said} at delta "
            f"{self._limits.delta:g}; the site's cap is {self._limits.epsilon_cap:g}{beside}"
        )


def beside_children(controls: int) -> str:
    """Tell of the controls in exact sums; of none, nothing."""
    return f"; {controls} healthy controls in exact sums, who have no epsilon" if controls else ""


def _controls(entries: Sequence[Entry]) -> frozenset[str]:
    """Return those whom releases about controls counted, and none about children but a summary of both."""
    about = {e.charge.release: PHASES.get(cast("PhaseName", e.charge.release)) for e in entries}
    named: dict[bool, set[str]] = {True: set(), False: set()}
    for entry in entries:
        phase = about[entry.charge.release]
        if entry.charge.release != COHORT.name:
            named[phase is not None and phase.children == "controls"].update(entry.charge.patients)
    return frozenset(named[True] - named[False])
