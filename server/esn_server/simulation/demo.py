"""A whole consortium on this machine: simulated hospitals, real processes, two studies, one report.

Everything is done by the programs that hospitals and centres use, each in a
process of its own: this module only starts them, in order, and stops them.
"""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from esn_core.errors import ConfigError, StudyError
from esn_core.identity.enrolment import SiteKit
from esn_core.protocol.protocol import load_protocol
from esn_core.system.child_process import ChildProcess
from esn_core.system.command_line import say
from esn_core.system.loopback import free_port
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.sites import read_request
from esn_server.report.result import StudyResult, read_result
from esn_server.report.verdict import likely_r
from esn_server.report.wording import fixed, interval
from esn_server.run.run import write_outcome

DELTA = 1e-3

_MARKER = ".esn-demo"
_PROCESSES = 2
_START_S = 60.0
_POLL_S = 0.05

Side = Literal["client", "server"]
_Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Plan:
    """What a demo is about.

    Attributes
    ----------
    name : str
        Of the study.
    children : dict of str to int
        Children with epilepsy at each site.
    controls : int
        At each site.
    scans : int
        How many of each site's children have raw diffusion MRI, to be prepared; all others have connectomes.
    atlas : str
    split_salt : str
    held_out_fraction : float
    training_rounds : int
    about_s : dict of str to int
        Seconds that each step took on two cores that did little else; what a reader is told to expect.
    analyses : tuple of str
        What ``esn-server protocol new`` is told to ask.
    exact_analyses : tuple of str
        What it is told to ask besides in the study without noise.
    references : bool
        Whether other predictors, permutations and harmonisations are set beside the study.

    """

    name: str
    children: dict[str, int]
    controls: int
    scans: int
    atlas: str
    split_salt: str
    held_out_fraction: float
    training_rounds: int
    about_s: dict[str, int] = field(default_factory=dict)
    analyses: tuple[str, ...] = ()
    exact_analyses: tuple[str, ...] = ()
    references: bool = False


SHORT = Plan(
    name="demo",
    children=dict.fromkeys(("north", "south", "west", "east", "coast"), 64),
    controls=12,
    scans=6,
    atlas="phantom-28",
    # With this salt the hash holds out 31 to 33 of the 64 children of each site, 160 in all: the noise in r
    # falls with their number, and what the others find hardly does.
    split_salt="demo-3336",
    held_out_fraction=0.5,
    training_rounds=3,
    about_s={"simulate": 12, "start": 18, "prepare": 38, "study": 65, "reference": 5},
)
FULL = Plan(
    name="demo-full",
    children={"ash": 40, "birch": 44, "cedar": 48, "elm": 52, "oak": 56, "pine": 60},
    controls=15,
    scans=0,
    atlas="desikan-killiany-83",
    split_salt="demo-full",
    held_out_fraction=0.333,
    training_rounds=8,
    about_s={"simulate": 8, "start": 15, "study": 150, "reference": 65},
    analyses=(
        *("--cohort-summary", "--cross-site", "--random-scores", "1"),
        *("--explanation", "--neurocognition", "--exact", "neurocognition"),
    ),
    exact_analyses=("--network", "--exact", "network"),
    references=True,
)


@dataclass
class _Study:
    """One study of the demo: where it lives, what protects it, and how long its steps took."""

    plan: Plan
    name: str
    directory: Path
    hospitals: Path
    noise: Literal["gaussian", "none"]
    epsilon: float
    timing_s: dict[str, float] = field(default_factory=dict)

    @property
    def centre(self) -> Path:
        return self.directory / "centre"

    @property
    def protocol(self) -> Path:
        return self.directory / "protocol.toml"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def settings(self, site: str) -> Path:
        return self.directory / "sites" / site / "site.toml"

    @contextlib.contextmanager
    def step(self, name: str, words: str) -> Iterator[None]:
        """Say in one line what happens now, how long it may take, and then how long it took."""
        about = self.plan.about_s.get(name)
        expected = f" (about {about} s)" if about else ""
        say(f"{words}{expected} ... ", end="")
        started = time.monotonic()
        try:
            yield
        except BaseException:
            say("")
            raise
        self.timing_s[name] = time.monotonic() - started
        say(f"{self.timing_s[name]:.0f} s")


