"""One process answers all questions, within the limits that the site sets."""

import os
import signal
import sys
from multiprocessing import Pipe

import psutil
import pytest

from esn_client.worker.executor import Executor
from esn_client.worker.process import serve
from esn_core.errors import ConfigError, EsnError, GateError, LedgerError, QuestionLimitError

PROGRAM = """
import os, sys, time
from multiprocessing.connection import Connection
from esn_client.worker.process import serve
from esn_core.errors import LedgerError
from esn_core.messages.envelope import LARGEST_MESSAGE_BYTES

def reply(body):
    if body == b"long":
        time.sleep(600)
    if body == b"large":
        kept = bytearray(os.urandom(1)) * 900_000_000
        time.sleep(600)
    if body == b"long answer":
        return bytes(LARGEST_MESSAGE_BYTES + 1)
    if body == b"fail":
        raise LedgerError("sub-01")
    if body == b"bug":
        raise ValueError("sub-01")
    if body == b"die" and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), 9)
    if body == b"die twice":
        os.kill(os.getpid(), 9)
    return str(os.getpid()).encode()

marker = sys.argv[1]
if marker == "broken":
    Connection(int(sys.argv[2])).send_bytes(b"FConfigError\\nthis site has no state")
    sys.exit()
settings = os.environ.get("EDITED")
before = settings and open(settings).read()
serve(
    Connection(int(sys.argv[2])),
    reply,
    stale=lambda: bool(settings) and open(settings).read() != before,
    idle_s=float(sys.argv[1]) if marker == "0.5" else 300.0,
)
"""


@pytest.fixture
def executor_of(tmp_path):
    def make(marker=None, **limits):
        limits = {"question_limit_s": 120.0, "memory_limit_gb": 4.0, **limits}
        command = [sys.executable, "-c", PROGRAM, marker or str(tmp_path / "died")]
        return Executor(command, log_file=tmp_path / "answers.log", **limits)

    return make


def test_one_process_answers_every_question(executor_of):
    with executor_of() as executor:
        answers = {executor.ask(b"who") for _ in range(5)}
    assert len(answers) == 1
    assert not psutil.pid_exists(int(answers.pop()))


def test_a_process_that_is_asked_nothing_ends_and_the_next_question_starts_another(executor_of, caplog):
    with executor_of("0.5") as executor:
        before = int(executor.ask(b"who"))
        psutil.Process(before).wait(120)
        assert int(executor.ask(b"who")) != before
    assert not caplog.records  # it is no fault


def test_a_question_that_comes_while_a_process_is_about_to_end_is_answered_by_it():
    """What is done at rest comes first: the end of a study, whose next question was slow to come."""
    (guard, process), said = Pipe(), []
    guard.send_bytes(b"one")

    def at_rest():
        said.append("at rest")
        if len(said) == 1:
            guard.send_bytes(b"two")

    serve(process, bytes.upper, at_rest=at_rest, idle_s=0.0)
    assert [guard.recv_bytes() for _ in range(3)] == [b"R", b"AONE", b"ATWO"]
    assert said == ["at rest", "at rest"]


def test_what_goes_wrong_at_rest_is_logged_without_its_text_and_ends_nothing(caplog):
    (guard, process), said = Pipe(), []

    def at_rest():
        said.append("at rest")
        if len(said) == 1:
            guard.send_bytes(b"two")
        raise OSError(2, "is missing", "/home/sub-001.tsv")

    serve(process, bytes.upper, at_rest=at_rest, idle_s=0.0)
    assert [guard.recv_bytes() for _ in range(2)] == [b"R", b"ATWO"]
    assert caplog.messages == ["at rest: FileNotFoundError"] * 2


def test_a_question_that_takes_too_long_is_an_error_and_the_next_is_answered(executor_of):
    with executor_of(question_limit_s=1.0) as executor:
        before = executor.ask(b"who")
        with pytest.raises(QuestionLimitError, match=r"took longer than 1 s \(question_limit_s\)"):
            executor.ask(b"long")
        assert executor.ask(b"who") != before


def test_a_question_that_takes_too_much_memory_is_an_error_and_the_next_is_answered(executor_of):
    with executor_of(memory_limit_gb=0.5) as executor:
        with pytest.raises(QuestionLimitError, match=r"GB, more than 0\.5 \(memory_limit_gb\)"):
            executor.ask(b"large")
        assert executor.ask(b"who")


@pytest.mark.parametrize(
    ("body", "kind"), [(b"fail", LedgerError), (b"bug", EsnError), (b"long answer", GateError)]
)
def test_of_an_error_its_class_comes_back_and_the_process_goes_on(executor_of, body, kind):
    with executor_of() as executor:
        before = executor.ask(b"who")
        with pytest.raises(kind) as caught:
            executor.ask(body)
        assert "sub-01" not in str(caught.value)
        assert executor.ask(b"who") == before


def test_a_process_that_dies_over_a_question_is_asked_again_once(executor_of):
    with executor_of() as executor:
        before = executor.ask(b"who")
        assert executor.ask(b"die") != before
        with pytest.raises(EsnError, match="died twice"):
            executor.ask(b"die twice")
        assert executor.ask(b"who")


def test_a_process_that_was_killed_between_questions_is_replaced(executor_of):
    with executor_of() as executor:
        victim = int(executor.ask(b"who"))
        os.kill(victim, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(victim)] if psutil.pid_exists(victim) else [], timeout=120)
        assert int(executor.ask(b"who")) != victim


def test_settings_that_were_edited_count_from_the_next_question_on(
    executor_of, tmp_path, monkeypatch, caplog
):
    settings = tmp_path / "site.toml"
    settings.write_text("before")
    monkeypatch.setenv("EDITED", str(settings))
    with executor_of() as executor:
        before = executor.ask(b"who")
        assert executor.ask(b"who") == before
        settings.write_text("after")
        assert executor.ask(b"who") != before
    assert all(record.levelname == "INFO" for record in caplog.records)  # it is no fault


def test_a_site_that_cannot_be_opened_is_its_own_error(executor_of):
    with pytest.raises(ConfigError, match=r"^this site has no state$"):
        executor_of("broken").__enter__()
