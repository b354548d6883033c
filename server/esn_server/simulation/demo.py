"""A whole consortium on this machine: simulated hospitals, real processes, two studies, one report.

Everything is done by the programs that hospitals and centres use, each in a
process of its own: this module only starts them, in order, and stops them.
"""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from esn_core.errors import ConfigError, StudyError
from esn_core.identity.enrolment import SiteKit
from esn_core.protocol.protocol import load_protocol
from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.sites import read_request
from esn_server.report.result import StudyResult, read_result
from esn_server.run.run import write_outcome

DELTA = 1e-3
TRAINING_ROUNDS = 8

_MARKER = ".esn-demo"
_PROCESSES = 2
_START_S = 60.0


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
    from_scans : bool
        Whether children have raw diffusion MRI, to be prepared, or connectomes at once.
    atlas : str
    split_salt : str
    analyses : tuple of str
        What ``esn-server protocol new`` is told to ask.
    exact_analyses : tuple of str
        What it is told to ask besides in the study without noise.

    """

    name: str
    children: dict[str, int]
    controls: int
    from_scans: bool
    atlas: str
    split_salt: str
    analyses: tuple[str, ...] = ()
    exact_analyses: tuple[str, ...] = ()


FROM_SCANS = Plan(
    name="demo",
    children=dict.fromkeys(("north", "south", "west"), 24),
    controls=8,
    from_scans=True,
    atlas="phantom-28",
    # With this salt the hash holds out exactly 8 of the 24 children of each site.
    split_salt="demo-38",
)
FULL = Plan(
    name="demo-full",
    children={"ash": 40, "birch": 44, "cedar": 48, "elm": 52, "oak": 56, "pine": 60},
    controls=15,
    from_scans=False,
    atlas="desikan-killiany-83",
    split_salt="demo-full",
    analyses=(
        *("--cohort-summary", "--cross-site", "--random-scores", "1"),
        *("--explanation", "--neurocognition", "--exact", "neurocognition"),
    ),
    exact_analyses=("--network", "--exact", "network"),
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
    console: Console
    timing_s: dict[str, float] = field(default_factory=dict)

    @property
    def centre(self) -> Path:
        return self.directory / "centre"

    @property
    def protocol(self) -> Path:
        return self.directory / "protocol.toml"

    def settings(self, site: str) -> Path:
        return self.directory / "sites" / site / "site.toml"

    @contextlib.contextmanager
    def step(self, name: str, words: str) -> Iterator[None]:
        """Say what happens now, and how long it took."""
        self.console.print(f"[bold]{words}[/bold]")
        started = time.monotonic()
        yield
        self.timing_s[name] = time.monotonic() - started
        self.console.print(f"  done in {self.timing_s[name]:.1f} s")


def run_demo(out: Path, plan: Plan, *, seed: int, epsilon: float) -> Path:
    """Run the demo and return the path of its report.

    Parameters
    ----------
    out : Path
        Replaced when an earlier demo made it.
    plan : Plan
        `FROM_SCANS` or `FULL`.
    seed : int
        Of the simulated children; the privacy noise has no seed.
    epsilon : float
        Budget of one child in the private study.

    Raises
    ------
    ConfigError
        `out` holds something else.
    StudyError
        A process of the demo failed; its own words stand above.

    """
    _clear(out)
    console = Console(stderr=True)
    hospitals = out / "hospitals"
    private = _Study(plan, plan.name, out, hospitals, "gaussian", epsilon, console)
    exact = _Study(plan, f"{plan.name}-no-noise", out / "no-noise", hospitals, "none", epsilon, console)
    data = "raw diffusion MRI" if plan.from_scans else "connectomes"
    with private.step(
        "simulate", f"Simulating {len(plan.children)} hospitals: {data} of children who do not exist"
    ):
        for site in plan.children:
            _simulate(private, site, seed=seed)
    result = _run(private)
    console.print("The same study once more without noise: what privacy costs (simulated children only)")
    beside = write_outcome(_run(exact), exact.directory, timing_s=exact.timing_s)
    if not plan.from_scans:
        with private.step("reference", "What these simulated children show without a federation"):
            result = _with_references(private, result, seed=seed)
    write_outcome(result, out, no_noise=beside, timing_s=private.timing_s)
    return out / "report.html"


def _simulate(study: _Study, site: str, *, seed: int) -> None:
    data, plan = study.hospitals / site, study.plan
    _call(
        "client",
        *("simulate", str(data / "bids"), "--site", site, "--seed", str(seed)),
        *("--children", str(plan.children[site]), "--controls", str(plan.controls)),
        *(
            ("--n-procs", str(_PROCESSES))
            if plan.from_scans
            else ("--connectomes", str(data / "derivatives"), "--truth", str(data / "truth.npz"))
        ),
    )


def _run(study: _Study) -> StudyResult:
    """Set a consortium up, run its study, and shut everything down."""
    port = free_port()
    health = ("--health-port", str(free_port()))
    logs = study.directory / "logs"
    with contextlib.ExitStack() as processes:
        with study.step("start", "Starting the centre and enrolling the sites"):
            _call("server", "init", str(study.centre), "--name", "127.0.0.1", "--name", "localhost")
            centre = processes.enter_context(
                _background(
                    "server",
                    "start",
                    str(study.centre),
                    "--port",
                    str(port),
                    *health,
                    log=logs / "centre.log",
                )
            )
            for site in study.plan.children:
                _initialise(study, site)
            if not centre.wait_until(
                lambda: any("ready" in line for line in centre.log_lines()), timeout_s=_START_S
            ):
                raise StudyError(f"the centre did not start: {centre.last_words()}")
            for site in study.plan.children:
                _enrol(study, site, port)
            _draft(study)
        if study.plan.from_scans:
            with study.step("prepare", "Preparing every child's connectome at its hospital"):
                for site in study.plan.children:
                    _prepare(study, site)
        with study.step("study", "Running the study"):
            for site in study.plan.children:
                _call("client", "approve", str(study.settings(site)), str(study.protocol))
                processes.enter_context(
                    _background("client", "join", str(study.settings(site)), log=logs / f"{site}.log")
                )
            arguments = (str(study.centre), str(study.protocol), "--out", str(study.directory / "run"))
            _call("server", "run", *arguments)
    return read_result(study.directory / "run" / "result.json")


def _initialise(study: _Study, site: str) -> None:
    data = study.hospitals / site
    _call(
        "client",
        *("init", str(study.settings(site).parent), "--site", site),
        *("--epsilon-cap", str(study.epsilon), "--delta", str(DELTA)),
        *("--dataset", str(data / "bids"), "--derivatives", str(data / "derivatives")),
        "--exact-sums" if study.noise == "none" or "--exact" in study.plan.analyses else "--no-exact-sums",
    )


def _with_references(study: _Study, result: StudyResult, *, seed: int) -> StudyResult:
    from esn_server.simulation.reference import with_references

    hospitals = {site: study.hospitals / site for site in study.plan.children}
    return with_references(result, load_protocol(study.protocol), hospitals, seed=seed)


def _prepare(study: _Study, site: str) -> None:
    data = study.hospitals / site
    _call(
        "client",
        *("prepare", str(data / "bids"), str(data / "derivatives"), "participant"),
        *("--protocol", str(study.protocol), "--n-procs", str(_PROCESSES), "--skip-pages"),
    )


def _enrol(study: _Study, site: str, port: int) -> None:
    """Exchange request and kit; the telephone calls are played."""
    settings = study.settings(site)
    request = settings.parent / "state" / "enrolment.toml"
    heard = read_request(request).fingerprint
    _call(
        "server",
        *("enrol", str(study.centre), str(request), "--fingerprint", heard),
        *("--public-address", f"127.0.0.1:{port}"),
    )
    kit = study.centre / "kits" / f"{site}.kit.toml"
    heard = read_toml(kit, SiteKit).fingerprint
    _call("client", "kit", str(settings), str(kit), "--fingerprint", heard)


def _draft(study: _Study) -> None:
    _call(
        "server",
        *("protocol", "new", str(study.centre), "--study", study.name, "--out", str(study.protocol)),
        *("--epsilon", str(study.epsilon), "--delta", str(DELTA), "--noise", study.noise, "--simulated"),
        *("--split-salt", study.plan.split_salt, "--training-rounds", str(TRAINING_ROUNDS)),
        *("--deadline-s", "120", "--atlas", study.plan.atlas, *study.plan.analyses),
        *(study.plan.exact_analyses if study.noise == "none" else ()),
    )
    _call("server", "protocol", "sign", str(study.centre), str(study.protocol))


def _program(side: Literal["client", "server"]) -> list[str]:
    return [sys.executable, "-m", f"esn_{side}.cli.main"]


def _call(side: Literal["client", "server"], *arguments: str) -> None:
    """Run a command to its end; its progress goes to our stderr."""
    # In a session of its own: an interrupt typed at the terminal is for us, and a command that is asked
    # to end ends its own workers in order.
    with subprocess.Popen(
        [*_program(side), *arguments], stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            status = process.wait()
        except BaseException:
            # Popen itself waits a quarter of a second for a child that was interrupted, and no longer.
            process.terminate()
            process.wait()
            raise
    if status != 0:
        raise StudyError(f"'esn-{side} {arguments[0]}' ended with exit status {status}")


def _background(side: Literal["client", "server"], *arguments: str, log: Path) -> ChildProcess:
    return ChildProcess([*_program(side), *arguments], log_file=log, environment={})


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / _MARKER).exists():
            raise ConfigError(f"{out} is not empty and was not made by a demo; choose another directory")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()
