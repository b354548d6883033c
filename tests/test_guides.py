"""The guides, tried as new users would: their commands as they stand, and only the files that they exchange.

A coordinator, three hospitals and one that took no part, each with a directory and a HOME of its own; the
last one on a machine that was installed from the wheelhouse and reaches no network. What is not in the guides
is simulated beforehand: the children, and who reads a fingerprint to whom by telephone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITES = ("north", "south", "west")

# These children are fewer than a study's, so that the noise that epsilon 8 asks for would leave too little to
# release a model; this port is not everybody's, and a few rounds are enough to see it.
CHANGES = {
    "centre.example.org": "127.0.0.1",
    '"agreed by all sites"': "test-119",
    "--epsilon 8 ": "--epsilon 20 ",
    "--epsilon-cap 8 ": "--epsilon-cap 20 ",
    "--simulated": (
        "--simulated --held-out-fraction 0.5 --training-rounds 2 --random-scores 1 --deadline-s 300"
    ),
}


# The guide's commands reach the SuperLink at its usual port.
def blocks(guide, *sections):
    """The command blocks of some sections of a guide, in order."""
    text = (DOCS / guide).read_text(encoding="utf-8")
    found = []
    for section in sections:
        part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        found += re.findall(r"^ *```bash\n(.*?)^ *```", part, flags=re.DOTALL | re.MULTILINE)
    return found


class User:
    """Somebody with a machine: a directory, a HOME, and a shell."""

    def __init__(self, name, directory, port, stack, *, programs=None):
        self.name, self._offline = name, programs is not None
        self.home = directory / name
        self.home.mkdir()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "PORT": str(port),
            "OMP_NUM_THREADS": "1",
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
        }
        if programs is not None:
            self.environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(self.home), "PORT": "0"}
        self._stack = stack

    def follow(self, block):
        """Run a block as it stands in the guide; return what was printed for people."""
        text = block.replace("north", self.name if self.name in SITES else "north")
        for guide, here in CHANGES.items():
            text = text.replace(guide, here)
        text = text.replace("9092", self.environment["PORT"])
        text = text.replace("esn-server start", f"esn-server start --health-port {free_port()}")
        if text.rstrip().endswith("&"):
            words = f"cd {self.home}; exec {text.strip().removesuffix('&')}"
            command = [str(shutil.which("bash")), "-c", words]
            return self._stack.enter_context(
                ChildProcess(command, log_file=self.home / "background.log", environment=self.environment)
            )
        alone = ["unshare", "--map-root-user", "--net"] if self._offline and CAN_UNSHARE else []
        done = subprocess.run(
            [*alone, "bash", "-euc", text],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def give(self, path, other, name):
        """Send a file that the guide says to send."""
        shutil.copy(self.home / path, other.home / name)


CAN_UNSHARE = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True).returncode == 0
)


@pytest.fixture
def offline_programs(tmp_path):
    """The commands of a machine that was installed from the wheelhouse, with the index switched off."""
    house, machine = tmp_path / "house", tmp_path / "machine"
    maker = [sys.executable, ROOT / "deploy" / "wheelhouse" / "make.py", "--out", house]
    subprocess.run(maker, check=True)
    bare = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [house / "install-offline", machine, "client,server", sys.executable],
        capture_output=True,
        text=True,
        env=bare,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(house)
    return machine / "bin"


def read_out(words):
    """The fingerprint that a command printed for the telephone."""
    return re.search(r"read out:\n\s+(.+)", words)[1].strip()


def lower_minimum(path):
    text = path.read_text(encoding="utf-8")
    assert "minimum_children = 5" in text
    path.write_text(text.replace("minimum_children = 5", "minimum_children = 3"), encoding="utf-8")


def test_from_nothing_to_a_report_and_to_a_child_whom_the_study_never_saw(tmp_path, offline_programs):
    for_centre = blocks("centre-guide.md", "Before the first study", "A study", "After the study")
    for_site = blocks("site-guide.md", "Once", "For each study", "After the study", "Predicting a child")
    init, start, enrol, draft, judge, sign, run, status, report, verify, propose, release = for_centre
    site_init, kit, review, prepare, quality, approve, check, join, afterwards, *after = for_site
    attack, countersign, predict = after
    with ExitStack() as stack, ThreadPoolExecutor(2) as two:
        port = free_port()
        centre = User("centre-home", tmp_path, port, stack)
        sites = [User(name, tmp_path, port, stack) for name in SITES]
        simulate = (
            "esn-client simulate bids --site north --seed 7 --children 70 --controls 10 "
            "--scans 1 --connectomes connectomes"
        )
        list(two.map(lambda site: site.follow(simulate), sites))

        centre.follow(init)
        serving = centre.follow(start)
        assert serving.wait_until(lambda: "ready" in " ".join(serving.log_lines()), timeout_s=300)
        for site in sites:
            heard = read_out(site.follow(site_init))
            site.give("site/state/enrolment.toml", centre, f"{site.name}.enrolment.toml")
            centre.environment["HEARD_FROM_NORTH"] = heard
            said = centre.follow(enrol.replace("north", site.name))
            site.environment["HEARD_FROM_CENTRE"] = read_out(said)
            centre.give(f"centre/kits/{site.name}.kit.toml", site, f"{site.name}.kit.toml")
            site.follow(kit)
            lower_minimum(site.home / "site" / "site.toml")

        centre.follow(draft)
        lower_minimum(centre.home / "severity-1.toml")
        centre.follow(judge)
        centre.follow(sign)
        for site in sites:
            centre.give("severity-1.toml", site, "severity-1.toml")
            assert "Study severity-1" in site.follow(review)
        list(two.map(lambda site: site.follow(prepare), sites))
        for site in sites:
            site.follow(quality)
            site.follow(approve)
            assert "FAIL" not in site.follow(check)
            site.follow(join)

        centre.follow(run)
        assert "finished" in centre.follow(status)
        centre.follow(report)
        assert (centre.home / "report.html").exists()
        for site in sites:
            site.follow(afterwards)
            site.give(f"{site.name}.audit.jsonl", centre, f"{site.name}.audit.jsonl")
            said = centre.follow(verify.replace("north", site.name))
            assert re.search(rf"{site.name}: \d+ questions and \d+ answers agree", said)

        centre.follow(propose)
        for site in sites:
            centre.give("severity-1.proposal.esn", site, "severity-1.proposal.esn")
        list(two.map(lambda site: site.follow(attack), sites))
        for site in sites:
            site.follow(countersign)
            site.give(f"{site.name}.countersignature.json", centre, f"{site.name}.countersignature.json")
        published = centre.follow(release)

        clinic = User("quince", tmp_path, port, stack, programs=offline_programs)
        clinic.environment["PUBLISHED"] = re.search(r"fingerprint beside it:\n\s+(.+)", published)[1].strip()
        clinic.follow(simulate.replace("north", "quince").replace("children 70", "children 3"))
        centre.give("severity-1.esn", clinic, "severity-1.esn")
        assert "Research use only" in clinic.follow(predict)
        (page,) = (clinic.home / "predictions").glob("*.html")
        found = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        assert (found["controls"], page.name) == (10, "sub-001_prediction.html")