@dataclass(frozen=True)
class Shown:
    """What a demo has to show.

    Attributes
    ----------
    report : Path
    private, exact : StudyResult
        The study as hospitals would run it, and without noise.

    """

    report: Path
    private: StudyResult
    exact: StudyResult

    @property
    def in_three_lines(self) -> tuple[str, str, str]:
        """What was found, what it cost, and what to open."""
        evaluation, privacy = self.private.evaluation, self.private.privacy
        likely = likely_r(evaluation)
        found = f"predicted severity: r {fixed(None if likely is None else likely.value, 2)}"
        if likely is not None:
            found += f" (95 %: {interval(likely.interval, 2)})"
        alone = self.private.local_only
        if alone is not None:
            found += f"; one site alone {fixed(alone.mean_r, 2)}"
        each = privacy.epsilon_training_child, privacy.epsilon_held_out_child
        most = None if None in each else max(epsilon for epsilon in each if epsilon is not None)
        cost = f"ε {fixed(most, 2, 'unbounded')} for a child (δ {privacy.delta:g})"
        return (
            f"found  {found}",
            f"cost   {cost}; without noise r {fixed(self.exact.evaluation.r, 2)}",
            f"open   {self.report}",
        )


def run_demo(out: Path, plan: Plan, *, seed: int, epsilon: float) -> Shown:
    """Run the demo; what it does is said on stderr, in one line a step.

    Parameters
    ----------
    out : Path
        Replaced when an earlier demo made it.
    plan : Plan
        `SHORT` or `FULL`.
    seed : int
        Of the simulated children; the privacy noise has no seed.
    epsilon : float
        Budget of one child in the private study.

    Raises
    ------
    ConfigError
        `out` holds something else.
    StudyError
        A process of the demo failed; the message ends with its last words and names its log.

    """
    _clear(out)
    hospitals = out / "hospitals"
    private = _Study(plan, plan.name, out, hospitals, "gaussian", epsilon)
    exact = _Study(plan, f"{plan.name}-no-noise", out / "no-noise", hospitals, "none", epsilon)
    with private.step("simulate", f"Simulating {_hospitals(plan)}"):
        _simulate(private, seed=seed)
    result = _run(private)
    say("Once more without noise, to see what privacy costs (simulated children only):")
    beside = write_outcome(_run(exact), exact.directory, timing_s=exact.timing_s)
    with private.step("reference", "What each hospital would find alone"):
        result = _with_references(private, result, seed=seed)
    result = write_outcome(result, out, no_noise=beside, timing_s=private.timing_s)
    return Shown(out / "report.html", result, beside)


def _hospitals(plan: Plan) -> str:
    everybody = sum(plan.children.values())
    scans = f", {plan.scans * len(plan.children)} as raw MRI" if plan.scans else ""
    return f"{len(plan.children)} hospitals: {everybody} children{scans}"


def _simulate(study: _Study, *, seed: int) -> None:
    plan = study.plan
    commands = []
    for site, children in plan.children.items():
        data = study.hospitals / site
        commands.append(
            (
                *("simulate", str(data / "bids"), "--site", site, "--seed", str(seed)),
                *("--children", str(children), "--controls", str(plan.controls)),
                *("--connectomes", str(data / "derivatives"), "--truth", str(data / "truth.npz")),
                *(("--scans", str(plan.scans)) if plan.scans else ()),
            )
        )
    _call_each(study, "client", commands)


def _run(study: _Study) -> StudyResult:
    """Set a consortium up, run its study, and shut everything down."""
    port = free_port()
    health = ("--health-port", str(free_port()))
    with contextlib.ExitStack() as processes:
        with study.step("start", "Starting the centre and enrolling the sites"):
            _call(study, "server", "init", str(study.centre), "--name", "127.0.0.1", "--name", "localhost")
            centre = processes.enter_context(
                _background(
                    "server",
                    "start",
                    str(study.centre),
                    "--port",
                    str(port),
                    *health,
                    log=study.logs / "centre.log",
                )
            )
            _initialise(study)
            if not centre.wait_until(
                lambda: any("ready" in line for line in centre.log_lines()), timeout_s=_START_S
            ):
                raise StudyError(f"the centre did not start: {centre.last_words()}")
            _enrol(study, port)
            _draft(study)
        if study.plan.scans and study.noise != "none":
            with study.step("prepare", f"Preparing {study.plan.scans} raw scans at each hospital"):
                _prepare(study)
        with study.step(
            "study", "Running the study in private" if study.noise != "none" else "Running the study"
        ):
            approvals = [
                ("approve", str(study.settings(site)), str(study.protocol)) for site in study.plan.children
            ]
            _call_each(study, "client", approvals)
            for site in study.plan.children:
                processes.enter_context(
                    _background("client", "join", str(study.settings(site)), log=study.logs / f"{site}.log")
                )
            arguments = (str(study.centre), str(study.protocol), "--out", str(study.directory / "run"))
            _call(study, "server", "run", *arguments)
    return read_result(study.directory / "run" / "result.json")


