"""What a run is doing now, as a file that anybody may read while it is written."""

import datetime
import logging
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from esn_core.errors import ConfigError
from esn_core.formats import PROGRESS, version_in
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.system.files import write_whole
from esn_server.study.question_progress import QuestionProgress, State

_log = logging.getLogger(__name__)

# So often the file is written when nothing has changed: by its age a reader knows whether the run lives.
REFRESH_S = 5.0


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteProgress(_Table):
    """One site and the question at hand; at the roll call, what it said of itself."""

    state: State
    tries: int
    since: AwareDatetime | None
    """When it was asked last, or has answered."""
    error: str | None


class Agreement(_Table):
    """What a site said to the roll call of this run."""

    approved: bool
    error: str | None
    cohort_band: str | None
    version: str | None
    clock_offset_s: tuple[float, float] | None
    """Bounds of the site's clock minus the centre's: it answered between question and answer."""


class Step(_Table):
    """A finished step."""

    phase: PhaseName
    round: int
    finished_at: AwareDatetime
    seconds: float
    sites: int


class Failure(_Table):
    """Why a run ended early."""

    error_class: str
    message: str


class RunProgress(_Table):
    """All that there is to know of a run under way; nothing that result.json would not tell."""

    format: Literal[1]
    study: str
    protocol_sha256: str
    host: str
    process: int
    state: Literal["queued", "running", "finished", "failed", "interrupted"]
    started_at: AwareDatetime
    updated_at: AwareDatetime
    behind: tuple[str, ...]
    """The studies ahead in the queue."""
    plan: tuple[tuple[PhaseName, int], ...]
    """The phases, in order, with their rounds."""
    phase: PhaseName | None
    round: int
    rounds: int
    question_step: Literal["answers", "masks"]
    asked_at: AwareDatetime | None
    """When this step began."""
    deadline_at: AwareDatetime | None
    sites: dict[str, SiteProgress]
    roll_call: dict[str, Agreement]
    steps: tuple[Step, ...]
    learning_curve: tuple[float, ...]
    failure: Failure | None

    def plan_of(self, phase: PhaseName) -> int:
        """Return how many rounds a phase has; 0 where the protocol lacks it."""
        return dict(self.plan).get(phase, 0)

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The sites that have neither answered nor refused the question at hand."""
        if self.state != "running":
            return ()
        return tuple(n for n, site in self.sites.items() if site.state not in ("answered", "refused"))


def read_progress(path: Path) -> RunProgress:
    """Read what a run does.

    Raises
    ------
    ConfigError
        There is no such file, a newer release wrote it, or it is another kind of file.

    """
    try:
        content = path.read_bytes()
        fault = PROGRESS.fault_in(version_in(content))
        if fault:
            raise ConfigError(f"{path}: {fault}")
        return RunProgress.model_validate_json(content)
    except FileNotFoundError as cause:
        raise ConfigError(f"{path}: there is no such file; no run was started there") from cause
    except (OSError, ValidationError) as cause:
        raise ConfigError(f"{path}: cannot be read as the progress of a run") from cause


class ProgressFile:
    """Writes the progress of one run; each method is one thing that happens to it.

    It is the `Observer` of the run's study. A file that cannot be written never ends a
    run: it is said once in the log.

    Parameters
    ----------
    path : Path
        Of an earlier start, finished steps and their times are taken over.
    protocol : Protocol
    show : callable
        Told phase, round and number of rounds of each question, for somebody who looks on.

    """

    def __init__(
        self,
        path: Path,
        *,
        protocol: Protocol,
        show: Callable[[PhaseName, int, int], None] = lambda _phase, _round, _rounds: None,
    ) -> None:
        self._path = path
        self._show = show
        self._complained = False
        now = _now()
        self._steps_before: dict[tuple[PhaseName, int], Step] = {}
        if path.exists():
            try:
                before = read_progress(path)
            except ConfigError as fault:
                _log.warning("%s", fault)
            else:
                self._steps_before = {(s.phase, s.round): s for s in before.steps}
        self._now = RunProgress(
            format=1,
            study=protocol.study,
            protocol_sha256=protocol.sha256,
            host=platform.node(),
            process=os.getpid(),
            state="running",
            started_at=now,
            updated_at=now,
            behind=(),
            plan=(("roll-call", 1), *((p.phase, p.releases) for p in price_of(protocol).phases)),
            phase=None,
            round=0,
            rounds=0,
            question_step="answers",
            asked_at=None,
            deadline_at=None,
            sites={},
            roll_call={},
            steps=(),
            learning_curve=(),
            failure=None,
        )
        self._write()

    def queued(self, behind: Sequence[str]) -> None:
        """Note which studies run first."""
        self._change(state="queued", behind=tuple(behind))

    def started(self) -> None:
        """Note that it is this run's turn."""
        self._change(state="running", behind=())

    def began(self, phase: PhaseName, round_: int, rounds: int) -> None:
        """Note that a question begins, and the one before is done."""
        self._finish_step()
        self._change(
            phase=phase,
            round=round_,
            rounds=rounds,
            question_step="answers",
            asked_at=_now(),
            deadline_at=None,
            sites={},
        )
        self._show(phase, round_, rounds)

    def progressed(self, question: QuestionProgress) -> None:
        """Note how the question at hand stands."""
        now = _now()

        def at(clock: float | None) -> datetime.datetime | None:
            if clock is None:
                return None
            moment = now + datetime.timedelta(seconds=clock - question.now)
            return moment.replace(microsecond=0)

        sites = {
            name: SiteProgress(
                state=s.state, tries=s.tries, since=at(s.answered_at or s.asked_at), error=s.error
            )
            for name, s in question.sites.items()
        }
        changes: dict[str, object] = {"sites": {**self._now.sites, **sites}, "question_step": question.step}
        if self._now.deadline_at is None or question.step != self._now.question_step:
            changes["deadline_at"] = at(question.until)
        if question.id.phase == "roll-call":
            changes["roll_call"] = _agreements(question, now)
        self._change(**changes)

    def learned(self, round_: int, loss: float) -> None:
        """Note the loss of a round of training."""
        self._change(learning_curve=(*self._now.learning_curve[:round_], loss))

    def ended(self, error: BaseException | None) -> None:
        """Note that the run is over, with or without a result."""
        if error is None:
            self._finish_step()
            self._change(state="finished", phase=None, sites={}, deadline_at=None)
        elif isinstance(error, Exception):
            failure = Failure(error_class=type(error).__name__, message=str(error))
            self._change(state="failed", failure=failure)
        else:
            self._change(state="interrupted")

    def _finish_step(self) -> None:
        now = self._now
        if now.phase is None or now.asked_at is None:
            return
        step = self._steps_before.get((now.phase, now.round))
        answered = sum(site.state == "answered" for site in now.sites.values())
        # A step without sites was finished at an earlier start.
        if step is None or answered:
            at = _now()
            seconds = (at - now.asked_at).total_seconds()
            step = Step(phase=now.phase, round=now.round, finished_at=at, seconds=seconds, sites=answered)
        self._now = now.model_copy(update={"steps": (*now.steps, step)})

    def _change(self, **changes: object) -> None:
        changed = self._now.model_copy(update=changes)
        age_s = (_now() - self._now.updated_at).total_seconds()
        if changed != self._now or age_s >= REFRESH_S:
            self._now = changed.model_copy(update={"updated_at": _now()})
            self._write()

    def _write(self) -> None:
        try:
            write_whole(self._path, self._now.model_dump_json(indent=1).encode())
        except OSError as error:
            if not self._complained:
                _log.warning("%s: the progress cannot be written: %s", self._path, error.strerror)
            self._complained = True


def _agreements(question: QuestionProgress, now: datetime.datetime) -> dict[str, Agreement]:
    """Return what the sites said to a roll call so far, with bounds of their clocks."""
    said = {}
    for name, site in question.sites.items():
        if site.state not in ("answered", "refused"):
            continue
        facts, offset = site.facts, None
        if facts is not None and site.asked_at is not None and site.answered_at is not None:
            sent, came = (
                now + datetime.timedelta(seconds=t - question.now) for t in (site.asked_at, site.answered_at)
            )
            bounds = (facts.said_at - came, facts.said_at - sent)
            offset = (round(bounds[0].total_seconds(), 1), round(bounds[1].total_seconds(), 1))
        said[name] = Agreement(
            approved=site.state == "answered",
            error=site.error if facts is None else None,
            cohort_band=facts.cohort_band if facts else None,
            version=facts.software.get("esn-federated") if facts else None,
            clock_offset_s=offset,
        )
    return said


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
