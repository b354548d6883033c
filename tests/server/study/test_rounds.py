"""Quorum, deadline and retry, on a clock of our own."""

import datetime
from itertools import pairwise

import numpy as np
import pytest

from esn_core.errors import StudyError
from esn_core.identity.signing import sign
from esn_core.messages.answer import Answer, Refusal
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import Question, QuestionId
from esn_core.privacy.fixed_point import units_per_one
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_server.run.checkpoints import RunStore
from esn_server.run.memory import Memory
from esn_server.study.link import Reply
from esn_server.study.rounds import Rounds

NODES = {"north": 1, "south": 2, "west": 3}
PAIR = ReleaseKind("pair", "training", 2, 1.0)
UNITS = units_per_one(PAIR)
ASKED = QuestionId(protocol_sha256="a" * 64, run="r1", phase="centre", round=0, attempt=0)
MARK = LedgerMark(entries=0, head="0" * 64)
PAID = LedgerMark(entries=1, head="1" * 64)
FACTS = SiteFacts(
    software={},
    recipe_sha256="1" * 64,
    atlas_sha256="2" * 64,
    template_sha256="3" * 64,
    cohort_band="8-15",
    ledger=MARK,
    ledger_seen=MARK,
    said_at=datetime.datetime(2026, 11, 25, tzinfo=datetime.UTC),
)


@pytest.fixture(autouse=True)
def _world(tmp_path, protocol_content, monkeypatch, more_sites, centre_key):
    """Every world has the same protocol, and a memory of its own."""
    protocol = Protocol.model_validate(protocol_content)
    monkeypatch.setattr(World, "protocol", protocol, raising=False)
    monkeypatch.setattr(World, "centre_key", centre_key, raising=False)
    monkeypatch.setattr(World, "keys", {s: k[0] for s, k in more_sites[1].items()}, raising=False)
    with RunStore(tmp_path / "run.sqlite", protocol_sha256=protocol.sha256) as store:
        monkeypatch.setattr(World, "memory", Memory(tmp_path / "centre", store), raising=False)
        yield


