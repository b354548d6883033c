"""Every byte that a hospital returns is one that its gate gave out, and Flower is handed that very object."""

import time

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.metadata import Metadata

from esn_client import app as flower
from esn_client.answers.hospital import Hospital
from esn_core.errors import ProtocolError
from esn_core.messages.question import Question, QuestionId

METHODS = (
    *("answered", "reveal", "release", "disclose", "refuse", "turn_away", "receive", "ledger_marks", "note"),
    *(
        "begun",
        "require_answerable",
        "require_same_cohort",
        "withdrawals",
        "sums_left",
    ),  # these give no bytes
)


class Recording:
    """A real gate that remembers what it gave out; it has no other way in or out."""

    def __init__(self, gate):
        self.gate = gate
        self.given = []

    def __getattr__(self, name):
        if name not in METHODS:
            raise AssertionError(f"the hospital reached for the gate's {name}")
        method = getattr(self.gate, name)

        def call(*args, **kwargs):
            given = method(*args, **kwargs)
            if isinstance(given, bytes):
                self.given.append(given)
            return given

        return call


class Leaky(Hospital):
    """A hospital with a way round its gate: equal bytes, but not the gate's."""

    def _answer(self, question):
        return bytes(bytearray(super()._answer(question)))


def watched(consortium):
    """Put a recording gate into every hospital; return the gates by node."""
    gates = {}
    for node, hospital in consortium.link.hospitals.items():
        gates[node] = hospital._gate = Recording(hospital._gate)
    return gates


def beside_the_gate(consortium, gates):
    """Return the phases of the replies that no gate gave out."""
    return [
        consortium.link.read(body).id.phase
        for node, body, answer in consortium.link.carried
        if not any(answer is given for given in gates[node].given)
    ]


SITES = ("north", "south", "west", "east")


@pytest.mark.parametrize(
    "rules",
    [{"trust": "local"}, {"trust": "secure-sum"}, {"trust": "secure-sum", "sites": SITES, "quorum": 3}],
)
def test_every_reply_of_a_study_is_one_that_the_gate_gave_out(make_consortium, rules):
    consortium = make_consortium(**rules)
    gates = watched(consortium)
    consortium.study()
    if rules == {"trust": "local"}:
        consortium.study()  # everything was answered before
    questions = [consortium.link.read(body) for _, body, _ in consortium.link.carried]
    assert {q.id.phase for q in questions} == {
        "roll-call",
        "centre",
        "association",
        "gradient",
        "calibration",
        "evaluation",
    }
    assert any(q.reveal for q in questions) == ("quorum" in rules)
    assert beside_the_gate(consortium, gates) == []


def test_a_refusal_is_one_that_the_gate_gave_out(make_consortium):
    consortium = make_consortium()
    gates = watched(consortium)
    wrong = [
        {"protocol_sha256": "f" * 64, "phase": "centre", "round": 0},
        {"phase": "centre", "round": 7},
        {"phase": "association", "round": 0},
    ]
    for changes in wrong:
        number = {"protocol_sha256": consortium.protocol.sha256, "run": "r1", "attempt": 0, **changes}
        consortium.link.send(1, Question(QuestionId(**number)).to_bytes(consortium.link.centre_key))
    assert beside_the_gate(consortium, gates) == []
    assert len(gates[1].given) == 3


def test_a_way_round_the_gate_is_seen(make_consortium):
    consortium = make_consortium()
    gates = watched(consortium)
    honest = consortium.link.hospitals[2]
    consortium.link.hospitals[2] = Leaky(
        gate=gates[2],
        bands=honest._bands,
        transcripts=honest._transcripts,
        centre_key=honest._centre_key,
        approved=honest._approved,
        load=honest._load,
    )
    consortium.study()
    found = beside_the_gate(consortium, gates)
    # One site, in every phase; the gradient in three rounds.
    assert sorted(found) == sorted(
        ["roll-call", "centre", "association", *["gradient"] * 3, "calibration", "evaluation"]
    )


def sent_through_flower(body):
    about = Metadata(
        run_id=1,
        message_id="m1",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type="query",
        src_task_id=1,
        dst_task_id=2,
    )
    message = Message(metadata=about, content=RecordDict({"question": ConfigRecord({"body": body})}))
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
    return flower.app(message, context).content


def test_flower_is_handed_the_very_bytes_that_the_hospital_returned(make_consortium):
    consortium = make_consortium()
    hospital = consortium.link.hospitals[1]
    replies = []

    def answer(body):
        replies.append(hospital.reply(body))
        return replies[-1]

    flower.install(answer)
    digest = consortium.protocol.sha256
    number = QuestionId(protocol_sha256=digest, run="r1", phase="centre", round=0, attempt=0)
    content = sent_through_flower(Question(number).to_bytes(consortium.link.centre_key))
    assert list(content) == ["answer"]
    assert list(content["answer"]) == ["body"]
    assert content["answer"]["body"] is replies[0]


def test_what_holds_no_bytes_is_no_question():
    flower.install(bytes)
    with pytest.raises(ProtocolError, match="the question must be bytes, not str"):
        sent_through_flower("words")
