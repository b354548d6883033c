"""The status page as HTML."""

from dataclasses import dataclass

from esn_core.system.pages import templates_of
from esn_server.run.progress import RunProgress
from esn_server.status.page.curve import curve_of
from esn_server.status.status import CentreStatus
from esn_server.status.terminal import agreed, clock, duration, headline, waiting


@dataclass(frozen=True)
class Stage:
    """One phase in the strip of phases."""

    phase: str
    done: int
    rounds: int
    now: bool


def stages_of(progress: RunProgress) -> list[Stage]:
    """Return the phases of a run, in order, with how far each is."""
    done = {phase: sum(s.phase == phase for s in progress.steps) for phase, _ in progress.plan}
    return [
        Stage(phase, min(done[phase], rounds), rounds, now=phase == progress.phase)
        for phase, rounds in progress.plan
    ]


_PAGES = templates_of("esn_server.status.page")
_PAGES.globals.update(
    agreed=agreed,
    clock=clock,
    curve_of=curve_of,
    duration=duration,
    headline=headline,
    stages_of=stages_of,
    waiting=waiting,
)


def page_html(status: CentreStatus) -> str:
    """Return the whole page."""
    return _PAGES.get_template("page.html.j2").render(status=status)


def now_html(status: CentreStatus) -> str:
    """Return the part of the page that changes."""
    return _PAGES.get_template("now.html.j2").render(status=status)
