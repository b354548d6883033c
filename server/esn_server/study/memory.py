"""What the centre remembers of its sites beyond one run's sums, as the rounds of a study see it."""

from typing import Protocol as Structural

from esn_core.messages.facts import LedgerMark


class Memory(Structural):
    """The ends of the sites' ledgers, and for whom seeds were asked; `run.memory` keeps them on disk."""

    def ledger_seen(self, site: str) -> LedgerMark:
        """Return the newest entry of a site's ledger that the centre saw."""

    def see_ledger(self, site: str, mark: LedgerMark) -> None:
        """Keep an entry of a site's ledger; `ProtocolError` when it contradicts what was seen."""

    def final_set(self, question: str) -> tuple[str, ...] | None:
        """Return the sites whose seeds were asked for, if any were."""

    def finalise(self, question: str, sites: tuple[str, ...]) -> None:
        """Keep, durably, that seeds are asked for the sum of these sites."""
