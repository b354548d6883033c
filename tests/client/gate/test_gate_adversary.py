"""A centre that asks one site's gate in any order, of any sites, with anything: what it never gets."""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate, Rows
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_core.errors import EsnError
from esn_core.identity.public_keys import mask_key
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark
from esn_core.privacy.secure_sum import Attempt, mask, self_seed
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_core.severity_network.association import CENTRE
from esn_core.statistics.recalibration import CALIBRATION

KINDS = {"centre": CENTRE, "calibration": CALIBRATION}
CHILDREN = tuple(f"sub-{i}" for i in range(8))
FOUR = ("north", "south", "west", "east")
SALT = b"s" * 32
LIMITS = Limits(
    epsilon_cap=8.01,
    delta=1e-3,
    minimum_children=5,
    trust="secure-sum",
    colluding_sites=1,
    exact_sums=False,
)
CENTRE_KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
# Sets that are allowed come up as often as all others together.
NAMED = st.one_of(
    st.sampled_from([FOUR, FOUR[:3], ("north", "south", "east")]),
    st.lists(st.sampled_from([*FOUR, "nobody"]), max_size=5).map(tuple),
)
STEP = st.fixed_dictionaries(
    {
        "do": st.sampled_from(["ask", "ask", "reveal", "restart"]),
        "phase": st.sampled_from(sorted(KINDS)),
        "run": st.sampled_from(["r1", "r1", "r1", "r2"]),
        "round": st.integers(0, 1),
        "attempt": st.integers(0, 2),
        "after": st.sampled_from([NOTHING_RELEASED, NOTHING_RELEASED, TranscriptMark(sums=1, head="5" * 64)]),
        "named": NAMED,
    }
)


class Attacked:
    """One site with a real ledger and real noise, and all that a centre ever got from it."""

    def __init__(self, directory, content, more_sites):
        roster = [entry for entry in more_sites[0] if entry["site"] in FOUR]
        privacy = {**content["privacy"], "trust": "secure-sum", "colluding_sites": 1}
        rounds = {**content["rounds"], "quorum": 3}
        self.protocol = Protocol.model_validate(
            {**content, "roster": roster, "privacy": privacy, "rounds": rounds}
        )
        self.approved = approved_as(self.protocol.sha256, signed_with(CENTRE_KEY, self.protocol))
        self.identity, self.mask_key = more_sites[1]["north"]
        self.public_keys = {entry.site: mask_key(entry.mask_key) for entry in self.protocol.roster}
        self.directory = directory
        self.ledger = None
        self.restart()
        self.contents, self.seeds, self.answered = {}, {}, {}

    def restart(self):
        if self.ledger:
            self.ledger.close()
        self.ledger = Ledger(self.directory / "ledger.sqlite", self.identity)
        self.gate = Gate(
            site="north",
            limits=LIMITS,
            ledger=self.ledger,
            audit=AuditLog(self.directory / "audit.jsonl", site="north"),
            salt=SALT,
            identity_key=self.identity,
            mask_key=self.mask_key,
            noise=discrete_gaussian,
        )

    def try_(self, step):
        """Do what the centre says; return what left, or None."""
        number = QuestionId(
            protocol_sha256=self.protocol.sha256,
            **{name: step[name] for name in ("run", "phase", "round", "attempt")},
        )
        kind = KINDS[step["phase"]]
        # The children's rows are others each time: who were asked twice would show it.
        rows = Rows(kind, np.random.default_rng().uniform(-1, 1, (len(CHILDREN), kind.dimension)), CHILDREN)
        reveal = step["do"] == "reveal"
        question = Question(number, participants=step["named"], reveal=reveal, after=step["after"])
        try:
            if reveal:
                body = self.gate.reveal(question, self.approved)
            else:
                body = self.gate.release(question, rows, self.approved)
        except EsnError:
            return None
        return Answer.from_bytes(body, self.identity.public_key())

    def check(self, step, answer):
        """Hold what left against the promises."""
        named = step["named"]
        assert len(set(named)) == len(named) >= self.protocol.rounds.quorum
        assert "north" in named
        assert set(named) <= set(FOUR)
        question = str(answer.id)
        attempt = Attempt(self.protocol.sha256, question, named, step["after"].head)
        assert self.contents.setdefault(question, step["after"]) == step["after"] == answer.after
        if answer.seed is not None:
            assert question in self.answered
            assert self.seeds.setdefault(question, named) == named
            assert answer.seed == self_seed(self.mask_key, attempt)
            return
        paid = self.ledger.paid(question).total
        assert np.array_equal(self.answered.setdefault(question, paid), paid)
        hidden = mask(
            paid,
            attempt,
            site="north",
            private_key=self.mask_key,
            public_keys=self.public_keys,
            self_masked=True,
        )
        assert np.array_equal(answer.total, hidden)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=25))
def test_no_sequence_gives_two_vectors_a_small_sum_or_a_spend_that_the_ledger_lacks(
    tmp_path_factory, protocol_content, more_sites, steps
):
    site = Attacked(tmp_path_factory.mktemp("site"), protocol_content, more_sites)
    try:
        for step in steps:
            if step["do"] == "restart":
                site.restart()
                continue
            answer = site.try_(step)
            if answer is not None:
                site.check(step, answer)
        charges = [entry.charge for entry in site.ledger.entries()]
        assert {charge.question for charge in charges} == set(site.answered)
        assert len(charges) == len(site.answered)
        assert len({charge.run for charge in charges}) <= 1
        spent = site.ledger.spent()
        assert all(len(charge.patients) == len(CHILDREN) for charge in charges)
        assert len(spent) == (len(CHILDREN) if charges else 0)
    finally:
        site.ledger.close()
