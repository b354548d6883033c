"""Studies of one centre run one after the other, in the order in which they came."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from esn_core.errors import ConfigError
from esn_server.run.queue import place_in_queue, queue


def holding(centre, study):
    """A process that takes its turn and keeps it until it is ended."""
    source = f"""
        import sys, time
        from pathlib import Path
        from esn_server.run.queue import place_in_queue
        with place_in_queue(Path({str(centre)!r}), study={study!r}, run_directory=Path("x"), behind=print):
            print("running", flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    return process


def wait_until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_three_studies_run_in_the_order_in_which_they_came(tmp_path):
    order, said = [], {}
    go = threading.Event()

    def study(name):
        with place_in_queue(
            tmp_path, study=name, run_directory=tmp_path / name, behind=said.setdefault(name, []).append
        ):
            go.wait(240)
            order.append(name)

    threads = []
    for name in ("first", "second", "third"):
        threads.append(threading.Thread(target=study, args=(name,)))
        threads[-1].start()
        wait_until(lambda name=name: name in [t.study for t in queue(tmp_path)])
    wait_until(lambda: said["second"] and said["third"])
    assert [t.run_directory for t in queue(tmp_path)] == [
        str(tmp_path / n) for n in ("first", "second", "third")
    ]
    go.set()
    for thread in threads:
        thread.join(240)
    assert order == ["first", "second", "third"]
    assert said["first"] == []
    assert said["second"] == [("first",)]
    assert said["third"][0] == ("first", "second")
    assert queue(tmp_path) == ()


def test_a_killed_study_loses_its_place(tmp_path):
    process = holding(tmp_path, "killed")
    assert [t.study for t in queue(tmp_path)] == ["killed"]
    assert queue(tmp_path)[0].process == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    waited = []
    with place_in_queue(tmp_path, study="next", run_directory=tmp_path, behind=waited.append):
        assert [t.study for t in queue(tmp_path)] == ["next"]
    assert waited == []


def test_a_queue_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "queue").write_text("a file")
    with (
        pytest.raises(ConfigError, match="the queue of studies cannot be used"),
        place_in_queue(tmp_path, study="s", run_directory=tmp_path, behind=print),
    ):
        pass