class World:
    """Sites that answer as scripted, and the time."""

    protocol: Protocol
    memory: Memory

    def __init__(self, script=None, *, appears=None):
        self.now = 0.0
        self.script = {site: list(answers) for site, answers in (script or {}).items()}
        self.appears = appears or {}
        self.inbox = []
        self.sent = []

    def online(self):
        return {node for site, node in NODES.items() if self.appears.get(site, 0) <= self.now}

    def send(self, node_id, body):
        site = next(s for s, n in NODES.items() if n == node_id)
        question = Question.from_bytes(body, self.centre_key.public_key())
        message_id = f"m{len(self.sent)}"
        self.sent.append((self.now, site, question.id.attempt))
        answers = self.script.get(site)
        answer = (answers.pop(0) if len(answers) > 1 else answers[0]) if answers else total_of(site)
        if answer is not None:
            delay, reply = answer if isinstance(answer, tuple) else (0, answer)
            body = reply.to_bytes(self.keys[site]) if isinstance(reply, Answer) else reply
            lost = isinstance(body, str)
            made = Reply(message_id, node_id, None if lost else body, body if lost else None)
            self.inbox.append((self.now + delay, made))
        return message_id

    def receive(self):
        arrived = [reply for at, reply in self.inbox if at <= self.now]
        self.inbox = [(at, reply) for at, reply in self.inbox if at > self.now]
        return arrived

    def sleep(self, seconds):
        self.now += seconds

    def rounds(self, *, quorum=3, deadline_s=60.0):
        rules = self.protocol.rounds.model_copy(update={"quorum": quorum, "deadline_s": deadline_s})
        protocol = self.protocol.model_copy(update={"rounds": rules})
        return Rounds(
            self,
            NODES,
            protocol=signed_with(self.centre_key, protocol),
            signing_key=self.centre_key,
            memory=self.memory,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sum(self, **rules):
        return self.rounds(**rules).sum(Question(ASKED), PAIR)


def total_of(site, numbers=(1, 2), number=ASKED, **about):
    if not about:
        about = {"total": np.array(numbers, dtype=np.int64)}
    if "total" in about:
        about = {"charged": PAID, **about}
    return Answer(number, site, **about)


def failure(script, **rules):
    world = World(script)
    with pytest.raises(StudyError) as caught:
        world.sum(**rules)
    return str(caught.value)


def test_the_answers_of_all_sites_are_added_up():
    pooled = World(
        {"north": [total_of("north", (UNITS, 0))], "west": [(5, total_of("west", (0, UNITS)))]}
    ).sum()
    assert pooled.total == pytest.approx([1 + 1 / UNITS, 1 + 2 / UNITS], rel=1e-15, abs=0)
    assert pooled.sites == ("north", "south", "west")


def test_the_roll_call_gives_each_sites_facts():
    world = World({site: [total_of(site, facts=FACTS)] for site in NODES})
    assert world.rounds().roll_call(Question(ASKED)) == dict.fromkeys(NODES, FACTS)


def test_a_site_that_appears_in_time_is_waited_for():
    world = World(appears={"south": 50.0})
    assert world.sum().sites == ("north", "south", "west")
    assert 50 <= world.now < 51


def test_waiting_for_a_site_to_appear_counts_towards_the_deadline():
    world = World(appears={"south": 70.0})
    with pytest.raises(StudyError) as caught:
        world.sum()
    assert world.now == pytest.approx(60, abs=0.5)
    assert str(caught.value) == (
        "phase centre, round 0: 2 of 3 sites answered, the quorum is 3 and the deadline 60 s "
        "(south: not connected)"
    )


def test_a_site_that_does_not_answer_in_time_is_named():
    assert "south: no answer" in failure({"south": [None]})


def test_a_quorum_of_the_roster_is_enough():
    assert World({"south": [None]}).sum(quorum=2).sites == ("north", "west")


def test_a_failed_link_is_tried_again_after_a_while():
    world = World({"south": ["SiteUnavailable", total_of("south")]})
    assert world.sum().sites == ("north", "south", "west")
    first, second = [(at, attempt) for at, site, attempt in world.sent if site == "south"]
    assert (first[1], second[1]) == (0, 1)
    assert second[0] - first[0] >= 3


def test_a_lost_site_is_asked_again_until_the_deadline():
    world = World({"south": ["SiteUnavailable"] * 10 + [total_of("south")]})
    assert world.sum().sites == ("north", "south", "west")
    assert 30 <= world.now < 60


def test_no_absent_site_is_waited_for_when_the_quorum_cannot_be_reached():
    refusal = (5, Answer(ASKED, "north", refusal=Refusal(error="GateError")))
    world = World({"north": [refusal]}, appears={"south": 50.0})
    with pytest.raises(StudyError, match=r"north: refused \(GateError\); south: not connected"):
        world.sum()
    assert world.now < 10


def test_a_site_in_error_is_asked_three_times_and_no_more():
    world = World({"south": ["ValueError"]})
    with pytest.raises(StudyError, match=r"south: no answer \(ValueError\)"):
        world.sum()
    assert [attempt for _, site, attempt in world.sent if site == "south"] == [0, 1, 2]
    assert sum(site == "north" for _, site, _ in world.sent) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (total_of("west"), "answered as west, another site"),
        (total_of("south", (1, 2, 3)), "release pair holds 2 numbers"),
        (total_of("south", (2**62, 0)), "beyond the range"),
        (total_of("south", (np.iinfo(np.int64).min, 0)), "beyond the range"),
        (total_of("south", facts=FACTS), "sent something else where a sum was asked"),
        (total_of("south", refusal=Refusal(error="GateError")), r"refused \(GateError\)"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named_and_not_asked_for_again(answer, words):
    world = World({"south": [answer]})
    with pytest.raises(StudyError, match=f"south: .*{words}"):
        world.sum()
    assert sum(site == "south" for _, site, _ in world.sent) == 1


@pytest.mark.parametrize(
    "forge",
    [
        lambda body, keys: total_of("south").to_bytes(keys["west"]),
        lambda body, keys: body[:-64],
        lambda body, keys: body[:-64] + bytes(64),
        lambda body, keys: body[:40] + bytes([body[40] ^ 1]) + body[41:],
        lambda body, keys: body[:-64] + total_of("south", (9, 9)).to_bytes(keys["south"])[-64:],
        lambda body, keys: body[:-64] + keys["south"].sign(body[:-64]),
        lambda body, keys: body[:-64] + sign(body[:-64], keys["south"], "question"),
    ],
    ids=["another site's", "none", "zeros", "altered", "another answer's", "no purpose", "another purpose"],
)
def test_a_reply_without_its_sites_signature_is_dropped_and_the_site_waited_for(forge):
    """Anybody can make one: it is no failure of the site, whose own answer still counts."""
    honest = total_of("south").to_bytes(World.keys["south"])
    forged = forge(honest, World.keys)
    assert World({"south": [forged, forged, forged, forged, honest]}).sum().sites == tuple(NODES)
    never = World({"south": [forged]})
    with pytest.raises(StudyError, match="south: the answer is not signed by the site's identity key"):
        never.sum()
    assert never.now >= 60.0
    # Rarer and rarer: 3 s after the first, 6 s after the second, and so on.
    asked = [at for at, site, _ in never.sent if site == "south"]
    assert [round(later - at) for at, later in pairwise(asked)] == [3, 6, 12, 24]


@pytest.mark.parametrize(
    "other",
    [{"round": 1}, {"protocol_sha256": "a" * 16 + "b" * 48}, {"run": "r2"}, {"phase": "cohort"}],
    ids=str,
)
def test_an_answer_to_another_question_is_dropped_and_the_site_waited_for(other):
    """The site did sign it, once; whoever kept it may send it again."""
    stale = total_of("south", number=ASKED.model_copy(update=other))
    assert World({"south": [stale, total_of("south")]}).sum().sites == tuple(NODES)
    with pytest.raises(StudyError, match=r"south: answered to .*another question"):
        World({"south": [stale]}).sum()


def test_a_sum_is_no_answer_to_a_roll_call():
    with pytest.raises(StudyError, match="north: sent a sum to a roll call"):
        World().rounds().roll_call(Question(ASKED))


def test_a_site_that_stays_silent_is_asked_again_and_answers(caplog):
    world = World({"south": [None, total_of("south")]})
    world.sum()
    assert [attempt for _, site, attempt in world.sent if site == "south"] == [0, 1]
    assert "south has not answered" in caplog.text


def test_an_unknown_reply_is_dropped(caplog):
    world = World({"south": [None]})
    world.inbox.append((0.0, Reply("m99", 2, b"?")))
    with pytest.raises(StudyError, match="south: no answer"):
        world.sum()
    assert "dropped an unknown reply" in caplog.text


def test_only_sites_of_the_roster_are_asked():
    world = World()
    world.online = lambda: {1, 2, 3, 4}
    world.sum()
    assert {site for _, site, _ in world.sent} == set(NODES)
