"""What a run does is written where anybody may read it, and disturbs nobody."""

import datetime

import numpy as np
import pytest

from esn_core.errors import ConfigError
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import QuestionId
from esn_core.protocol.protocol import Protocol
from esn_server.run import progress
from esn_server.run.progress import ProgressFile, read_progress
from esn_server.study.question_progress import QuestionAtSite, QuestionProgress
from esn_server.study.study import run_study

MARK = LedgerMark(entries=0, head="0" * 64)


def facts(ahead_s):
    return SiteFacts(
        software={"esn-federated": "0.1.0"},
        recipe_sha256="1" * 64,
        atlas_sha256="2" * 64,
        template_sha256="3" * 64,
        cohort_band="8-15",
        ledger=MARK,
        ledger_seen=MARK,
        said_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead_s),
    )


def question(phase="centre", *, step="answers", **sites):
    number = QuestionId(protocol_sha256="a" * 64, run="r1", phase=phase, round=0, attempt=0)
    said = {
        name: QuestionAtSite(
            state=state,
            tries=1,
            asked_at=97.0,
            answered_at=100.0 if state == "answered" else None,
            error=error,
            facts=about,
        )
        for name, (state, error, about) in sites.items()
    }
    return QuestionProgress(number, step, said, began_at=95.0, now=100.0, until=160.0)


@pytest.fixture
def protocol(protocol_content):
    return Protocol.model_validate(protocol_content)


@pytest.fixture
def file(tmp_path, protocol):
    return ProgressFile(tmp_path / "progress.json", protocol=protocol)


def read(tmp_path):
    return read_progress(tmp_path / "progress.json")


def test_the_question_at_hand_is_told_with_who_is_waited_for(file, tmp_path):
    file.began("gradient", 2, 8)
    file.progressed(
        question(
            north=("answered", None, None),
            south=("asked", None, None),
            west=("lost", "no answer (SiteCrashed)", None),
        )
    )
    found = read(tmp_path)
    assert (found.state, found.phase, found.round, found.rounds) == ("running", "gradient", 2, 8)
    assert found.waiting_for == ("south", "west")
    assert found.sites["west"].error == "no answer (SiteCrashed)"
    left = found.deadline_at - datetime.datetime.now(datetime.UTC)
    assert 30 <= left.total_seconds() <= 65  # sixty seconds after the first look


def test_a_finished_step_is_kept_with_its_time_and_the_loss_with_its_round(file, tmp_path):
    file.began("gradient", 0, 2)
    file.progressed(question(north=("answered", None, None), south=("answered", None, None)))
    file.learned(0, 0.5)
    file.began("gradient", 1, 2)
    file.progressed(question(north=("answered", None, None)))
    file.learned(1, 0.25)
    file.ended(None)
    found = read(tmp_path)
    assert [(s.phase, s.round, s.sites) for s in found.steps] == [("gradient", 0, 2), ("gradient", 1, 1)]
    assert (found.learning_curve, found.state, found.waiting_for) == ((0.5, 0.25), "finished", ())


def test_a_resumed_run_keeps_the_times_of_the_steps_before(file, tmp_path, protocol):
    file.began("centre", 0, 1)
    file.progressed(question(north=("answered", None, None)))
    file.began("association", 0, 1)
    (before,) = read(tmp_path).steps
    again = ProgressFile(tmp_path / "progress.json", protocol=protocol)
    again.began("centre", 0, 1)  # from the store: nobody is asked
    again.began("association", 0, 1)
    assert read(tmp_path).steps == (before,)


def test_the_clock_of_a_site_is_bracketed_by_question_and_answer(file, tmp_path):
    file.began("roll-call", 0, 1)
    file.progressed(
        question(
            "roll-call",
            north=("answered", None, facts(ahead_s=0)),
            south=("answered", None, facts(ahead_s=600)),
            west=("refused", "refused (ProtocolError)", None),
        )
    )
    said = read(tmp_path).roll_call
    low, high = said["north"].clock_offset_s
    assert (low, high) == pytest.approx((0, 3), abs=0.5)  # three seconds under way
    assert said["south"].clock_offset_s == pytest.approx((600, 603), abs=0.5)
    assert (said["north"].approved, said["west"].approved) == (True, False)
    assert said["west"].error == "refused (ProtocolError)"


@pytest.mark.parametrize(
    ("error", "state"),
    [(ValueError("x"), "failed"), (KeyboardInterrupt(), "interrupted"), (None, "finished")],
)
def test_the_end_is_told(file, tmp_path, error, state):
    file.queued(["first"])
    file.started()
    file.ended(error)
    found = read(tmp_path)
    assert (found.state, found.behind) == (state, ())
    assert (found.failure is not None) == (state == "failed")


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path, protocol, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    file = ProgressFile(blocked / "progress.json", protocol=protocol)
    for round_ in range(3):
        file.began("gradient", round_, 3)
    assert caplog.text.count("the progress cannot be written") == 1


def test_nothing_is_written_while_nothing_happens(file, tmp_path, monkeypatch):
    now = datetime.datetime.now(datetime.UTC)
    monkeypatch.setattr(progress, "_now", lambda: now)  # whole seconds are told: none may pass
    file.began("centre", 0, 1)
    file.progressed(question(north=("asked", None, None)))
    before = (tmp_path / "progress.json").stat().st_ino
    file.progressed(question(north=("asked", None, None)))
    assert (tmp_path / "progress.json").stat().st_ino == before


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 0}'])
def test_what_is_no_progress_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "progress.json").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as the progress of a run"):
        read(tmp_path)


def test_a_whole_study_is_told(make_consortium, tmp_path):
    consortium = make_consortium()
    file = ProgressFile(tmp_path / "progress.json", protocol=consortium.protocol)
    rounds = consortium.rounds
    rounds._courier._observer = file
    findings = run_study(
        consortium.signed,
        run="r1",
        asking=rounds,
        rng=np.random.default_rng(0),
        observer=file,
    )
    file.ended(None)
    found = read(tmp_path)
    assert found.learning_curve == findings.losses
    assert [s.phase for s in found.steps].count("gradient") == consortium.protocol.training.rounds
    assert all(s.sites == 3 for s in found.steps)
    assert set(found.roll_call) == set(consortium.protocol.sites)
