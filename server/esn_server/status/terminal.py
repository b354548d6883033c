"""A centre's status as tables for a terminal."""

import datetime
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from esn_server.run.progress import Agreement, RunProgress
from esn_server.status.status import CentreStatus, RunStatus, SiteStatus

# Beyond this the sites' signatures of the time are refused soon: Flower allows five minutes.
_SKEW_WARNING_S = 60.0


_REFRESH_S = 2.0


def show(look: Callable[[], CentreStatus], *, watch: bool) -> None:
    """Print a status once, or keep it on the screen until interrupted."""
    console = Console()
    if not watch:
        console.print(table_of(look()))
        return
    with Live(table_of(look()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_S)
            live.update(table_of(look()), refresh=True)


def table_of(status: CentreStatus) -> RenderableType:
    """Draw a status."""
    parts: list[RenderableType] = []
    if status.superlink:
        parts.append(Text(f"The SuperLink cannot be asked: {status.superlink}", style="red"))
    agreements = status.runs[-1].progress.roll_call if status.runs else {}
    sites = Table("site", "connected", "last heard", "clock", "ledger", "protocol", title="Sites")
    for site in status.sites:
        said = agreements.get(site.name)
        sites.add_row(
            site.name,
            _connected(site),
            _ago(site.last_heard_at, status.at),
            clock(said),
            str(site.ledger_entries),
            agreed(said),
        )
    parts.append(sites)
    parts += [_run(run, status.at) for run in status.runs]
    if not status.runs:
        parts.append(Text("No study runs or waits; name a run's directory to see how it ended."))
    return Group(*parts)


def headline(run: RunStatus, at: datetime.datetime) -> str:
    """Say in one line what a run does."""
    p = run.progress
    if p.state in ("queued", "running") and not run.alive:
        return (
            f"stopped without a word, last heard {_ago(p.updated_at, at)} ago: start it again with --resume"
        )
    if p.state == "queued":
        return f"waits for {', '.join(p.behind)}"
    if p.state == "finished":
        said = f"finished at {p.updated_at:%Y-%m-%d %H:%M} UTC"
        return f"{said}: {run.outcome}" if run.outcome else said
    if p.state == "interrupted":
        return "interrupted: start it again with --resume"
    if p.failure is not None:
        return f"{p.failure.error_class}: {p.failure.message}"
    return f"{p.phase}, round {p.round + 1} of {p.rounds}" if p.phase else "connects"


def waiting(progress: RunProgress, at: datetime.datetime) -> str:
    """Say for whom a run waits, and since when."""
    said = []
    for name in progress.waiting_for:
        site = progress.sites[name]
        since = f" for {_ago(site.since, at)}" if site.since else ""
        said.append(f"{name} ({site.state.replace('-', ' ')}{since})")
    return ", ".join(said) or "nobody"


def clock(said: Agreement | None) -> str:
    """Say how far a site's clock is off, as far as that is known."""
    if said is None or said.clock_offset_s is None:
        return "unknown"
    low, high = said.clock_offset_s
    if low <= 0 <= high:
        return "right" if high - low <= _SKEW_WARNING_S else f"within {max(-low, high):.0f} s"
    ahead = low > 0
    nearest = low if ahead else -high
    return f"{nearest:.0f} s {'ahead' if ahead else 'behind'} or more"


def agreed(said: Agreement | None) -> str:
    """Say whether a site answers the protocol's questions."""
    if said is None:
        return "not asked yet"
    return f"approved, {said.cohort_band} children" if said.approved else str(said.error)


def _run(run: RunStatus, at: datetime.datetime) -> Table:
    p = run.progress
    table = Table("", "", title=f"{p.study} ({run.directory})", show_header=False)
    table.add_row("now", headline(run, at))
    if run.alive and p.state == "running":
        table.add_row("waiting for", waiting(p, at))
        table.add_row("deadline", _in(p.deadline_at, at))
        table.add_row("phase done", _in(run.phase_eta_at, at))
    errors = {name: site.error for name, site in p.sites.items() if site.error}
    for name, error in errors.items():
        table.add_row(f"error of {name}", str(error))
    # A phase may come to rest before its last round.
    planned = f" of {sum(rounds for _, rounds in p.plan)} at most" if p.state == "running" else ""
    table.add_row("finished steps", f"{len(p.steps)}{planned}, in {sum(s.seconds for s in p.steps):.0f} s")
    if p.learning_curve:
        table.add_row("loss, noise included", " ".join(f"{loss:.3f}" for loss in p.learning_curve[-8:]))
    return table


def _connected(site: SiteStatus) -> str:
    return {None: "unknown", True: "yes", False: "no"}[site.connected]


def _in(moment: datetime.datetime | None, at: datetime.datetime) -> str:
    if moment is None:
        return "unknown"
    left = (moment - at).total_seconds()
    return f"in {duration(left)}" if left >= 0 else f"{duration(-left)} ago"


def _ago(moment: datetime.datetime | None, at: datetime.datetime) -> str:
    return "never" if moment is None else duration((at - moment).total_seconds())


def duration(seconds: float) -> str:
    """Say a length of time in one or two units."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172_800 else f"{whole // 86_400} days"
