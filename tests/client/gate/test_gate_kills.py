"""Kills in the midst of a scripted study: no release without its charge, no second answer."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate, Rows
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_core.learning.releases import gradient_release
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_core.severity_network.association import CENTRE, centre_rows

CHILDREN = tuple(f"sub-{i:03d}" for i in range(6))
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


class Study:
    """A site of a study of many questions under the secure sum, from a script instead of a link."""

    def __init__(self, directory, protocol, mask_key):
        self.directory, self.protocol, self.mask_key = directory, protocol, mask_key

    @property
    def approved(self):
        return approved_as(self.protocol.sha256, signed_with(KEY, self.protocol))

    def question(self, number):
        """Every third is asked again with another set of sites, and every fourth for its seed."""
        phase, round_ = ("centre", 0) if number == 0 else ("gradient", number - 1)
        digest = self.protocol.sha256
        asked = QuestionId(protocol_sha256=digest, run="r1", phase=phase, round=round_, attempt=0)
        return Question(asked, participants=self.protocol.sites)

    def messages(self, number):
        whole = self.question(number)
        fewer = Question(whole.id, participants=whole.participants[:-1])
        yield "answer", whole
        if number % 3 == 0:
            yield "answer", fewer
        if number % 2 == 0:
            yield "reveal", fewer if number % 3 == 0 else whole

    def run(self, first, pipe):
        """Answer from question `first` on, and write the hash of everything that leaves to a pipe."""
        with Ledger(self.directory / "ledger.sqlite", KEY) as ledger:
            gate = Gate(
                site="north",
                limits=Limits(
                    epsilon_cap=50,
                    delta=1e-3,
                    minimum_children=3,
                    trust="secure-sum",
                    colluding_sites=1,
                    exact_sums=False,
                ),
                ledger=ledger,
                audit=AuditLog(self.directory / "audit.jsonl", site="north"),
                salt=b"s" * 32,
                identity_key=KEY,
                mask_key=self.mask_key,
                noise=discrete_gaussian,
            )
            for number in range(first, 10_000):
                for kind, question in self.messages(number):
                    if kind == "reveal":
                        body = gate.reveal(question, self.approved)
                    else:
                        body = gate.answered(question, self.approved)
                        body = body or gate.release(question, self.rows(number), self.approved)
                    line = {"n": number, "kind": kind, "sites": question.participants, "body": body.hex()}
                    os.write(pipe, json.dumps(line).encode() + b"\n")

    def rows(self, number):
        if number == 0:
            return Rows(CENTRE, centre_rows(np.arange(1.0, 7)), CHILDREN)
        kind = gradient_release(3, max_gradient_norm=1.0)
        return Rows(kind, np.full((6, 4), 0.1), CHILDREN)


def answers_of(study, first, messages, patience_s):
    """Fork a site, kill it a moment after so many messages, and return what it managed to send."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            study.run(first, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        sent = b"".join(file.readline() for _ in range(messages))
        time.sleep(patience_s)
        os.kill(child, signal.SIGKILL)
        sent += file.read()
    os.waitpid(child, 0)
    # The last line may be half written: that message did not leave.
    return [json.loads(line) for line in sent.split(b"\n")[:-1]]


@pytest.fixture
def study(tmp_path, protocol_content, more_sites):
    """A study of four sites, three of which make a sum, with a thousand rounds."""
    roster, keys = more_sites
    content = {
        **protocol_content,
        "roster": roster[:4],
        "cohort": {**protocol_content["cohort"], "minimum_children": 3},
        "training": {**protocol_content["training"], "rounds": 1000},
        "privacy": {**protocol_content["privacy"], "trust": "secure-sum"},
    }
    return Study(tmp_path, Protocol.model_validate(content), keys["north"][1])


@pytest.mark.parametrize(
    "kills", [pytest.param(60, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.long)]
)
def test_kills_lose_no_charge_and_give_no_second_answer(study, kills):
    # What is imported lazily is imported here: the children are forked, and killed within milliseconds.
    discrete_gaussian(1, 1.0)
    price_of(study.protocol)
    rng = random.Random(20261125)
    left, charged, first, silent = {}, [], 0, 0
    for _ in range(kills):
        sent = answers_of(study, first, rng.randrange(8), rng.choice([0.0, rng.uniform(0.0, 0.05)]))
        with Ledger(study.directory / "ledger.sqlite", KEY) as ledger:
            ledger.verify()
            entries = [entry.hash for entry in ledger.entries()]
            questions = {entry.charge.question for entry in ledger.entries()}
            # No charge is lost, and none is written twice.
            assert entries[: len(charged)] == charged
            assert len(questions) == len(entries)
            charged = entries
            for line in sent:
                question = str(study.question(line["n"]).id)
                answer = Answer.from_bytes(bytes.fromhex(line["body"]), KEY.public_key())
                # No release without its charge, and the charge is the one that it names.
                assert question in questions
                assert ledger.mark_at(answer.charged.entries) == answer.charged
                if line["kind"] == "reveal":
                    assert ledger.revealed(question) == tuple(line["sites"])
                # No two answers to one question and set of sites.
                asked = (line["n"], line["kind"], tuple(line["sites"]))
                assert left.setdefault(asked, line["body"]) == line["body"]
        silent += not sent
        # The centre asks again from the last question that it may not have heard.
        first = max(len(charged) - 2, 0)
    seeds = {}
    for number, kind, sites in left:
        if kind == "reveal":
            assert seeds.setdefault(number, sites) == sites
    last = AuditLog(study.directory / "audit.jsonl", site="north").last_charge()
    with Ledger(study.directory / "ledger.sqlite", KEY) as ledger:
        assert ledger.mark_at(last.entries) == last
    # The kills were at many places: some sites never spoke, and the study went on all the same.
    assert len(charged) > kills / 4
    assert len(seeds) > kills / 10
    assert 0 < silent < kills