def _initialise(study: _Study) -> None:
    exact = study.noise == "none" or "--exact" in study.plan.analyses
    _call_each(
        study,
        "client",
        [
            (
                *("init", str(study.settings(site).parent), "--site", site),
                *("--epsilon-cap", str(study.epsilon), "--delta", str(DELTA)),
                *("--dataset", str(study.hospitals / site / "bids")),
                *("--derivatives", str(study.hospitals / site / "derivatives")),
                *(("--exact-sums",) if exact else ()),
            )
            for site in study.plan.children
        ],
    )


def _with_references(study: _Study, result: StudyResult, *, seed: int) -> StudyResult:
    from esn_server.simulation.reference import with_references, with_sites_alone

    add = with_references if study.plan.references else with_sites_alone
    hospitals = {site: study.hospitals / site for site in study.plan.children}
    return add(result, load_protocol(study.protocol), hospitals, seed=seed)


def _prepare(study: _Study) -> None:
    commands = []
    for site in study.plan.children:
        data = study.hospitals / site
        commands.append(
            (
                *("prepare", str(data / "bids"), str(data / "derivatives"), "participant"),
                *("--protocol", str(study.protocol), "--skip-pages"),
            )
        )
    _call_each(study, "client", commands)


def _enrol(study: _Study, port: int) -> None:
    """Exchange requests and kits; the telephone calls are played."""
    kits = []
    for site in study.plan.children:
        settings = study.settings(site)
        request = settings.parent / "state" / "enrolment.toml"
        heard = read_request(request).fingerprint
        _call(
            study,
            "server",
            *("enrol", str(study.centre), str(request), "--fingerprint", heard),
            *("--public-address", f"127.0.0.1:{port}"),
        )
        kit = study.centre / "kits" / f"{site}.kit.toml"
        heard = read_toml(kit, SiteKit).fingerprint
        kits.append(("kit", str(settings), str(kit), "--fingerprint", heard))
    _call_each(study, "client", kits)


def _draft(study: _Study) -> None:
    _call(
        study,
        "server",
        *("protocol", "new", str(study.centre), "--study", study.name, "--out", str(study.protocol)),
        *("--epsilon", str(study.epsilon), "--delta", str(DELTA), "--noise", study.noise),
        *("--simulated", "--candidates", "template"),
        *("--held-out-fraction", str(study.plan.held_out_fraction)),
        *("--split-salt", study.plan.split_salt, "--training-rounds", str(study.plan.training_rounds)),
        *("--atlas", study.plan.atlas, *study.plan.analyses),
        *(study.plan.exact_analyses if study.noise == "none" else ()),
    )
    _call(study, "server", "protocol", "sign", str(study.centre), str(study.protocol))


def _program(side: Side) -> list[str]:
    return [sys.executable, "-m", f"esn_{side}.cli.main"]


def _call(study: _Study, side: Side, *arguments: str) -> None:
    """Run a command to its end."""
    _call_each(study, side, [arguments])


def _call_each(study: _Study, side: Side, commands: Sequence[Sequence[str]]) -> None:
    """Run commands to their ends, two at a time: every hospital has a machine of its own, this one two cores.

    What they say to people goes to logs, as nobody is there to telephone.
    """
    waiting, running = list(reversed(commands)), list[tuple[_Process, Path, str]]()
    try:
        while waiting or running:
            while waiting and len(running) < _PROCESSES:
                running.append(_begin(study, side, waiting.pop()))
            ended = [command for command in running if command[0].poll() is not None]
            for command in ended:
                running.remove(command)
                _require_success(*command)
            if not ended:
                time.sleep(_POLL_S)
    except BaseException:
        for process, _, _ in running:
            process.terminate()
        for process, _, _ in running:
            process.wait()
        raise


def _begin(study: _Study, side: Side, arguments: Sequence[str]) -> tuple[_Process, Path, str]:
    logs = study.logs / "commands"
    logs.mkdir(parents=True, exist_ok=True)
    name = f"esn-{side} {arguments[0]}"
    path = logs / f"{len(list(logs.iterdir())) + 1:03d}-{name.replace(' ', '-')}.log"
    # In a session of its own: an interrupt typed at the terminal is for us, and a command that is asked
    # to end ends its own workers in order.
    with path.open("wb") as log:
        process = subprocess.Popen(
            [*_program(side), *arguments], stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
    return process, path, name


def _require_success(process: _Process, log: Path, name: str) -> None:
    if process.returncode == 0:
        return
    said = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "no message")
    raise StudyError(f"'{name}' ended with exit status {process.returncode}: {last}; see {log}")


def _background(side: Side, *arguments: str, log: Path) -> ChildProcess:
    return ChildProcess([*_program(side), *arguments], log_file=log, environment={})


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / _MARKER).exists():
            raise ConfigError(f"{out} is not empty and was not made by a demo; choose another directory")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()
