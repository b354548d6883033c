"""Logs hold no label, no directory and no words of an error about data, in either form."""

import io
import json
import logging
import sys

import pytest

from esn_core.errors import DataError, ProtocolError, SubjectsFailedError
from esn_core.system import logs


@pytest.fixture
def log(monkeypatch, capsys):
    """A function that sets logging up and returns a logger of ours; all is as before afterwards."""
    root, levels = logging.getLogger(), {n: logging.getLogger(n).level for n in ("", *logs.OURS)}
    before = list(root.handlers)
    monkeypatch.delenv("ESN_LOG_FORMAT", raising=False)
    monkeypatch.delenv("ESN_LOG_LEVEL", raising=False)

    def begin(**how):
        logs.set_up(**how)
        return logging.getLogger("esn_client.test")

    yield begin
    for handler in [h for h in root.handlers if h not in before]:
        handler.close()
        root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    # The variables that set_up wrote are taken back with the rest.
    monkeypatch.setenv("ESN_LOG_FORMAT", "text")
    monkeypatch.setenv("ESN_LOG_LEVEL", "info")


@pytest.mark.parametrize(
    ("text", "struck"),
    [
        ("sub-012_ses-20260101 is late", "sub-…_ses-… is late"),
        ("/data/north/bids/participants.tsv: no", "…/participants.tsv: no"),
        ("in '~/scans/sub-7/dwi.nii.gz'", "in '…/dwi.nii.gz'"),
        ("see ./bids/sub-01/x", "see …/x"),
        ("https://centre.example.org:9092/v1/fleet/pull", "https://centre.example.org:9092/v1/fleet/pull"),
        ("3/4 rounds, and/or none", "3/4 rounds, and/or none"),
    ],
)
def test_labels_and_directories_are_struck_out(text, struck):
    assert logs.struck_out(text) == struck


def fail(kind):
    raise kind("the GASE of Erika in column 7.25")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("kind", [DataError, SubjectsFailedError, ValueError, KeyError])
def test_the_words_of_an_error_about_data_are_not_logged(log, capsys, form, kind):
    ours = log(form=form, level="debug")
    try:
        fail(kind)
    except Exception:
        ours.debug("no answer for sub-012", exc_info=True)
    _, err = capsys.readouterr()
    assert "Erika" not in err
    assert "7.25" not in err
    assert "sub-012" not in err
    assert kind.__name__ in err
    assert "test_logs.py:" in err
    assert err.count("\n") == (1 if form == "json" else 2)


def test_an_error_about_protocols_keeps_its_words(log, capsys):
    log().warning("refused: %s", logs.said_of(ProtocolError("it expired")))
    assert capsys.readouterr().err.endswith("refused: ProtocolError: it expired\n")


def test_a_line_of_json_is_one_object(log, capsys):
    log(form="json").info("2 children\nleft out")
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["logger"], said["message"]) == (
        "info",
        "esn_client.test",
        "2 children\nleft out",
    )


def test_a_process_that_is_started_logs_as_its_parent_does(log, capsys):
    log(form="json", level="debug")
    log().debug("as before")
    assert json.loads(capsys.readouterr().err)["message"] == "as before"


def test_stderr_is_looked_up_when_a_line_is_written(log, monkeypatch, capsys):
    ours = log()
    other = io.StringIO()
    monkeypatch.setattr(sys, "stderr", other)
    ours.warning("here")
    assert other.getvalue().endswith("here\n")


def test_files_are_rotated_and_three_stay(log, monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "LARGEST_BYTES", 100)
    path = tmp_path / "logs" / "join.log"
    ours = log()
    logs.keep_in(path)
    for number in range(40):
        ours.warning("line %d of sub-012", number)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "join.log",
        *(f"join.log.{i}" for i in (1, 2, 3)),
    ]
    assert "line 39 of sub-…" in path.read_text()


def test_what_another_program_writes_is_begun_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "LARGEST_BYTES", 3)
    path = tmp_path / "answers.log"
    for number in range(6):
        logs.rotate(path)
        path.write_text(f"run {number}")
    kept = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert kept == {
        "answers.log": "run 5",
        "answers.log.1": "run 4",
        "answers.log.2": "run 3",
        "answers.log.3": "run 2",
    }
