"""A site that answers wrongly is named, the study ends by the rule, and goes on after the cure."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from esn_core.errors import StudyError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2700)]

PROGRAM = Path(__file__).parent / "tiny_hospital.py"
SITES = ("north", "south", "west")
WRONG = {
    "not finite": "north: ",
    "another shape": "north: release",
    "another site": "north: answered as west",
    "stale": "north: answered to",
    "nonsense": "north: ",
    "nothing": r"north: no answer (QuestionLimitError)",
}
GIGABYTE = "a gigabyte"


@pytest.fixture(scope="module")
def hospitals(centre, tiny_hospitals, protocol_content, tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    protocol = {
        **protocol_content,
        "privacy": {**protocol_content["privacy"], "trust": "secure-sum"},
        "rounds": {"quorum": 3, "deadline_s": 60.0},
    }
    content = {"protocol": protocol, "studies": [what.replace(" ", "-") for what in (*WRONG, GIGABYTE)]}
    places = {site: directory / site for site in SITES}
    with tiny_hospitals(centre, directory, places, content) as guards:
        yield directory, guards[0]


def line_of_the_failed_study(hospitals, centre, what):
    """Run a study while north answers wrongly; return the last words."""
    misbehaviour = hospitals / "north" / "misbehaviour"
    misbehaviour.write_text(what)
    try:
        ended = subprocess.run(
            command(hospitals, centre, what), capture_output=True, text=True, timeout=1200, check=False
        )
    finally:
        misbehaviour.unlink()
    assert ended.returncode == StudyError.exit_status, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("StudyError: phase association, round 0: 2 of 3 sites answered"), line
    assert "south:" not in line  # nobody else is blamed
    assert "west:" not in line
    return line


def command(hospitals, centre, what):
    return [sys.executable, PROGRAM, "study", hospitals, centre.directory, what.replace(" ", "-")]


def finish(hospitals, centre, what):
    again = subprocess.run(
        command(hospitals, centre, what), capture_output=True, text=True, timeout=1200, check=False
    )
    assert again.returncode == 0, again.stderr[-2000:]


@pytest.mark.parametrize(("what", "words"), WRONG.items(), ids=WRONG.keys())
def test_a_wrong_answer_names_its_site_and_the_study_goes_on_after_the_cure(hospitals, centre, what, words):
    directory, _ = hospitals
    assert words in line_of_the_failed_study(directory, centre, what)
    finish(directory, centre, what)


def test_a_gigabyte_is_never_whole_and_the_study_goes_on_with_a_new_process(hospitals, centre, tiny_guard):
    """The front lets two megabytes a second of one site through: what is too much is late as well."""
    directory, north = hospitals
    line = line_of_the_failed_study(directory, centre, GIGABYTE)
    assert "north: no answer" in line
    for process in psutil.Process(centre.process.pid).children(recursive=True):
        assert process.memory_info().rss < 600 * 2**20, process.cmdline()
    north.stop()
    with tiny_guard(centre, "north", directory / "north"):
        finish(directory, centre, GIGABYTE)
