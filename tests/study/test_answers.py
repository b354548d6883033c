"""A hospital answers only what its protocol asks, and nothing about a child decides whether it answers."""

from dataclasses import replace

import numpy as np
import pytest

from esn_client.answers.hospital import ROWS
from esn_client.answers.study import Study
from esn_client.cohort.participants import Participant, read_phenotypes
from esn_client.privacy_audit.arguments import arguments_of
from esn_core.errors import DataError, ProtocolError
from esn_core.learning.weights import pretrained, to_vector
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.data_dictionary import Phenotype
from esn_core.protocol.phases import PHASES as TABLE
from esn_core.protocol.price import price_of

WEIGHTS = to_vector(pretrained("compact-3"))


@pytest.fixture
def ask(make_consortium, more_sites, given_numbers):
    """A function that asks the first hospital with given numbers and returns its answer."""
    consortium = make_consortium()
    hospital = consortium.link.hospitals[1]

    def ask_one(phase, *, round_=0, digest=None, **arrays):
        number = QuestionId(
            protocol_sha256=digest or consortium.protocol.sha256,
            run="r1",
            phase=phase,
            round=round_,
            attempt=0,
        )
        hospital._transcripts = given_numbers(**arrays)
        body = hospital.reply(Question(number).to_bytes(consortium.link.centre_key))
        return Answer.from_bytes(body, more_sites[1]["north"][0].public_key())

    ask_one.consortium = consortium
    ask_one.keys = more_sites[1]["north"]
    ask_one.hospital = hospital
    ask_one.candidates = int(consortium.cohorts["north"].training.scores.any(axis=0).sum())
    ask_one.ledger = consortium.ledgers["north"]
    return ask_one


def arrays_of(ask, phase):
    edges = np.linspace(-1, 1, ask.candidates)
    return {
        "roll-call": {},
        "centre": {},
        "association": {"mean_severity": [0.1]},
        "gradient": {"weights": WEIGHTS, "edge_weights": edges},
        "calibration": {"weights": WEIGHTS, "edge_weights": edges},
        "evaluation": {"weights": WEIGHTS, "edge_weights": edges, "calibration": [0.0, 1.0]},
    }[phase]


PHASES = ["roll-call", "centre", "association", "gradient", "calibration", "evaluation"]


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_answers_what_it_needs(ask, phase):
    answer = ask(phase, **arrays_of(ask, phase))
    assert answer.refusal is None
    assert len(ask.ledger.entries()) == (phase != "roll-call")


@pytest.mark.parametrize("children", [5, 15, 17, 31, 33, 200])
def test_a_roll_call_that_is_repeated_shows_no_child_coming_or_going(ask, children):
    first = ask("roll-call").facts.cohort_band
    digest = ask.consortium.protocol.sha256
    study = ask.hospital._studies[digest, 0]
    training = replace(study.cohort.training, participants=tuple(f"new-{n}" for n in range(children)))
    ask.hospital._studies[digest, 0] = replace(study, cohort=replace(study.cohort, training=training))
    again = ask("roll-call")
    assert again.refusal is not None or again.facts.cohort_band == first


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_refuses_arrays_of_another_length(ask, phase):
    right = arrays_of(ask, phase)
    for name in right:
        for wrong in (np.append(right[name], 0.0), []):
            assert ask(phase, **{**right, name: wrong}).refusal.error == "ProtocolError"
    assert ask.ledger.entries() == []


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_refuses_a_round_that_the_protocol_has_not(ask, phase):
    last = 3 if phase == "gradient" else 1
    assert ask(phase, round_=last, **arrays_of(ask, phase)).refusal.error == "ProtocolError"


# --- the phases that a protocol has to ask for -----------------------------------------------------------

