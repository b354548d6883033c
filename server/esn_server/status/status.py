"""How a centre stands: its sites, the studies that run or wait, and when they will be done."""

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from esn_core.errors import ConfigError, EsnError
from esn_core.messages.facts import LedgerMark
from esn_server.enrolment.sites import enrolled, node_key_of
from esn_server.link.registration import known_nodes
from esn_server.report.result import read_result
from esn_server.report.verdict import likely_r
from esn_server.run.directory import PROGRESS
from esn_server.run.progress import REFRESH_S, RunProgress, read_progress
from esn_server.run.queue import queue
from esn_server.service.address import read_address

# A run that has not written for so long does not run: it writes every few seconds.
_SILENCE_S = 12 * REFRESH_S


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteStatus(_Table):
    """One enrolled site, as the centre sees it."""

    name: str
    fingerprint: str
    connected: bool | None
    """None where the SuperLink cannot be asked."""
    last_heard_at: AwareDatetime | None
    ledger_entries: int
    """That this centre saw."""


class RunStatus(_Table):
    """One run, with what follows from its progress."""

    directory: str
    progress: RunProgress
    alive: bool
    """Whether its process still writes; None of its own words would say so after a kill."""
    phase_eta_at: AwareDatetime | None
    """When the phase will be done, from its finished rounds; None where none is."""
    outcome: str | None = None
    """What a finished study found, in a few words."""


class CentreStatus(_Table):
    """All that 'esn-server status' tells."""

    centre: str
    at: AwareDatetime
    superlink: str | None
    """Why the SuperLink cannot be asked, or None."""
    sites: tuple[SiteStatus, ...]
    runs: tuple[RunStatus, ...]
    queue: tuple[str, ...]
    """Studies that run or wait, the running one first."""


def status_of(centre: Path, runs: Sequence[Path]) -> CentreStatus:
    """Gather how a centre stands; nothing is changed, and no run is disturbed.

    Parameters
    ----------
    centre : Path
        The centre's directory.
    runs : sequence of Path
        Directories of runs; those that run or wait now are added.

    Raises
    ------
    ConfigError
        `centre` is no centre's directory, or a directory holds no run.

    """
    tickets = queue(centre)
    places = dict.fromkeys([*(run.resolve() for run in runs), *(Path(t.run_directory) for t in tickets)])
    sites, complaint = _sites(centre)
    return CentreStatus(
        centre=str(centre),
        at=_now(),
        superlink=complaint,
        sites=sites,
        runs=tuple(_run_status(place) for place in places),
        queue=tuple(ticket.study for ticket in tickets),
    )


class Watch:
    """Looks at a centre again and again; a run that was seen stays in sight when it has ended.

    Parameters
    ----------
    centre : Path
    runs : sequence of Path
        As for `status_of`.

    """

    def __init__(self, centre: Path, runs: Sequence[Path]) -> None:
        self._centre = centre
        self._runs = list(runs)

    def __call__(self) -> CentreStatus:
        """Gather how the centre stands now."""
        found = status_of(self._centre, self._runs)
        self._runs = [Path(run.directory) for run in found.runs]
        return found


def eta_of(progress: RunProgress) -> datetime.datetime | None:
    """Return when the phase at hand will be done: the median of its finished rounds, for those left.

    Returns
    -------
    datetime or None
        None where no round of the phase is finished: nobody knows.

    """
    if progress.state != "running" or progress.asked_at is None:
        return None
    # A round that was read from the store took no time.
    took = [s.seconds for s in progress.steps if s.phase == progress.phase and s.sites > 0]
    if not took:
        return None
    each = datetime.timedelta(seconds=statistics.median(took))
    return progress.asked_at + (progress.rounds - progress.round) * each


def _run_status(directory: Path) -> RunStatus:
    progress = read_progress(directory / PROGRESS)
    return RunStatus(
        directory=str(directory),
        progress=progress,
        alive=_alive(progress),
        phase_eta_at=eta_of(progress),
        outcome=_outcome(directory) if progress.state == "finished" else None,
    )


def _outcome(directory: Path) -> str | None:
    """Say what a finished run found; None where its result cannot be read."""
    try:
        found = read_result(directory / "result.json").evaluation
    except EsnError:
        return None
    likely = likely_r(found)
    if likely is None:
        return "r lost in the noise" if found.r_noise_sd != 0 else f"r undefined: {found.undefined_because}"
    low, high = likely.interval
    return f"r {likely.value:.2f} (95 % interval {low:.2f} to {high:.2f})"


def _alive(progress: RunProgress) -> bool:
    if progress.state not in ("queued", "running"):
        return False
    if progress.host == platform.node():
        try:
            os.kill(progress.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it runs, as somebody else
        else:
            return True
    return (_now() - progress.updated_at).total_seconds() < _SILENCE_S


def _sites(centre: Path) -> tuple[tuple[SiteStatus, ...], str | None]:
    nodes, complaint = {}, None
    try:
        nodes = known_nodes(centre, read_address(centre).superlink)
    except EsnError as error:
        complaint = str(error)
    try:
        entries = enrolled(centre)
    except ConfigError:
        if not (centre / "ca.crt").exists():
            raise ConfigError(f"{centre}: is no centre's directory; 'esn-server init' makes one") from None
        entries = ()
    found = []
    for entry in entries:
        node = nodes.get(node_key_of(centre, entry.site).read_text(encoding="utf-8").strip())
        found.append(
            SiteStatus(
                name=entry.site,
                fingerprint=entry.fingerprint,
                connected=None if complaint else node is not None and node.online,
                last_heard_at=node.last_heard_at if node else None,
                ledger_entries=_ledger_entries(centre, entry.site),
            )
        )
    return tuple(found), complaint


def _ledger_entries(centre: Path, site: str) -> int:
    path = centre / "sites" / f"{site}.ledger.json"
    return LedgerMark.model_validate_json(path.read_bytes()).entries if path.exists() else 0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
