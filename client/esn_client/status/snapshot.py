"""A snapshot of a site, which its preflight and its status look at."""

import datetime
from collections.abc import Sequence
from functools import cached_property

from esn_client.approval.approvals import Approvals
from esn_client.cohort.cohort import Cohort, load_cohort
from esn_client.cohort.participants import Participant, read_participants
from esn_client.cohort.withdrawn import remaining
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.ledger import Entry
from esn_client.imaging.bids.simulated_mark import is_simulated, misfit
from esn_client.link.centre_probe import Probe, probe
from esn_client.site.centre_kit import centre_key, load_kit
from esn_client.site.settings import SiteSettings
from esn_client.site.state import open_ledger, read_salt
from esn_core.errors import ProtocolError
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol

_SILENCE = datetime.timedelta(days=14)


class Snapshot:
    """One site today: each thing is read when it is first asked for, and then kept.

    Parameters
    ----------
    settings : SiteSettings
    today : date
        In UTC.

    """

    def __init__(self, settings: SiteSettings, *, today: datetime.date) -> None:
        self.settings = settings
        self.today = today
        self._cohorts: dict[str, Cohort] = {}

    @cached_property
    def participants(self) -> tuple[Participant, ...]:
        """The site's table of participants, without those whose consent was withdrawn."""
        found = read_participants(self.settings.dataset)
        with open_ledger(self.settings) as ledger:
            return remaining(found, ledger, salt=read_salt(self.settings))

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The approved protocols that can be read, expired ones among them."""
        return self._approvals[0]

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What is wrong with each of the other approvals: it was changed, or another release left it."""
        return self._approvals[1]

    @cached_property
    def _approvals(self) -> tuple[tuple[Protocol, ...], tuple[str, ...]]:
        site = self.settings
        audit = AuditLog(site.audit_path, site=site.site)
        approvals = Approvals(site, centre_key=centre_key(site), audit=audit)
        found, faults = [], []
        for digest in approvals.digests():
            try:
                found.append(approvals.recorded(digest).protocol)
            except ProtocolError as fault:
                words = " ".join(str(fault).split())
                faults.append(
                    f"approval {digest[:16]} cannot be read ('esn-client withdraw' removes it): {words}"
                )
        return tuple(found), tuple(faults)

    @cached_property
    def answered(self) -> tuple[Protocol, ...]:
        """The approved protocols of which nothing more will be asked.

        Every phase was answered; or the evaluation was, and nothing for two weeks: a study may end without an
        analysis (decision 0165). It would still be answered if it went on.
        """
        with open_ledger(self.settings) as ledger:
            entries = ledger.entries()
        return tuple(p for p in self.protocols if self._is_over(p, entries))

    def _is_over(self, protocol: Protocol, entries: Sequence[Entry]) -> bool:
        own = [entry for entry in entries if entry.charge.protocol_sha256 == protocol.sha256]
        charged = {entry.charge.release for entry in own}
        if {phase.phase for phase in price_of(protocol).phases} <= charged:
            return True
        if "evaluation" not in charged:
            return False
        last = max(datetime.datetime.fromisoformat(entry.at) for entry in own).date()
        return self.today - last > _SILENCE

    @property
    def current(self) -> tuple[Protocol, ...]:
        """The approved protocols of which questions may come: not expired, not answered, for these people."""
        open_ = (p for p in self.protocols if p.expires >= self.today and p not in self.answered)
        return tuple(p for p in open_ if p not in self.elsewhere)

    @property
    def elsewhere(self) -> tuple[Protocol, ...]:
        """The approved protocols for simulated people where the dataset's are real, or the other way."""
        place = self.settings.dataset
        if not place.is_dir():
            return ()
        simulated = is_simulated(place)
        return tuple(p for p in self.protocols if misfit(simulated, p.simulated))

    @cached_property
    def centre(self) -> Probe:
        """One look at the centre."""
        kit = load_kit(self.settings)
        return probe(
            kit.address,
            ca_certificate=self.settings.ca_certificate_path,
            extra_ca=self.settings.centre.extra_ca,
            timeout_s=10.0,
        )

    def cohort(self, protocol: Protocol) -> Cohort:
        """Return the site's children for a protocol."""
        if protocol.sha256 not in self._cohorts:
            self._cohorts[protocol.sha256] = load_cohort(
                self.participants,
                site=self.settings.site,
                derivatives=self.settings.derivatives,
                protocol=protocol,
            )
        return self._cohorts[protocol.sha256]
