"""A start is a resume: what is stored is not asked again, and belongs to one run."""

import sqlite3

import numpy as np
import pytest

from esn_core.errors import StudyError
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark
from esn_core.privacy.release import ReleaseKind
from esn_server.run.checkpoints import Checkpoints, RunStore
from esn_server.study.asking import Pooled

PAIR = ReleaseKind("pair", "training", 2, 1.0)
DIGEST = "a" * 64


class Sites:
    """Answers with the number of questions so far."""

    def __init__(self):
        self.asked = 0

    def sum(self, question, kind):
        self.asked += 1
        return Pooled(np.array([self.asked, 0.1]), ("north", "west"), b"signed")


@pytest.fixture
def sites():
    return Sites()


@pytest.fixture
def open_run(tmp_path, sites):
    """A function that opens the same store again."""
    opened = []

    def open_again(digest=DIGEST):
        opened.append(RunStore(tmp_path / "run.sqlite", protocol_sha256=digest))
        return Checkpoints(opened[-1], sites)

    yield open_again
    for store in opened:
        store.close()


def question(round_=0, after=NOTHING_RELEASED):
    number = QuestionId(protocol_sha256=DIGEST, run="r1", phase="gradient", round=round_, attempt=0)
    return Question(number, after=after)


def test_a_finished_step_is_not_asked_again(open_run, sites):
    first = open_run().sum(question(), PAIR)
    again = open_run().sum(question(), PAIR)
    assert sites.asked == 1
    assert np.array_equal(first.total, again.total)
    assert first.sites == again.sites == ("north", "west")
    assert first.relayed == again.relayed == b"signed"
    assert again.total.flags.writeable
    open_run().sum(question(1), PAIR)
    assert sites.asked == 2


def test_the_name_of_the_run_stays(tmp_path):
    names = set()
    for _ in range(2):
        with RunStore(tmp_path / "run.sqlite", protocol_sha256=DIGEST) as store:
            names.add(store.run)
    assert len(names) == 1


def test_seeds_are_asked_for_one_set_of_sites_only(tmp_path):
    sites = ("north", "west")
    with RunStore(tmp_path / "run.sqlite", protocol_sha256=DIGEST) as store:
        assert store.final_set("q1") is None
        store.finalise("q1", sites)
    with RunStore(tmp_path / "run.sqlite", protocol_sha256=DIGEST) as store:
        assert store.final_set("q1") == sites
        store.finalise("q1", sites)
        with pytest.raises(StudyError, match="another process runs this study"):
            store.finalise("q1", ("north", "south", "west"))


def test_two_runs_have_two_names(tmp_path):
    names = set()
    for file in ("a", "b"):
        with RunStore(tmp_path / file, protocol_sha256=DIGEST) as store:
            names.add(store.run)
    assert len(names) == 2


def test_a_store_of_another_protocol_is_refused(open_run):
    open_run()
    with pytest.raises(StudyError, match="belongs to a run of protocol aaaaaaaaaaaaaaaa, not of bbbb"):
        open_run("b" * 64)


def test_a_step_that_was_finished_after_other_sums_is_refused(open_run, sites):
    open_run().sum(question(), PAIR)
    with pytest.raises(StudyError, match="gradient/0 was finished after other sums; start a new run"):
        open_run().sum(question(after=TranscriptMark(sums=1, head="b" * 64)), PAIR)
    assert sites.asked == 1


def test_the_first_of_two_centres_counts(open_run, sites):
    one, two = open_run(), open_run()
    real = sites.sum

    def slow(asked, kind):
        sites.sum = real
        one.sum(asked, kind)
        return Pooled(np.array([9.0, 9.0]), ("west",))

    sites.sum = slow
    assert np.array_equal(two.sum(question(), PAIR).total, [1, 0.1])


@pytest.mark.parametrize("blob", [b"", b"123", np.ones(3).tobytes(), np.array([1.0, np.nan]).tobytes()])
def test_a_damaged_step_is_refused(open_run, tmp_path, blob):
    open_run().sum(question(), PAIR)
    connection = sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)
    connection.execute("UPDATE steps SET total = ?", (blob,))
    connection.close()
    with pytest.raises(StudyError, match="gradient/0 is damaged; start a new run"):
        open_run().sum(question(), PAIR)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"this is no database" * 100),
        lambda path: sqlite3.connect(path).executescript("CREATE TABLE run (x)").connection.close(),
    ],
)
def test_what_is_no_store_is_refused_in_one_line(tmp_path, make):
    make(tmp_path / "run.sqlite")
    with pytest.raises(StudyError, match=r"run\.sqlite: cannot be opened as a run"):
        RunStore(tmp_path / "run.sqlite", protocol_sha256=DIGEST)


def test_a_store_that_cannot_be_written_is_one_line(open_run, tmp_path):
    store = open_run()
    store._store._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StudyError, match="the run's store cannot be used: database is locked"):
        store.sum(question(), PAIR)
    other.close()
