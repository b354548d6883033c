"""A study's link outlives the Flower runs that it is made of."""

import contextlib

import pytest

from esn_core.errors import LinkError
from esn_server.link import lasting_link
from esn_server.link.lasting_link import LastingLink
from esn_server.study.link import Reply


class Centre:
    """A SuperLink that can be away, and the runs that were opened at it."""

    def __init__(self):
        self.now_s, self.away_until_s, self.ended = 0.0, 0.0, []
        self.opened = 0

    @contextlib.contextmanager
    def open_run(self):
        if self.now_s < self.away_until_s:
            raise LinkError("away")
        self.opened += 1
        try:
            yield Run(self, self.opened)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        else:
            self.ended.append("completed")

    def sleep(self, seconds):
        self.now_s += seconds

    def link(self):
        return LastingLink(self.open_run, clock=lambda: self.now_s, sleep=self.sleep)


class Run:
    def __init__(self, centre, number):
        self.centre, self.number, self.sent = centre, number, []
        self.dead = False

    def send(self, node_id, body):
        self.check()
        self.sent.append((f"{self.number}-{len(self.sent)}", node_id, body))
        return self.sent[-1][0]

    def receive(self):
        self.check()
        replies = [Reply(message_id, node, body, None) for message_id, node, body in self.sent if body]
        self.sent = [message for message in self.sent if not message[2]]
        return replies

    def online(self):
        self.check()
        return {1, 2}

    def check(self):
        if self.dead:
            raise LinkError("the run has ended")


@pytest.fixture
def centre():
    return Centre()


def test_answers_come_back_and_the_run_ends_with_its_true_status(centre):
    with centre.link() as link:
        sent = link.send(1, b"body")
        assert [(r.message_id, r.body) for r in link.receive()] == [(sent, b"body")]
    assert centre.ended == ["completed"]


def test_a_lost_run_is_opened_again_and_its_questions_are_reported_as_lost_once(centre):
    with centre.link() as link:
        lost = {link.send(1, b""), link.send(2, b"")}
        link._run.dead = True
        centre.now_s, centre.away_until_s = 100.0, 130.0
        replies = link.receive()
        assert {r.message_id for r in replies} == lost
        assert {r.error for r in replies} == {"SiteUnavailable"}
        assert link.receive() == []
        assert link.send(1, b"again").startswith("2-")
    assert centre.ended == ["LinkError", "completed"]
    assert centre.now_s >= 130.0


def test_a_question_that_was_answered_is_not_lost(centre):
    with centre.link() as link:
        link.send(1, b"body")
        link.receive()
        link._run.dead = True
        assert link.receive() == []


def test_a_superlink_that_stays_away_is_an_error_after_a_bounded_time(centre):
    with centre.link() as link:
        link._run.dead = True
        centre.away_until_s = float("inf")
        with pytest.raises(LinkError, match=r"^away$"):
            link.online()
    assert lasting_link._PATIENCE_S <= centre.now_s < lasting_link._PATIENCE_S + 5


def test_runs_that_never_work_are_not_opened_for_ever(centre):
    opened = centre.open_run

    @contextlib.contextmanager
    def broken():
        with opened() as run:
            run.dead = True
            yield run

    centre.open_run = broken
    with pytest.raises(LinkError, match=r"^the run has ended$"), centre.link() as link:
        link.online()
    assert centre.opened == lasting_link._QUICK_LOSSES + 1


def test_an_error_of_the_study_itself_ends_the_run_and_is_not_repeated(centre):
    with pytest.raises(RuntimeError), centre.link():
        raise RuntimeError
    assert centre.ended == ["RuntimeError"]
    assert centre.opened == 1
