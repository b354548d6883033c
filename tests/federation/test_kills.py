"""Whatever is killed, and when: a study ends with the same sums, and no child pays twice.

Every process of a centre and three hospitals is ended by SIGKILL at random
instants. What a service manager restarts in production (a guard, the study) is
restarted here; all else has to come back by itself.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from esn_client.gate.ledger import Ledger
from esn_client.site.keys import create_node_key

PROGRAM = Path(__file__).parent / "tiny_hospital.py"
GUARD = Path(__file__).parent / "tiny_guard.py"
SITES = ("north", "south", "west")
SEED = int(os.environ.get("ESN_FAULT_SEED", "20261125"))
STUDIES = [f"study-{number}" for number in range(80)]
COMMANDS = {
    "the front": "esn_server.front.server",
    "the SuperLink": "flower_superlink",
    "a guard": "tiny_guard.py",
    "an executor": "tiny_hospital.py answer",
    "a SuperNode": "flower-supernode",
    "the study": "tiny_hospital.py study",
}
# A SuperNode that vanished is let in again after its lease of 60 to 90 s: those kills cost the most time.
LEASED = ("a guard", "a SuperNode")
SHARES, KILLS_OF_A_SHARE = 4, 15


class Kept(threading.Thread):
    """Starts a program again whenever it ends, as a service manager does."""

    def __init__(self, command, log):
        super().__init__()
        self.command, self.log, self.over = command, log, threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            with self.log.open("a") as log, subprocess.Popen(self.command, stdout=log, stderr=log) as process:
                while process.poll() is None and not self.over.wait(0.1):
                    pass
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
            self.over.wait(0.5)


def sums_of(path):
    """The bytes of every finished step, by phase and round."""
    with closing(sqlite3.connect(path)) as store:
        rows = store.execute("SELECT question, sites, total FROM steps").fetchall()
    return {tuple(question.split("/")[2:]): (sites, total) for question, sites, total in rows}


def processes(directory, what):
    """The processes of one kind that belong to this test."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if COMMANDS[what] in words and str(directory) in words and "DIE_WITH" not in words:
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def every_process_is_waited_for():
    """By the end of the module: a guard that was killed runs again after its test."""


@pytest.fixture(scope="module")
def centre(tmp_path_factory, open_centre):
    """A centre of our own: nobody else's is killed."""
    with open_centre(tmp_path_factory.mktemp("killed") / "centre") as centre:
        yield centre


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, protocol_content):
    directory = tmp_path_factory.mktemp("undisturbed")
    content = {"protocol": protocol_of(protocol_content), "studies": STUDIES}
    (directory / "content.json").write_text(json.dumps(content, default=str))
    subprocess.run([sys.executable, PROGRAM, "alone", directory, STUDIES[0]], check=True, timeout=600)
    return sums_of(directory / f"{STUDIES[0]}.sqlite")


def protocol_of(content):
    privacy = {**content["privacy"], "trust": "secure-sum"}
    return {**content, "privacy": privacy, "rounds": {"quorum": 3, "deadline_s": 400.0}}


@pytest.fixture(scope="module")
def hospitals(centre, let_in, tmp_path_factory, protocol_content):
    """Three hospitals that are kept running; returns where their studies and ledgers are."""
    directory = centre.directory.parent / "study"
    directory.mkdir()
    content = {"protocol": protocol_of(protocol_content), "studies": STUDIES, "nodes": {}}
    kept = []
    with ExitStack() as stack:
        for site in SITES:
            create_node_key(directory / site / "node_key")
            content["nodes"][site] = let_in(centre, directory / site)
        for path in (directory, *(directory / site for site in SITES)):
            (path / "content.json").write_text(json.dumps(content, default=str))
        try:
            for site in SITES:
                own = directory / site
                command = [sys.executable, GUARD, own, site, centre.public, centre.ca_certificate]
                kept.append(Kept(command, own / "join.log"))
                stack.callback(kept[-1].join)
            yield directory
        finally:
            for thread in kept:
                thread.over.set()


def finish(hospitals, centre, study, rng, victims, *, within_s):
    """Run a study to its end, killing victims at random instants; return who was killed."""
    command = [sys.executable, PROGRAM, "study", hospitals, centre.directory, study]
    killed, queue, deadline_s = [], list(victims), time.monotonic() + within_s
    log_file = hospitals / f"{study}.log"
    next_kill_s = time.monotonic() + rng.uniform(2.0, 5.0)
    while True:
        with log_file.open("a") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            while process.poll() is None:
                if time.monotonic() > deadline_s:
                    process.kill()
                    pytest.fail(f"{study} did not end; killed {killed}; {log_file.read_text()[-3000:]}")
                if queue and time.monotonic() > next_kill_s:
                    candidates = processes(centre.directory.parent, queue[0])
                    if candidates:
                        rng.choice(candidates).kill()
                        killed.append(queue.pop(0))
                    next_kill_s = time.monotonic() + rng.uniform(0.3, 4.0)
                time.sleep(0.02)
        if process.returncode == 0:
            return killed


def check(hospitals, study, undisturbed):
    assert sums_of(hospitals / f"{study}.sqlite") == undisturbed
    for site in SITES:
        with Ledger(hospitals / site / "ledger.sqlite", identity_of(site)) as ledger:
            questions = [entry.charge.question for entry in ledger.entries()]
            ledger.verify()
        assert len(questions) == len(set(questions))
        assert len(questions) % len(undisturbed) == 0


def identity_of(site):
    import hashlib

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = hashlib.sha256(f"identity of {site}, for tests".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(secret).public_key()


class Kills:
    """A share of sixty kills, in its own federation: every kind of process once, the quick ones again."""

    share: int

    def test_kills_of_everything_change_no_sum_and_charge_nothing_twice(self, hospitals, centre, undisturbed):
        print(f"seed {SEED} (set ESN_FAULT_SEED)")
        assert len(undisturbed) == 7
        rng = random.Random(f"{SEED} {self.share}")
        quick = [kind for kind in COMMANDS if kind not in LEASED]
        victims = [*COMMANDS, *rng.choices(quick, k=KILLS_OF_A_SHARE - len(COMMANDS))]
        rng.shuffle(victims)
        killed, studies = [], iter(STUDIES[self.share :: SHARES])
        while len(killed) < KILLS_OF_A_SHARE:
            study = next(studies)
            killed += finish(hospitals, centre, study, rng, victims[len(killed) :][:5], within_s=1500)
            check(hospitals, study, undisturbed)
            print(f"{study} ended; {len(killed)} kills", flush=True)
        assert killed == victims


@pytest.mark.faults
@pytest.mark.timeout(3600)
class TestFirstShare(Kills):
    share = 0


@pytest.mark.faults
@pytest.mark.timeout(3600)
class TestSecondShare(Kills):
    share = 1


@pytest.mark.faults
@pytest.mark.timeout(3600)
class TestThirdShare(Kills):
    share = 2


@pytest.mark.faults
@pytest.mark.timeout(3600)
class TestFourthShare(Kills):
    share = 3
