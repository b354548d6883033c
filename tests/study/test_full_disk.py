"""A full disk, at the sites or at the centre: clear words, nothing half-written, the study after the cure."""

import os
import subprocess

import numpy as np
import pytest

from esn_core.errors import StudyError
from esn_server.run.checkpoints import Checkpoints
from esn_server.study.observer import Unobserved
from esn_server.study.study import run_study


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes, with a function that fills it and one that frees it again."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3500k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here: root may")
    filler = place / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        free = os.statvfs(place)
        assert free.f_bavail * free.f_bsize < 4096

    yield place, fill, lambda: filler.unlink(missing_ok=True)
    subprocess.run(["umount", "-l", str(place)], check=True)


def run(consortium, before=lambda _phase: None):
    class Watch(Unobserved):
        def began(self, phase, round_, _rounds):
            if round_ == 0:
                before(phase)

    return run_study(
        consortium.signed,
        run=consortium.store.run,
        asking=Checkpoints(consortium.store, consortium.rounds),
        rng=np.random.default_rng(0),
        observer=Watch(),
    )


@pytest.mark.parametrize("whose", ["sites", "centre"])
def test_a_full_disk_ends_the_study_in_words_and_the_study_goes_on_after_the_cure(
    make_consortium, small_disk, whose
):
    place, fill, free = small_disk
    consortium = make_consortium(disks={whose: place})
    with pytest.raises(StudyError) as said:
        run(consortium, before=lambda phase: fill() if phase == "gradient" else None)
    words = str(said.value)
    assert "phase gradient" in words or "the run's store cannot be used" in words, words
    assert "sub-" not in words
    charged = {site: len(ledger.entries()) for site, ledger in consortium.ledgers.items()}
    for ledger in consortium.ledgers.values():
        ledger.verify()
    free()
    findings = run(consortium)
    assert findings.agreement.children > 0
    for site, ledger in consortium.ledgers.items():
        # Three phases before, three rounds, calibration and evaluation: each once.
        assert len({entry.charge.question for entry in ledger.entries()}) == len(ledger.entries()) == 7
        assert len(ledger.entries()) > charged[site]
        ledger.verify()
