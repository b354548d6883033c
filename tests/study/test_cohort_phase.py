"""The summary of the cohort: who is counted, whom a minimum protects, and what a site refuses before it."""

from dataclasses import replace

import numpy as np
import pytest

from esn_client.answers.study import Study
from esn_client.cohort.members import People
from esn_client.gate.patients import patient_hashes
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.privacy.fixed_point import leave_grid
from esn_core.statistics.matching import COHORT, REASONS

ANALYSES = {"cohort": True, "exact": ["cohort"]}
SHARES = {"centre": 0.05, "association": 0.6, "gradient": 0.1, "calibration": 0.15, "cohort": 0.1}
PRIVATE = {"analyses": {"cohort": True}, "shares": {**SHARES, "evaluation": 1.0}}


def silence(dimension, _scale):
    return np.zeros(dimension, dtype=np.int64)


@pytest.fixture
def hospital(make_consortium, more_sites):
    """A function that asks a hospital of given people, the ledger and the cohort beside it."""

    def prepare(*, exact=True, children=16, **counted):
        about = {"exact": True, "analyses": ANALYSES} if exact else {**PRIVATE, "noise": silence}
        consortium = make_consortium(**about)
        whole = consortium.cohorts["north"]
        standing = [("child", label) for label in whole.training.participants[:children]]
        for who, number in counted.items():
            standing += [(who.replace("_", "-"), f"sub-{who[:4].replace('_', '')}{i}") for i in range(number)]
        rng = np.random.default_rng(3)
        people = People(
            participants=tuple(label for _, label in standing),
            standing=tuple(of for of, _ in standing),
            age_years=rng.uniform(5, 17, len(standing)),
            sex=rng.integers(0, 2, len(standing)).astype(float),
        )
        cohort = replace(whole, people=people)
        site = consortium.link.hospitals[1]
        site._load = lambda protocol: Study("north", protocol, cohort, "cpu")

        def ask(phase="cohort"):
            number = QuestionId(
                protocol_sha256=consortium.protocol.sha256, run="r1", phase=phase, round=0, attempt=0
            )
            body = site.reply(Question(number).to_bytes(consortium.link.centre_key))
            return Answer.from_bytes(body, more_sites[1]["north"][0].public_key())

        ask.ledger, ask.cohort, ask.site = consortium.ledgers["north"], cohort, site
        return ask

    return prepare


def numbers(answer):
    return leave_grid(answer.total, COHORT)


@pytest.mark.parametrize("exact", [True, False])
def test_one_training_child_does_not_hide_among_controls(hospital, exact):
    """Its age and sex would be the children's part of the sum."""
    ask = hospital(exact=exact, children=1, control=12, no_score=6)
    assert ask().refusal.error == "GateError"
    assert ask.ledger.entries() == []


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("controls", [1, 4])
def test_a_few_controls_do_not_hide_among_children(hospital, exact, controls):
    ask = hospital(exact=exact, control=controls)
    assert {ask(phase).refusal.error for phase in ("roll-call", "cohort")} == {"GateError"}
    assert ask.ledger.entries() == []


@pytest.mark.parametrize("controls", [0, 5])
def test_no_controls_or_enough_of_them_are_summed(hospital, controls):
    ask = hospital(control=controls)
    assert ask("roll-call").facts is not None
    assert numbers(ask())[4] == pytest.approx(controls)


def test_a_reason_that_few_share_is_not_counted_out_and_all_are_charged(hospital):
    ask = hospital(control=8, no_connectome=5, poor_quality=4, no_score=1)
    found = numbers(ask())
    assert dict(zip(REASONS, found[-3:], strict=True)) == pytest.approx(
        {"no-connectome": 5, "poor-quality": 0, "no-score": 0}
    )
    assert found[[0, 4]] == pytest.approx([16, 8])
    (entry,) = ask.ledger.entries()
    assert len(entry.charge.patients) == 16 + 8 + 5 + 4 + 1


def test_with_noise_every_reason_is_counted_or_one_person_would_move_the_others(hospital):
    ask = hospital(exact=False, control=8, no_connectome=5, poor_quality=4, no_score=1)
    assert numbers(ask())[-3:] == pytest.approx([5, 4, 1])


@pytest.mark.parametrize("who", ["control", "no_score"])
def test_a_site_refuses_at_roll_call_what_a_control_could_not_pay(hospital, monkeypatch, who):
    ask = hospital(exact=False, control=8, no_score=6)
    label = f"sub-{who[:4].replace('_', '')}0"
    (spent,) = patient_hashes([label], salt=b"s" * 32, simulated=True)
    counted = ask.ledger._spending.largest_epsilon

    def largest(patients, more, *, delta, without):
        patients = tuple(patients)
        return 99.0 if spent in patients else counted(patients, more, delta=delta, without=without)

    assert ask("roll-call").facts is not None
    monkeypatch.setattr(ask.ledger._spending, "largest_epsilon", largest)
    assert ask("roll-call").refusal.error == "PrivacyBudgetError"


def test_a_centre_that_skips_the_roll_call_gets_nothing_that_it_would_have_refused(hospital, monkeypatch):
    """Four held-out children are too few for `evaluation`: no sum of training children may be had before."""
    ask = hospital(control=8)
    held_out = ask.cohort.held_out
    few = replace(ask.cohort, held_out=replace(held_out, participants=held_out.participants[:4]))
    monkeypatch.setattr(ask.site, "_load", lambda protocol: Study("north", protocol, few, "cpu"))
    assert {ask(phase).refusal.error for phase in ("cohort", "centre", "roll-call")} == {"GateError"}
    assert ask.ledger.entries() == []


def test_what_was_begun_is_not_judged_again(hospital, monkeypatch):
    ask = hospital(control=8)
    assert ask("cohort").total is not None
    monkeypatch.setattr("esn_client.gate.gate.check_budget", None)  # would be called, and fail
    assert ask("centre").total is not None
