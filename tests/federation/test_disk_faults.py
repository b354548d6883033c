"""A disk that fills up under running processes: at a hospital, and at the centre."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from esn_core.errors import StudyError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

PROGRAM = Path(__file__).parent / "tiny_hospital.py"
SITES = ("north", "south", "west")
STUDY = "crowded"


class SmallDisk:
    """A file system of 24 MB that can be filled to the last page."""

    def __init__(self, place):
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("no file system can be mounted here: root may")
        self.place, self.filler = place, place / "filler"

    def fill(self):
        """Leave no room."""
        with self.filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        left = os.statvfs(self.place)
        assert left.f_bavail * left.f_bsize < 4096

    def free(self):
        """Make room again."""
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path):
    disk = SmallDisk(tmp_path / "small")
    yield disk
    subprocess.run(["umount", "-l", str(disk.place)], check=True)


@pytest.fixture(params=["a hospital", "the centre"])
def federation(request, disk, tmp_path, open_centre, tiny_hospitals, protocol_content):
    """Three hospitals and a centre, one of the four on the small disk; yields where the study is kept."""
    protocol = {
        **protocol_content,
        "privacy": {**protocol_content["privacy"], "trust": "secure-sum"},
        "rounds": {"quorum": 3, "deadline_s": 60.0},
    }
    centre_place = disk.place if request.param == "the centre" else tmp_path
    places = {site: tmp_path / site for site in SITES}
    if request.param == "a hospital":
        places["north"] = disk.place / "north"
    with (
        open_centre(centre_place / "centre") as centre,
        tiny_hospitals(
            centre, centre_place / "study", places, {"protocol": protocol, "studies": [STUDY]}
        ) as guards,
    ):
        yield request.param, centre, guards, centre_place / "study"


def steps(study):
    """How many questions the study has finished."""
    with contextlib.suppress(sqlite3.OperationalError), closing(sqlite3.connect(study)) as store:
        return store.execute("SELECT count(*) FROM steps").fetchone()[0]
    return 0


def test_a_full_disk_ends_the_study_in_words_and_it_goes_on_after_the_cure(federation, disk, tmp_path):
    where, centre, guards, directory = federation
    command = [sys.executable, PROGRAM, "study", directory, centre.directory, STUDY]
    log = tmp_path / "study.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as study:
        while steps(directory / f"{STUDY}.sqlite") < 2:
            assert study.poll() is None, log.read_text()[-3000:]
            time.sleep(0.05)
        disk.fill()
        status = study.wait(900)
    words = log.read_text()
    assert status == StudyError.exit_status, words[-3000:]
    assert "Traceback" not in words
    last = words.splitlines()[-1]
    print(last)
    if where == "a hospital":
        assert "2 of 3 sites answered" in last
        assert "north: " in last
    else:
        assert str(disk.place) in last
        assert not any(f"{site}: " in last for site in SITES)
    assert "sub-" not in words
    assert all(guard.running for guard in guards)
    done = steps(directory / f"{STUDY}.sqlite")
    disk.free()
    again = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert steps(directory / f"{STUDY}.sqlite") == 7 > done >= 2
