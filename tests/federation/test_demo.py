"""The demo's manners: it replaces only what it made, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from esn_core.errors import ConfigError
from esn_core.protocol.rules import CohortRules
from esn_server.simulation.demo import FROM_SCANS, FULL, run_demo

INTERRUPTED = 130


def of_directory(directory):
    running = psutil.process_iter(["cmdline"])
    return [p for p in running if str(directory) in " ".join(p.info["cmdline"] or [])]


def test_a_directory_that_no_demo_made_is_left_alone(tmp_path):
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not empty and was not made by a demo"):
        run_demo(tmp_path, FROM_SCANS, seed=1, epsilon=8.0)
    assert kept.read_text(encoding="utf-8") == "years of work"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(tmp_path, number):
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "esn_server.cli.main", "demo", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as demo:
        deadline = time.monotonic() + 60
        while not list(out.glob("hospitals/*/bids/sub-*")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(demo.pid, number)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == INTERRUPTED
    assert said.rstrip().endswith("esn-server: interrupted")
    assert of_directory(out) == []


def test_the_demos_salt_holds_out_a_third_of_each_site():
    rules = CohortRules(held_out_fraction=0.333, split_salt=FROM_SCANS.split_salt, minimum_children=5)
    for site, children in FROM_SCANS.children.items():
        labels = [f"sub-{i:03d}" for i in range(1, children + 1)]
        assert sum(rules.holds_out(label, site=site) for label in labels) == children // 3


def test_each_site_of_the_full_demo_holds_out_and_keeps_enough():
    rules = CohortRules(held_out_fraction=0.333, split_salt=FULL.split_salt, minimum_children=5)
    for site, children in FULL.children.items():
        held = sum(rules.holds_out(f"sub-{i:03d}", site=site) for i in range(1, children + 1))
        assert 10 <= held <= children - 20
