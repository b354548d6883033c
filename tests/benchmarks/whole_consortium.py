"""A whole consortium at full size, by the guides' commands: six hospitals, each with a HOME, over Flower.

    python tests/benchmarks/whole_consortium.py --seed 1 --out /tmp/whole [--severity-alone] [--subgroups]

Connectomes are simulated and written as derivatives; then the mark of that is taken away, so that everything
goes the way of real children: own controls, votes on candidates, review, approval, the private study with all
analyses, report. Prints r, sizes, wall time, processor time and the peak memory of a hospital.
"""

import argparse
import json
import os
import random
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from esn_core.identity.enrolment import SiteKit
from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.sites import read_request

SITES = ("north", "south", "west", "east", "coast", "hill")
CHILDREN, CONTROLS = (30, 55), (10, 25)
ANALYSES = (
    *("--cohort-summary", "--cross-site", "--folds", "5", "--random-scores", "1", "--explanation"),
    *("--network", "--exact", "network", "--neurocognition"),
)


@dataclass
class Step:
    """What one step took, all its processes together, but for those that stay."""

    name: str
    wall_s: float
    cpu_s: float


@dataclass
class Consortium:
    """Directories with a HOME each, and the commands of both sides."""

    root: Path
    seed: int
    atlas: str
    analyses: tuple[str, ...]
    stack: ExitStack
    port: int = field(default_factory=free_port)
    steps: list[Step] = field(default_factory=list)

    def call(self, who: str, program: str, *words: object) -> str:
        """Run a command in somebody's home; return what it printed."""
        home = self.root / who
        home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", f"esn_{program}.cli.main", *map(str, words)]
        done = subprocess.run(
            command, cwd=home, env=self._environment(home), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(
                f"{who}: {' '.join(command[2:])} ended with {done.returncode}\n{done.stderr[-3000:]}"
            )
        return done.stdout

    def stay(self, who: str, program: str, *words: object) -> ChildProcess:
        """Start a command that stays."""
        home = self.root / who
        command = shlex.join([sys.executable, "-m", f"esn_{program}.cli.main", *map(str, words)])
        return self.stack.enter_context(
            ChildProcess(
                ["/bin/bash", "-c", f"cd {shlex.quote(str(home))}; exec {command}"],
                log_file=home / f"{words[0]}.log",
                environment=self._environment(home),
            )
        )

    def step(self, name: str) -> "Timed":
        """Measure a step, as a context."""
        return Timed(self, name)

    def _environment(self, home: Path) -> dict[str, str]:
        return {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}


class Timed:
    """Wall time, and processor time of the children that ended meanwhile."""

    def __init__(self, consortium: Consortium, name: str) -> None:
        self._consortium, self._name = consortium, name

    def __enter__(self) -> None:
        self._began, self._used = time.monotonic(), _used()

    def __exit__(self, *_: object) -> None:
        step = Step(self._name, time.monotonic() - self._began, _used() - self._used)
        self._consortium.steps.append(step)
        print(f"{step.name}: {step.wall_s:.0f} s, {step.cpu_s:.0f} CPU s", file=sys.stderr, flush=True)


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_gb(process: ChildProcess) -> float:
    """Largest memory of a process that still runs, with the processes that it started, in GB."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        parents[int(facts["Pid"])] = (int(facts["PPid"]), int(facts.get("VmHWM", "0 kB").split()[0]))
    family = {process.pid}
    while more := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
        family |= more
    return sum(parents[pid][1] for pid in family if pid in parents) / 2**20


def found(consortium: Consortium) -> None:
    """Make the centre, start it, and enrol every hospital; the telephone is played."""
    consortium.call("centre-home", "server", "init", "centre", "--name", "127.0.0.1")
    centre = consortium.stay(
        *("centre-home", "server", "start", "centre"),
        *("--port", consortium.port, "--health-port", free_port()),
    )
    if not centre.wait_until(lambda: "ready" in " ".join(centre.log_lines()), timeout_s=300):
        raise SystemExit(f"the centre did not start: {centre.last_words()}")
    for site in SITES:
        places = ("--dataset", "bids", "--derivatives", "connectomes", "--control-sums", "--exact-sums")
        consortium.call(
            site, "client", "init", "site", "--site", site, "--epsilon-cap", 8, "--delta", 0.001, *places
        )
        request = consortium.root / site / "site" / "state" / "enrolment.toml"
        consortium.call(
            *("centre-home", "server", "enrol", "centre", request),
            *("--fingerprint", read_request(request).fingerprint),
            *("--public-address", f"127.0.0.1:{consortium.port}"),
        )
        kit = consortium.root / "centre-home" / "centre" / "kits" / f"{site}.kit.toml"
        heard = read_toml(kit, SiteKit).fingerprint
        consortium.call(site, "client", "kit", "site/site.toml", kit, "--fingerprint", heard)


def draft(consortium: Consortium, study: str, *words: object) -> Path:
    """Draft a protocol for a study."""
    consortium.call(
        *("centre-home", "server", "protocol", "new", "centre", "--study", study, "--out", f"{study}.toml"),
        *("--epsilon", 8, "--delta", 0.001, "--split-salt", f"whole-{consortium.seed}"),
        *("--atlas", consortium.atlas, "--deadline-s", 1200, *words),
    )
    return consortium.root / "centre-home" / f"{study}.toml"


def fill(consortium: Consortium, protocol: Path) -> dict[str, tuple[int, int]]:
    """Give every hospital its children and controls; nothing says afterwards that they are simulated."""
    rng = random.Random(consortium.seed)
    sizes = {site: (rng.randint(*CHILDREN), rng.randint(*CONTROLS)) for site in SITES}
    for number, (site, (children, controls)) in enumerate(sizes.items()):
        consortium.call(
            *(site, "client", "simulate", "bids", "--connectomes", "connectomes", "--protocol", protocol),
            *("--site", site, "--seed", 100 * consortium.seed + number, "--world-seed", consortium.seed),
            *("--children", children, "--controls", controls),
        )
        description = consortium.root / site / "bids" / "dataset_description.json"
        description.write_text(json.dumps({"Name": site, "BIDSVersion": "1.10.0"}))
    return sizes


def agree(consortium: Consortium, protocol: Path) -> None:
    """Sign a protocol; every hospital reviews it, approves it and checks."""
    consortium.call("centre-home", "server", "protocol", "validate", protocol)
    consortium.call("centre-home", "server", "protocol", "sign", "centre", protocol)
    for site in SITES:
        consortium.call(site, "client", "review", protocol, "--settings", "site/site.toml")
        consortium.call(site, "client", "approve", "site/site.toml", protocol)
        consortium.call(site, "client", "check", "site/site.toml")


def inside(consortium: Consortium, protocol: Path) -> dict[str, list[float]]:
    """Let every hospital see what its own held-out children say, which stays there: r of each model."""
    found: dict[str, list[float]] = {"consortium": [], "personal": [], "alone": []}
    for site in SITES:
        consortium.call(site, "client", "personal-model", "site/site.toml", protocol, "--out", "personal")
        said = json.loads((consortium.root / site / "personal" / "personal-model.json").read_text())
        for whose, r in found.items():
            r.append(round(said[whose]["r"], 3))
    return found


def measured(consortium: Consortium) -> dict[str, object]:
    """Go the whole way; return what was found and what it took."""
    with consortium.step("enrolment"):
        found(consortium)
    with consortium.step("children"):
        simulated = ("--simulated", "--candidates", "template")
        sizes = fill(consortium, draft(consortium, "recipe", *simulated, *consortium.analyses))
    with consortium.step("votes agreed"):
        votes = draft(consortium, "votes-1", "--no-simulated", "--votes")
        agree(consortium, votes)
    hospitals = [consortium.stay(site, "client", "join", "site/site.toml") for site in SITES]
    with consortium.step("votes"):
        consortium.call("centre-home", "server", "run", "centre", votes, "--out", "votes")
    candidates = consortium.root / "centre-home" / "votes" / "candidates.toml"
    with consortium.step("study agreed"):
        study = draft(
            consortium, "severity-1", "--no-simulated", "--candidates", candidates, *consortium.analyses
        )
        # The draft asks for 20 training children at each site; the smallest has 30, a third of them held out,
        # and six sites allow 60 draws from 14 on.
        text = study.read_text(encoding="utf-8")
        study.write_text(text.replace("minimum_children = 20", "minimum_children = 14"), encoding="utf-8")
        agree(consortium, study)
    with consortium.step("study"):
        consortium.call("centre-home", "server", "run", "centre", study, "--out", "severity-1")
    memory = [peak_gb(process) for process in hospitals]
    with consortium.step("personal models"):
        own = inside(consortium, study)
    result = json.loads((consortium.root / "centre-home" / "severity-1" / "result.json").read_text())
    return {
        "seed": consortium.seed,
        "atlas": consortium.atlas,
        "sizes": sizes,
        "candidates": result["severity_network"]["candidates"],
        # Of all noisy sums together; their plain quotient may be lost in the noise.
        "r": result["evaluation"]["estimates"]["r"]["value"],
        "r_interval": result["evaluation"]["estimates"]["r"]["interval"],
        "mae": result["evaluation"]["mae"],
        "r_inside_each_hospital": own,
        "absent": result["absent"],
        "epsilon": [result["privacy"][f"epsilon_{who}_child"] for who in ("training", "held_out")],
        "report_kb": (consortium.root / "centre-home" / "severity-1" / "report.html").stat().st_size // 1024,
        "hospital_peak_gb": round(max(memory), 2),
        "steps": [vars(step) for step in consortium.steps],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atlas", default="desikan-killiany-83")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--severity-alone", action="store_true", help="ask for no further analysis")
    parser.add_argument("--subgroups", action="store_true", help="ask for figures by sex and age as well")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True)
    with ExitStack() as stack:
        analyses = (*(() if asked.severity_alone else ANALYSES), *(["--subgroups"] * asked.subgroups))
        facts = measured(Consortium(asked.out.resolve(), asked.seed, asked.atlas, analyses, stack))
    print(json.dumps(facts, indent=2) if asked.json else "\n".join(f"{k}: {v}" for k, v in facts.items()))


if __name__ == "__main__":
    main()
