"""The demo's manners: it replaces only what it made, says little, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template, strengths_of_counts
from esn_core.errors import ConfigError, StudyError
from esn_core.protocol.protocol import load_protocol
from esn_core.protocol.rules import CohortRules
from esn_core.simulation.tracking import log_shares, tracking
from esn_server.report.result import read_result
from esn_server.simulation.demo import FULL, SHORT, run_demo

INTERRUPTED = 130

TINY = replace(
    SHORT,
    name="demo-tiny",
    children=dict.fromkeys(("north", "south", "west"), 15),
    controls=4,
    scans=1,
    held_out_fraction=0.45,
    # With this salt the hash holds out exactly 7 of the 15 children of each site.
    split_salt="tiny-53",
)


def of_directory(directory):
    running = psutil.process_iter(["cmdline"])
    return [p for p in running if str(directory) in " ".join(p.info["cmdline"] or [])]


def held_out(plan):
    rules = CohortRules(
        held_out_fraction=plan.held_out_fraction, split_salt=plan.split_salt, minimum_children=5
    )
    return {
        site: sum(rules.holds_out(f"sub-{i:03d}", site=site) for i in range(1, children + 1))
        for site, children in plan.children.items()
    }


def apart_in_sd(hospital):
    """How far the prepared scan's median edge lies from the line that the other children were drawn about."""
    upper = tuple(load_atlas(SHORT.atlas).edges.T)
    (matrix,) = hospital.glob("derivatives/sub-001/dwi/*meas-count_relmat.dense.tsv")
    found = strengths_of_counts(np.loadtxt(matrix)[upper])
    with np.load(hospital / "truth.npz") as truth:
        shares = log_shares(truth["log_weights"][0])
    measured, present = tracking(hospital.name), load_template(SHORT.atlas, simulated=True).present
    line = measured.strength + measured.slope * (shares - measured.log_share)
    seen = present & (measured.sd > 0)
    return np.median(np.abs(found - line)[seen] / measured.sd[seen])


def test_a_directory_that_no_demo_made_is_left_alone(tmp_path):
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not empty and was not made by a demo"):
        run_demo(tmp_path, SHORT, seed=1, epsilon=8.0)
    assert kept.read_text(encoding="utf-8") == "years of work"


@pytest.mark.long
def test_a_demo_prepares_its_scans_runs_both_studies_and_says_so_in_few_lines(tmp_path, capfd):
    shown = run_demo(tmp_path / "demo", TINY, seed=1, epsilon=8.0)
    out, said = capfd.readouterr()
    assert out == ""
    lines = said.splitlines()
    assert all(len(line) <= 80 for line in lines)
    # Simulate, start, prepare, study; a line for what follows; start, study; each hospital alone.
    assert len(lines) == 8
    assert "fingerprint" not in said
    assert "telephone" not in said
    for site, people in TINY.children.items():
        counts = (tmp_path / "demo" / "hospitals" / site / "derivatives").glob(
            "sub-*/dwi/*meas-count_relmat.json"
        )
        records = {path.parts[-3]: json.loads(path.read_text(encoding="utf-8")) for path in counts}
        assert len(records) == people + TINY.controls
        # The scanned child's connectome names its scan; the others say that there is none.
        assert [label for label, record in sorted(records.items()) if record["Sources"]] == ["sub-001"]
        assert all("Origin" in record for label, record in records.items() if label != "sub-001")
    # Half of normal numbers lie within .67 sd. On 32 scans of another world: .73 on average (sd .2); 1.3 for
    # counts drawn straight from the bundles, 1.6 for another child's.
    assert np.mean([apart_in_sd(tmp_path / "demo" / "hospitals" / site) for site in TINY.children]) < 1
    written = read_result(tmp_path / "demo" / "result.json")
    assert written == shown.private
    assert [site.name for site in written.sites] == sorted(TINY.children)
    assert [alone.site for alone in written.local_only.by_site] == list(TINY.children)
    assert written.privacy.noise == "gaussian"
    assert read_result(tmp_path / "demo" / "no-noise" / "result.json").privacy.noise == "none"
    assert of_directory(tmp_path / "demo") == []
    # On a busy machine a site takes minutes to start: nobody may be missed for it.
    assert load_protocol(tmp_path / "demo" / "protocol.toml").rounds.deadline_s >= 600
    found, cost, to_open = shown.in_three_lines
    assert found.startswith("found  predicted severity: r ")
    assert f"one site alone {written.local_only.mean_r:.2f}".replace("-", "−") in found
    assert "ε 8.00 for a child (δ 0.001); without noise r " in cost
    assert to_open == f"open   {tmp_path / 'demo' / 'report.html'}"
    assert max(len(found), len(cost)) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
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
    assert said.rstrip().endswith("\nesn-server: interrupted")
    assert of_directory(out) == []


def test_a_command_that_fails_is_quoted_and_its_log_named(tmp_path):
    few = replace(TINY, children={"north": 10, "nowhere": 2}, scans=3)
    words = (
        r"'esn-client simulate' ended with exit status 10: esn-client: .*of 2 children from 1 to 2 can have "
        r"scans, not 3; see .*/002-esn-client-simulate.log"
    )
    with pytest.raises(StudyError, match=words):
        run_demo(tmp_path / "demo", few, seed=1, epsilon=8.0)
    assert of_directory(tmp_path / "demo") == []


def test_each_site_of_a_demo_holds_out_and_keeps_enough():
    assert sum(held_out(SHORT).values()) == 160
    assert all(31 <= held <= 33 for held in held_out(SHORT).values())
    assert set(held_out(TINY).values()) == {7}
    for site, held in held_out(FULL).items():
        assert 10 <= held <= FULL.children[site] - 20