SITES = ("north", "south", "west", "east")
ANALYSES = {
    "cohort": True,
    "cross_site": True,
    "folds": 3,
    "random_scores": 1,
    "subgroups": True,
    "explanation": True,
    "network": {"t_threshold": 2.5, "null_draws": 18, "bootstrap_draws": 15, "minimum_children": 16},
    "neurocognition": {
        "rounds": 2,
        "models": [["gase"], ["predicted_gase"]],
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 95.0}],
    },
    "exact": ["cohort", "explanation", "network", "neurocognition"],
}
PHENOTYPES = {"verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)}}
# Those that a protocol has in the place of others, or that change all questions after them.
OTHERWISE = {
    "votes": {"votes": True},
    "reference": {"votes": True, "pool_controls": True},
    "combat": {"harmonisation": "combat"},
    "local-update": {"training": {"strategy": "fedavg", "local_steps": 2}},
}


@pytest.fixture
def ask_for(make_consortium, more_sites, given_numbers):
    """A function that asks a hospital of exact sums for a phase, with given arrays and round."""

    def prepare(phase):
        everything = {"exact": True, "analyses": ANALYSES, "phenotypes": PHENOTYPES}
        asked = OTHERWISE.get(phase, {})
        if "votes" not in asked:
            asked = {**everything, **asked}
        consortium = make_consortium(trust="secure-sum", sites=SITES, **asked)
        study = Study("north", consortium.protocol, consortium.cohorts["north"], "cpu")

        def ask_one(arrays, *, round_=0):
            number = QuestionId(
                protocol_sha256=consortium.protocol.sha256, run="r1", phase=phase, round=round_, attempt=0
            )
            hospital = consortium.link.hospitals[1]
            hospital._transcripts = given_numbers(**arrays)
            body = hospital.reply(Question(number, SITES).to_bytes(consortium.link.centre_key))
            return Answer.from_bytes(body, more_sites[1]["north"][0].public_key())

        ask_one.rounds = price_of(consortium.protocol).of(phase).releases
        ask_one.arrays = dict(arguments_of(phase, study).arrays)
        ask_one.ledger = consortium.ledgers["north"]
        return ask_one

    return prepare


@pytest.mark.parametrize("phase", [phase for phase in ROWS if phase not in PHASES])
def test_every_other_phase_refuses_wrong_arrays_and_rounds_and_then_answers(ask_for, phase):
    ask = ask_for(phase)
    right = ask.arrays
    assert set(right) == TABLE[phase].arrays
    assert ask(right, round_=ask.rounds).refusal.error == "ProtocolError"
    longer = [{**right, name: np.append(right[name], 0.0)} for name in right]
    assert all(ask(arrays).refusal is not None for arrays in longer)
    assert ask.ledger.entries() == []
    assert ask(right, round_=ask.rounds - 1).total is not None
    assert len(ask.ledger.entries()) == 1


def test_a_protocol_that_was_not_approved_is_refused(ask):
    assert ask("centre", digest="f" * 64).refusal.error == "ProtocolError"


def test_what_is_no_question_has_no_answer(ask):
    with pytest.raises(ProtocolError):
        ask.hospital.reply(b"garbage")


@pytest.mark.parametrize("size", [1e39, 1e300])
def test_weights_beyond_float32_are_refused_whatever_the_children_are(ask, size):
    arrays = {**arrays_of(ask, "gradient"), "weights": np.full(len(WEIGHTS), size)}
    assert ask("gradient", **arrays).refusal.error == "ProtocolError"


@pytest.mark.parametrize("phase", ["gradient", "calibration", "evaluation"])
@pytest.mark.parametrize("size", [1e10, 1e38])
def test_weights_that_overflow_for_some_children_are_answered_and_charged(ask, phase, size):
    """A refusal would tell, for nothing, whether some child's connectome makes the model overflow."""
    rng = np.random.default_rng(0)
    arrays = {**arrays_of(ask, phase), "weights": rng.normal(size=len(WEIGHTS)) * size / 10}
    assert ask(phase, **arrays).total is not None
    assert len(ask.ledger.entries()) == 1


@pytest.mark.parametrize("calibration", [[1e308, 1e308], [-1e308, 1e308], [0.0, 1e308]])
def test_a_calibration_that_overflows_is_answered_and_charged(ask, calibration):
    assert ask("evaluation", **{**arrays_of(ask, "evaluation"), "calibration": calibration}).total is not None


@pytest.mark.parametrize("weight", [1e-320, 1e308, 0.0])
def test_edge_weights_that_cannot_be_scaled_are_refused(ask, weight):
    arrays = {**arrays_of(ask, "gradient"), "edge_weights": np.full(ask.candidates, weight)}
    assert ask("gradient", **arrays).refusal.error == "DataError"


@pytest.mark.parametrize("phase", ["gradient", "calibration", "evaluation"])
def test_a_site_with_an_empty_split_refuses_as_one_with_few_children(make_consortium, phase, ask):
    consortium = ask.consortium
    cohort = consortium.cohorts["north"]
    for split in (cohort.training, cohort.held_out):
        object.__setattr__(split, "participants", ())
        object.__setattr__(split, "scores", split.scores[:0])
        object.__setattr__(split, "gase", split.gase[:0])
    assert ask(phase, **arrays_of_full(WEIGHTS, phase)).refusal.error == "GateError"


def arrays_of_full(weights, phase):
    from esn_core.connectome.template import load_template

    edges = np.ones(int(load_template("phantom-28", simulated=True).present.sum()))
    extra = {"calibration": [0.0, 1.0]} if phase == "evaluation" else {}
    return {"weights": weights, "edge_weights": edges, **extra}


def test_a_fault_of_the_table_leaves_as_the_class_of_its_error_alone(ask, monkeypatch):
    child = Participant("sub-meier", 9.0, 0.0, "dre", 3, {"verbal_score": "seventeen"})
    rules = {"verbal_score": Phenotype(kind="number", unit="score", range=(40, 160))}
    monkeypatch.setattr(ask.hospital, "_load", lambda _: read_phenotypes([child], rules))
    with pytest.raises(DataError, match="sub-meier: verbal_score must be 40 to 160"):
        read_phenotypes([child], rules)
    answer = ask("roll-call")
    assert answer.refusal.error == "DataError"
    key, _ = ask.keys
    sent = answer.to_bytes(key)
    assert not any(word in sent for word in (b"meier", b"seventeen", b"verbal", b"sub-"))
