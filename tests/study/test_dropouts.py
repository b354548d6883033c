"""The centre's side of the secure sum: sites that drop out, come back, or lie, at real hospitals' gates."""

import logging

import numpy as np
import pytest

from esn_core.errors import StudyError
from esn_core.messages.facts import LedgerMark
from esn_core.messages.question import Question, QuestionId
from esn_core.severity_network.association import CENTRE
from esn_server.run.memory import _path
from esn_server.study.rounds import Rounds

FOUR = ("north", "south", "west", "east")


@pytest.fixture
def four(make_consortium):
    """Four hospitals, three of which make a sum."""
    return make_consortium(sites=FOUR, quorum=3, trust="secure-sum")


def question(consortium):
    number = QuestionId(
        protocol_sha256=consortium.protocol.sha256, run="r1", phase="centre", round=0, attempt=0
    )
    return Question(number)


def ask(consortium, rounds=None):
    return (rounds or consortium.rounds).sum(question(consortium), CENTRE)


def paid(consortium, sites):
    """What the ledgers of some sites paid for, in one."""
    number = str(question(consortium).id)
    units = np.sum([consortium.ledgers[s].paid(number).total for s in sites], axis=0)
    return units / 2.0**CENTRE.fraction_bits


def always(_question):
    return True


def questions(consortium, node):
    return [consortium.link.read(body) for to, body, _ in consortium.link.carried if to == node]


def test_all_sites_answer_and_reveal(four):
    pooled = ask(four)
    assert pooled.sites == FOUR
    assert np.array_equal(pooled.total, paid(four, FOUR))
    assert [q.reveal for q in questions(four, 1)] == [False, True]


def test_where_all_must_answer_nothing_needs_to_be_revealed(make_consortium):
    three = make_consortium(trust="secure-sum")
    pooled = ask(three)
    assert np.array_equal(pooled.total, paid(three, three.protocol.sites))
    assert [q.reveal for q in questions(three, 1)] == [False]


def test_a_site_that_drops_out_is_left_out_after_half_the_time(four, caplog):
    four.link.down = {2: always}
    with caplog.at_level(logging.WARNING):
        pooled = ask(four)
    rest = ("north", "west", "east")
    assert pooled.sites == rest
    assert np.array_equal(pooled.total, paid(four, rest))
    assert 2.5 <= four.link.now < 3.5
    assert "goes on without south" in caplog.text
    first, second, reveal = questions(four, 1)
    assert (first.participants, second.participants, reveal.participants) == (FOUR, rest, rest)
    assert first.id.attempt < second.id.attempt
    assert (first.content_sha256, second.content_sha256) == (question(four).content_sha256,) * 2


def test_a_site_that_refuses_is_left_out_at_once(four):
    """It has spent its budget elsewhere."""
    four.link.hospitals[4]._gate._limits = four.link.hospitals[4]._gate._limits.model_copy(
        update={"epsilon_cap": 0.01}
    )
    assert ask(four).sites == ("north", "south", "west")
    assert four.link.now < 1


def test_two_dropouts_are_too_many(four):
    four.link.down = {2: always, 3: always}
    with pytest.raises(StudyError, match=r"2 of 4 sites answered, the quorum is 3 .*south: no answer.*west"):
        ask(four)
    # Nobody was asked for a seed, and what was charged answers the next try.
    assert all(ledger.revealed(str(question(four).id)) is None for ledger in four.ledgers.values())
    four.link.down = {}
    assert ask(four).sites == FOUR
    assert {len(ledger.entries()) for ledger in four.ledgers.values()} == {1}


def test_a_site_that_is_lost_before_it_reveals_is_waited_for(four):
    four.link.down = {3: lambda q: q.reveal and four.link.now < 2}
    assert ask(four).sites == FOUR
    assert four.link.now >= 2


def test_a_question_whose_seeds_were_asked_for_is_finished_with_the_same_sites_or_not_at_all(four):
    """The centre stops in the midst of the seeds; the next start does not try another set in vain."""
    four.link.down = {2: always}  # so the set is the other three
    lost = {4: lambda q: q.reveal}
    four.link.down |= lost
    with pytest.raises(StudyError, match=r"not all revealed their masks: .*east: no answer"):
        ask(four)
    four.link.down = {}
    again = Rounds(
        four.link,
        dict(zip(FOUR, range(1, 5), strict=True)),
        protocol=four.signed,
        signing_key=four.link.centre_key,
        memory=four.rounds._memory,
        clock=four.link.clock,
        sleep=four.link.sleep,
    )
    rest = ("north", "west", "east")
    pooled = ask(four, again)
    assert pooled.sites == rest
    assert np.array_equal(pooled.total, paid(four, rest))


def test_a_site_with_another_mask_key_is_noticed(make_consortium, more_sites):
    three = make_consortium(trust="secure-sum")
    three.link.hospitals[2]._gate._mask_key = more_sites[1]["hill"][1]
    with pytest.raises(StudyError, match=r"phase centre, round 0: the masks do not cancel"):
        ask(three)


def test_a_site_whose_vector_is_beyond_the_grid_is_noticed(make_consortium):
    three = make_consortium(trust="secure-sum", noise=lambda d, scale: np.zeros(d, dtype=np.int64))
    ask(three)
    connection = three.ledgers["west"]._store._connection
    connection.execute("DROP TRIGGER sums_stay")
    connection.execute("UPDATE sums SET total = ?", (np.full(2, 2**62).tobytes(),))
    with pytest.raises(StudyError, match="release centre holds numbers beyond the range of the grid"):
        ask(three)


def test_a_ledger_that_lost_entries_is_refused_at_roll_call(four):
    ask(four)
    seen = four.rounds._memory.ledger_seen("south")
    assert seen.entries == 3  # the cohort, the sum and the seed
    # The centre saw more than the site has: a backup came back.
    four.rounds._memory.see_ledger("south", LedgerMark(entries=9, head="9" * 64))
    number = question(four).id.model_copy(update={"phase": "roll-call"})
    facts = four.rounds.roll_call(Question(number))
    assert set(facts) == {"north", "west", "east"}  # three are a quorum; south refused


def test_a_ledger_with_another_past_is_refused_by_name(make_consortium):
    three = make_consortium(trust="secure-sum")
    ask(three)
    path = _path(three.rounds._memory._centre, "south")
    path.write_text(LedgerMark(entries=1, head="9" * 64).model_dump_json())
    three.store._connection.execute("UPDATE ledgers SET head = ? WHERE site = 'south'", ("9" * 64,))
    number = question(three).id.model_copy(update={"phase": "roll-call"})
    with pytest.raises(StudyError, match=r"south: its ledger is not the one that this centre saw: entry 2"):
        three.rounds.roll_call(Question(number))
