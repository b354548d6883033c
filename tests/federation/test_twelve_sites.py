"""Twelve hospitals on one machine, three studies in the queue, and what a hospital that waits holds."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

PROGRAM = Path(__file__).parent / "tiny_hospital.py"
SITES = [f"site{number:02d}" for number in range(1, 13)]
STUDIES = ["first", "second", "third"]
MOST_MB = 350
IDLE_S = 20.0


def memory_mb(guard):
    """What a site's processes hold: each page divided by the number of processes that share it."""
    family = [guard, *guard.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 1e6


@pytest.fixture
def guards(centre, tiny_hospitals, protocol_content, roster_of, tmp_path):
    """Twelve running hospitals: where their studies are kept, and their guards."""
    directory = tmp_path / "study"
    protocol = {
        **protocol_content,
        "roster": roster_of(SITES)[0],
        "privacy": {**protocol_content["privacy"], "trust": "secure-sum"},
        "rounds": {"quorum": len(SITES), "deadline_s": 900.0},
    }
    content = {"protocol": protocol, "studies": STUDIES, "idle_s": IDLE_S}
    with tiny_hospitals(centre, directory, {site: directory / site for site in SITES}, content) as started:
        yield directory, [psutil.Process(process.pid) for process in started]


def test_twelve_hospitals_finish_three_queued_studies_and_hold_little_while_they_wait(centre, guards):
    directory, processes = guards
    start_s = time.monotonic()
    with ExitStack() as stack:
        studies = []
        for name in STUDIES:
            command = [sys.executable, PROGRAM, "study", directory, centre.directory, name]
            log = stack.enter_context((directory / f"{name}.log").open("w"))
            studies.append(stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log)))
        for name, process in zip(STUDIES, studies, strict=True):
            assert process.wait(1800) == 0, (directory / f"{name}.log").read_text()[-3000:]
    print(f"three studies of twelve sites: {time.monotonic() - start_s:.0f} s")
    busy = max(map(memory_mb, processes))
    for name in STUDIES:
        with closing(sqlite3.connect(directory / f"{name}.sqlite")) as store:
            answered = [json.loads(sites) for (sites,) in store.execute("SELECT sites FROM steps")]
        assert len(answered) == 7
        assert all(sites == SITES for sites in answered)
    time.sleep(2 * IDLE_S)
    waiting = max(map(memory_mb, processes))
    print(f"MB of a site, the largest of twelve: {busy:.0f} after a study, {waiting:.0f} while it waits")
    assert waiting < MOST_MB
