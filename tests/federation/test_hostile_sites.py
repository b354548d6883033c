"""A site that answers wrongly is named, the study ends by the rule, and goes on after the cure."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from esn_core.errors import StudyError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

PROGRAM = Path(__file__).parent / "tiny_hospital.py"
SITES = ("north", "south", "west")
WRONG = {
    "not finite": "north: ",
    "another shape": "north: release",
    "another site": "north: answered as west",
    "stale": "north: answered as north to",
    "nonsense": "north: ",
    "nothing": r"north: no answer (QuestionLimitError)",
    "a gigabyte": "north: ",
}


@pytest.fixture(scope="module")
def hospitals(centre, tiny_hospitals, protocol_content):
    directory = centre.directory.parent / "study"
    protocol = {
        **protocol_content,
        "privacy": {**protocol_content["privacy"], "trust": "secure-sum"},
        "rounds": {"quorum": 3, "deadline_s": 120.0},
    }
    content = {"protocol": protocol, "studies": [what.replace(" ", "-") for what in WRONG]}
    with tiny_hospitals(centre, directory, {site: directory / site for site in SITES}, content):
        yield directory


@pytest.mark.parametrize(("what", "words"), WRONG.items(), ids=WRONG.keys())
def test_a_wrong_answer_names_its_site_and_the_study_goes_on_after_the_cure(hospitals, centre, what, words):
    study = what.replace(" ", "-")
    command = [sys.executable, PROGRAM, "study", hospitals, centre.directory, study]
    misbehaviour = hospitals / "north" / "misbehaviour"
    misbehaviour.write_text(what)
    try:
        start_s = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    finally:
        misbehaviour.unlink()
    assert ended.returncode == StudyError.exit_status, ended.stderr[-2000:]
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("StudyError: phase association, round 0: 2 of 3 sites answered"), line
    assert words in line
    assert "south:" not in line  # nobody else is blamed
    assert "west:" not in line
    assert "Traceback" not in ended.stderr
    again = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    print(f"{what}: {time.monotonic() - start_s:.0f} s")
