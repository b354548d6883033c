"""Consent withdrawn: a participant is out of all that is still to come; what was released stays released."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from esn_client.approval.approvals import Approvals
from esn_client.cohort.members import scans_behind
from esn_client.cohort.participants import read_participants
from esn_client.cohort.withdrawn import name_of
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.frozen_cohort import keyed_scans
from esn_client.gate.ledger import Entry, Ledger
from esn_client.gate.patients import salt_fingerprint
from esn_client.imaging.bids.simulated_mark import is_simulated
from esn_client.imaging.quality.site_table import read_exclusions
from esn_client.site.keys import load_identity_key
from esn_client.site.settings import SiteSettings
from esn_client.site.state import open_ledger, read_salt
from esn_core.errors import DataError, EsnError, ProtocolError
from esn_core.protocol.protocol import Protocol


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal stops, and what it comes too late for.

    Attributes
    ----------
    label : str
    released : tuple of Entry
        The releases that the participant was in.
    under_way : tuple of Protocol
        Approved protocols of which something was released already.
    done : bool
        Whether the consent is withdrawn now, or was before.

    """

    label: str
    released: tuple[Entry, ...]
    under_way: tuple[Protocol, ...]
    done: bool

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON can hold it; it names the participant, and stays here."""
        return {
            "participant": self.label,
            "withdrawn": self.done,
            "released": [
                {
                    "sequence": entry.sequence,
                    "at": entry.at,
                    "protocol": entry.charge.protocol_sha256,
                    "release": entry.charge.release,
                    "noise_multiplier": entry.charge.noise_multiplier,
                }
                for entry in self.released
            ],
            "under_way": [
                {"study": protocol.study, "after_withdrawal": protocol.cohort.after_withdrawal}
                for protocol in self.under_way
            ],
        }

    @property
    def table(self) -> Table:
        """What was released, one release a row."""
        table = Table("#", "at", "protocol", "release", "noise", title=f"Released with {self.label} in it")
        for entry in self.released:
            charge = entry.charge
            noise = f"{charge.noise_multiplier:.3f}" if charge.noise_multiplier else "exact"
            at = entry.at.partition("+")[0]
            table.add_row(str(entry.sequence), at, charge.protocol_sha256[:16], charge.release, noise)
        return table

    @property
    def in_words(self) -> str:
        """What happens from now on, and what cannot be taken back."""
        count = len(self.released)
        said = [
            f"{count} releases hold {self.label}, in sums with others. What has left cannot be taken back."
        ]
        for protocol in self.under_way:
            then = (
                f"ends at this site (cohort.after_withdrawal = '{protocol.cohort.after_withdrawal}')"
                if protocol.cohort.after_withdrawal == "stop"
                else "goes on without, unless sums without noise have left already"
            )
            said.append(f"The study {protocol.study}, which is under way, {then}.")
        said.append(
            f"{self.label} is out of every sum still to be made, for good, and so are these scans under "
            "another label."
            if self.done
            else f"Nothing is changed yet. With --yes, {self.label} is out of every sum made after that, for "
            "good."
        )
        return "\n".join(said)


def withdraw_consent(settings: SiteSettings, label: str, *, approvals: Approvals, yes: bool) -> Withdrawal:
    """Take a participant out of all releases that are still to come; also while the site is joined.

    Parameters
    ----------
    settings : SiteSettings
    label : str
        As in participants.tsv, which need not hold the line any more.
    approvals : Approvals
    yes : bool
        Without it nothing is written.

    Raises
    ------
    DataError
        Neither the table nor the ledger knows the label.
    LedgerError
        The ledger is not the one that this site wrote.

    """
    salt = read_salt(settings)
    name = name_of(label, salt, simulated=is_simulated(settings.dataset))
    with open_ledger(settings) as ledger:
        released = tuple(entry for entry in ledger.entries() if name in entry.charge.patients)
        before = name in ledger.withdrawn
        current = [p for p in _approved(approvals) if ledger.begun(p.sha256)]
    if not released and not before and not _is_listed(settings, label):
        raise DataError(f"{label}: neither participants.tsv nor the ledger knows such a label")
    if yes and not before:
        found = {scan for p in _approved(approvals) for scan in _scans(settings, label, p)}
        with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
            mark = ledger.withdraw(
                name,
                scans=keyed_scans(found, salt=salt, simulated=is_simulated(settings.dataset)),
                salt_sha256=salt_fingerprint(salt),
            )
        AuditLog(settings.audit_path, site=settings.site).write(
            "consent-withdrawn", entry=mark.entries, entry_hash=mark.head
        )
    return Withdrawal(label, released, tuple(current), done=yes or before)


def _approved(approvals: Approvals) -> list[Protocol]:
    """Return the approved protocols that can be read."""
    found = []
    for digest in approvals.digests():
        try:
            found.append(approvals.recorded(digest).protocol)
        except ProtocolError:
            continue  # one that was changed, or is of another release, is not answered either
    return found


def _is_listed(settings: SiteSettings, label: str) -> bool:
    return any(person.label == label for person in read_participants(settings.dataset))


def _scans(settings: SiteSettings, label: str, protocol: Protocol) -> tuple[str, ...]:
    """Return the digests of a participant's scans, as far as they were prepared for a protocol."""
    try:
        excluded = read_exclusions(settings.derivatives, protocol.imaging)
    except EsnError:
        excluded = frozenset()
    return scans_behind(settings.derivatives, protocol.imaging, label, excluded)
