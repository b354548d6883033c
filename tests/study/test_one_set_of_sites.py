"""Sums without noise are all of one set of sites, and a child is in those of one protocol.

Two sums over sets that differ by a site are that site's sum, by a subtraction, and two over cohorts that
differ by a child are that child.
"""

import numpy as np
import pytest

from esn_client.gate.charge import Charge
from esn_client.gate.gate import check_budget
from esn_client.gate.ledger import Ledger
from esn_core.errors import PrivacyBudgetError, ProtocolError, StudyError
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import CENTRE

FOUR = ("north", "south", "west", "east")
THREE = FOUR[:3]


@pytest.fixture
def four(make_consortium):
    """Four hospitals without noise, three of which make a sum."""
    return make_consortium(sites=FOUR, quorum=3, trust="secure-sum", exact=True, training={"rounds": 1})


def question(consortium, phase, sites, **about):
    number = QuestionId(protocol_sha256=consortium.protocol.sha256, run="r1", phase=phase, round=0, attempt=0)
    return Question(number, participants=sites, **about)


def asked(consortium, node, question, keys):
    hospital = consortium.link.hospitals[node]
    answer = hospital.reply(question.to_bytes(consortium.link.centre_key))
    return Answer.from_bytes(answer, keys[FOUR[node - 1]][0].public_key())


def test_a_centre_cannot_drop_a_site_from_one_exact_sum_to_the_next(four, more_sites, given_numbers, caplog):
    """Round 0 of all sites, and round 1 with the same numbers of all but one, left that site's sum."""
    keys = more_sites[1]
    four.rounds.sum(question(four, "centre", ()), CENTRE)
    for node in (1, 2, 3):
        # Whatever its numbers are, the next exact sum is of the same four.
        four.link.hospitals[node]._transcripts = given_numbers(mean_severity=[0.0])
        cut = asked(four, node, question(four, "association", THREE), keys)
        assert cut.refusal.error == "ProtocolError"
        assert "first sum without noise of this protocol was of north, south, west, east" in caplog.text
        caplog.clear()
    assert {len(four.ledgers[site].entries()) for site in THREE} == {1}


def test_a_seed_is_not_revealed_for_another_set_than_that_of_the_first_exact_sum(four):
    """Two sums may have been answered, for two sets, before either is opened: one of them stays closed."""
    ledger = four.ledgers["north"]
    ids = [f"q{i}" for i in range(3)]
    for which in ids:
        charge(ledger, which, "a" * 64, ("p1",))
    ledger.reveal("q1", FOUR, one_set=ids)
    for which, sites in (("q0", THREE), ("q2", THREE[::-1]), ("q1", THREE)):
        with pytest.raises(ProtocolError, match="was of north, south, west, east"):
            ledger.reveal(which, sites, one_set=ids)
    assert ledger.revealed("q0") is ledger.revealed("q2") is None
    ledger.reveal("q2", FOUR, one_set=ids)
    # What has noise may have another set each time.
    ledger.reveal("q0", THREE)


def test_the_centre_asks_all_exact_sums_of_the_same_sites_and_waits_for_them(four):
    four.link.down = {4: lambda q: q.id.phase == "association"}
    with pytest.raises(StudyError, match=r"phase association, round 0: 3 of 4 sites answered.*east"):
        four.study()
    revealed = {
        site: four.ledgers[site].revealed(str(question(four, "association", ()).id)) for site in THREE
    }
    assert set(revealed.values()) == {None}


def test_a_site_that_was_missing_from_the_first_is_missed_by_none(four):
    four.link.down = {4: lambda q: q.id.phase == "centre"}
    found = four.study()
    asked = {four.link.read(body).participants for _, body, _ in four.link.carried}
    assert asked == {(), FOUR, THREE}
    assert not four.ledgers["east"].entries()
    assert np.isfinite(found.agreement.r)


def test_under_noise_each_sum_has_its_own_set(make_consortium):
    consortium = make_consortium(sites=FOUR, quorum=3, trust="secure-sum", training={"rounds": 1})
    consortium.link.down = {4: lambda q: q.id.phase == "centre"}
    consortium.study()
    revealed = {
        entry: consortium.ledgers["north"].revealed(str(question(consortium, entry, ()).id))
        for entry in ("centre", "association")
    }
    assert revealed == {"centre": THREE, "association": FOUR}


def charge(ledger, which, protocol, patients, *, noise=0.0, again=False):
    about = Charge(
        question=which,
        protocol_sha256=protocol,
        run="r1",
        release="centre",
        trust="secure-sum",
        noise_multiplier=noise,
        noise_share=1.0,
        l2_bound=1.0,
        dimension=2,
        patients=patients,
        salt_sha256="5" * 64,
        software="0",
    )
    total = np.array([1, 2], dtype=np.int64)
    return ledger.charge(
        about, total, content_sha256="c" * 64, epsilon_cap=50.0, delta=1e-3, exact_again=again
    )


@pytest.fixture
def ledger(tmp_path, more_sites):
    """A ledger in which one protocol has exact sums of three patients."""
    with Ledger(tmp_path / "ledger.sqlite", more_sites[1]["north"][0]) as opened:
        charge(opened, "q1", "a" * 64, ("p1", "p2", "p3"))
        yield opened


def test_exact_sums_of_a_second_protocol_over_some_of_the_same_children_are_refused(ledger):
    with pytest.raises(PrivacyBudgetError, match=f"exact sums of protocol {'a' * 16} hold some of these"):
        charge(ledger, "q2", "b" * 64, ("p3", "p4"))
    assert len(ledger.entries()) == 1
    charge(ledger, "q3", "b" * 64, ("p4", "p5"))
    charge(ledger, "q4", "c" * 64, ("p1", "p2", "p3"), noise=2.0)
    charge(ledger, "q5", "a" * 64, ("p1", "p2", "p3"))
    charge(ledger, "q6", "d" * 64, ("p1", "p2", "p3"), again=True)
    with pytest.raises(PrivacyBudgetError, match=f"protocol {'a' * 16}, {'d' * 16} hold"):
        charge(ledger, "q7", "b" * 64, ("p1",))


@pytest.mark.parametrize("named", [False, True])
def test_the_site_names_the_protocol_in_its_settings(make_consortium, named, caplog):
    consortium = make_consortium(sites=FOUR, trust="secure-sum", exact=True, training={"rounds": 1})
    consortium.study()
    other = Protocol.model_validate({**consortium.protocol.model_dump(), "study": "another"})
    gate = consortium.link.hospitals[1]._gate
    limits = gate._limits.model_copy(update={"exact_again": (other.sha256,) if named else ()})
    cohort = consortium.cohorts["north"]

    def check():
        check_budget(
            gate._ledger,
            other,
            limits=limits,
            salt=gate._salt,
            run="r2",
            children={"training": cohort.training.participants, "held-out": cohort.held_out.participants},
            others=(),
        )

    if named:
        check()
        return
    with pytest.raises(PrivacyBudgetError, match=f"list {other.sha256} in limits.exact_again"):
        check()
    assert not any(label in caplog.text for label in cohort.training.participants)
