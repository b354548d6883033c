"""How a site stands: the centre, the approvals, the last question, and what its patients have spent."""

import datetime
import json
import math
import shutil

from pydantic import AwareDatetime, BaseModel, ConfigDict

from esn_client.gate.ledger_report import UNBOUNDED, LedgerReport, beside_children
from esn_client.site.settings import SiteSettings
from esn_client.site.state import open_ledger
from esn_client.status.snapshot import Snapshot
from esn_core.errors import EsnError
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import today_utc
from esn_core.system.chained_log import ChainedLog


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Approved(_Table):
    """One approved protocol."""

    study: str
    protocol_sha256: str
    expires: datetime.date
    expired: bool
    answered: bool
    """Whether the site has answered it to its end."""

    @property
    def in_words(self) -> str:
        """The study, and how long it counts."""
        until = f"{'expired on' if self.expired else 'until'} {self.expires}"
        return (
            f"{self.study} ({self.protocol_sha256[:16]}) {'answered to its end' if self.answered else until}"
        )


class PersonalModel(_Table):
    """A hospital's own model of a study that it has answered."""

    study: str
    directory: str | None
    """Where page and JSON lie; None while nobody has made them."""

    @property
    def in_words(self) -> str:
        """The study, and where its model is or what makes it."""
        missing = "none yet, 'esn-client personal-model' makes it"
        return f"{self.study}: {self.directory or missing}"


class LastMessage(_Table):
    """The newest question that the site answered or refused."""

    question: str
    event: str
    at: AwareDatetime


class SiteStatus(_Table):
    """All that 'esn-client status' tells; no patient is in it."""

    site: str
    at: AwareDatetime
    centre_answers: bool
    centre_fault: str | None
    """Why the centre cannot be reached; None where it answers."""
    joined_since: AwareDatetime | None
    """When 'join' was connected; None while it is not, or after it said goodbye."""
    approved: tuple[Approved, ...]
    unreadable: tuple[str, ...]
    """Approvals that were changed, or that another release left, each with what is wrong with it."""
    personal_models: tuple[PersonalModel, ...]
    """Of the answered studies that give one, and all that are there; nothing of them may be sent."""
    last: LastMessage | None
    epsilon_of_worst_child: float | None
    """None after an exact release: it has no epsilon."""
    controls_in_exact_sums: int
    """Healthy controls, who have no epsilon and are no children."""
    epsilon_cap: float
    delta: float
    ledger_entries: int
    disk_free_bytes: int

    def words(self) -> dict[str, str]:
        """Return the same in words, by line."""
        spent = UNBOUNDED
        if self.epsilon_of_worst_child is not None:
            spent = f"{self.epsilon_of_worst_child:.2f}"
        last = f"{self.last.event} {self.last.question}, {_clock(self.last.at)}" if self.last else "none yet"
        approved = [*(p.in_words for p in self.approved), *self.unreadable]
        return {
            "centre": "answers" if self.centre_answers else f"not reached: {self.centre_fault}",
            "joined": f"since {_clock(self.joined_since)}" if self.joined_since else "no",
            "approved": "; ".join(approved) or "nothing",
            "personal model": "; ".join(model.in_words for model in self.personal_models)
            or "no study has ended",
            "last question": last,
            "worst child": (
                f"epsilon {spent} of {self.epsilon_cap:g} at delta {self.delta:g}"
                f"{beside_children(self.controls_in_exact_sums)}"
            ),
            "ledger": f"{self.ledger_entries} entries",
            "disk": f"{self.disk_free_bytes / 2**30:.1f} GiB free",
        }


def status_of(settings: SiteSettings) -> SiteStatus:
    """Gather how a site stands; nothing is sent but one request for the centre's health.

    Raises
    ------
    ConfigError
        The site was not initialised.
    LedgerError
        The ledger is not the one that this site wrote.
    """
    today = today_utc()
    snapshot = Snapshot(settings, today=today)
    complaint = None
    try:
        _ = snapshot.centre
    except EsnError as error:
        complaint = str(error)
    with open_ledger(settings) as ledger:
        entries = ledger.mark.entries
        spent = LedgerReport(ledger, site=settings.site, limits=settings.limits)
    lease = settings.state / "connected"
    return SiteStatus(
        site=settings.site,
        at=datetime.datetime.now(datetime.UTC),
        centre_answers=complaint is None,
        centre_fault=complaint,
        joined_since=(
            datetime.datetime.fromtimestamp(lease.stat().st_mtime, datetime.UTC) if lease.exists() else None
        ),
        approved=tuple(
            Approved(
                study=p.study,
                protocol_sha256=p.sha256,
                expires=p.expires,
                expired=p.expires < today,
                answered=p in snapshot.answered,
            )
            for p in _approved(snapshot)
        ),
        unreadable=snapshot.unreadable if settings.kit_path.exists() else (),
        personal_models=tuple(
            PersonalModel(study=p.study, directory=str(place) if place.exists() else None)
            for p in _approved(snapshot)
            if p.gives_personal_model(settings.site)
            for place in (settings.personal_model_path(p.study, p.sha256),)
            # It is made when the evaluation was answered, and a study may have analyses still to come.
            if p in snapshot.answered or place.exists()
        ),
        last=_last(settings),
        epsilon_of_worst_child=spent.largest_epsilon if math.isfinite(spent.largest_epsilon) else None,
        controls_in_exact_sums=spent.controls,
        epsilon_cap=settings.limits.epsilon_cap,
        delta=settings.limits.delta,
        ledger_entries=entries,
        disk_free_bytes=shutil.disk_usage(settings.state).free,
    )


def _approved(snapshot: Snapshot) -> tuple[Protocol, ...]:
    return snapshot.protocols if snapshot.settings.kit_path.exists() else ()


def _last(settings: SiteSettings) -> LastMessage | None:
    for line in reversed(list(ChainedLog(settings.audit_path).lines())):
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a part of a line that a kill left
        if said.get("event") in ("sent", "revealed", "refused"):
            return LastMessage(question=said["question"], event=said["event"], at=said["at"])
    return None


def _clock(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
