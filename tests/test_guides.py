"""The guides, tried as new users would: their commands as they stand, and only the files that they exchange.

A coordinator and three hospitals, each with a directory and a HOME of its own. What is not in the
guides is simulated beforehand: the children, and who reads a fingerprint to whom by telephone.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

DOCS = Path(__file__).parents[1] / "docs"
SITES = ("north", "south", "west")

# These children are fewer than a study's, this port is not everybody's, and one round is enough to see it.
CHANGES = {
    "centre.example.org": "127.0.0.1",
    '"agreed by all sites"': "test-119",
    "--simulated": "--simulated --training-rounds 1 --deadline-s 300",
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

    def __init__(self, name, directory, port, stack):
        self.name = name
        self.home = directory / name
        self.home.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PORT": str(port),
            "OMP_NUM_THREADS": "1",
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
        }
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
        done = subprocess.run(
            ["bash", "-euc", text],
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


def read_out(words):
    """The fingerprint that a command printed for the telephone."""
    return re.search(r"read out:\n\s+(.+)", words)[1].strip()


def lower_minimum(path):
    text = path.read_text(encoding="utf-8")
    assert "minimum_children = 5" in text
    path.write_text(text.replace("minimum_children = 5", "minimum_children = 3"), encoding="utf-8")


def test_a_coordinator_and_three_hospitals_get_from_nothing_to_a_report(tmp_path):
    for_centre = blocks("centre-guide.md", "Before the first study", "A study")
    for_site = blocks("site-guide.md", "Once", "For each study")
    init, start, enrol, draft, judge, sign, run, status, report, verify = for_centre
    site_init, kit, review, prepare, quality, approve, check, join, afterwards = for_site
    with ExitStack() as stack, ThreadPoolExecutor(2) as two:
        port = free_port()
        centre = User("centre-home", tmp_path, port, stack)
        sites = [User(name, tmp_path, port, stack) for name in SITES]
        simulate = (
            "esn-client simulate bids --site north --seed 7 --children 10 --controls 3 "
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
