"""The gate under the secure sum: masks, shares of noise, seeds, and what a site refuses."""

import json
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy import stats

from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate, Rows
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_core.errors import GateError, ProtocolError
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.privacy.fixed_point import leave_grid, sensitivity_units
from esn_core.privacy.secure_sum import Attempt, unmask
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_core.severity_network.association import CENTRE, centre_rows

CHILDREN = tuple(f"sub-{i:03d}" for i in range(8))
GASE = np.array([1.0, 2, 3, 4, 5, 6, 7, 7])
POLICY = {
    "epsilon_cap": 8.01,
    "delta": 1e-3,
    "minimum_children": 5,
    "trust": "secure-sum",
    "colluding_sites": 1,
    "exact_sums": True,
}


def no_noise(dimension, scale):
    return np.zeros(dimension, dtype=np.int64)


CENTRE_KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)


class Site:
    """One hospital's gate, with everything behind it."""

    def __init__(self, name, directory, protocol, keys, *, noise=no_noise, **limits):
        identity, mask = keys
        self.protocol = protocol
        self.public = identity.public_key()
        self.ledger = Ledger(directory / f"{name}.sqlite", identity)
        self.audit_path = directory / f"{name}.jsonl"
        self.gate = Gate(
            site=name,
            limits=Limits(**{**POLICY, **limits}),
            ledger=self.ledger,
            audit=AuditLog(self.audit_path, site=name),
            salt=b"s" * 32,
            identity_key=identity,
            mask_key=mask,
            noise=noise,
        )

    @property
    def approved(self):
        return approved_as(self.protocol.sha256, signed_with(CENTRE_KEY, self.protocol))

    def question(self, sites, *, attempt=0, reveal=False):
        number = QuestionId(
            protocol_sha256=self.protocol.sha256, run="r1", phase="centre", round=0, attempt=attempt
        )
        return Question(number, participants=tuple(sites), reveal=reveal)

    def answer(self, sites, **about):
        rows = Rows(CENTRE, centre_rows(GASE), CHILDREN)
        body = self.gate.release(self.question(sites, **about), rows, self.approved)
        return Answer.from_bytes(body, self.public)

    def seed(self, sites):
        body = self.gate.reveal(self.question(sites, reveal=True), self.approved)
        return Answer.from_bytes(body, self.public)


@pytest.fixture
def protocol_of(protocol_content, more_sites):
    """A function that makes the protocol of some sites under the secure sum."""

    def make(*, sites=3, quorum=3, colluding=1, **privacy):
        content = {
            **protocol_content,
            "roster": more_sites[0][:sites],
            "privacy": {
                **protocol_content["privacy"],
                "trust": "secure-sum",
                "colluding_sites": colluding,
                **privacy,
            },
            "rounds": {**protocol_content["rounds"], "quorum": quorum},
        }
        return Protocol.model_validate(content)

    return make


@pytest.fixture
def consortium(tmp_path, more_sites):
    """A function that builds the gates of a protocol's sites; ledgers are closed afterwards."""
    made = []

    def make(protocol, *, only=None, **about):
        sites = {
            name: Site(name, tmp_path, protocol, more_sites[1][name], **about)
            for name in protocol.sites
            if only is None or name in only
        }
        made.extend(sites.values())
        return sites

    yield make
    for site in made:
        site.ledger.close()


def opened(sites, participants, *, seeds=True):
    """Ask every participant, and open the sum."""
    protocol = next(iter(sites.values())).protocol
    masked = {name: sites[name].answer(participants).total for name in participants}
    revealed = {name: sites[name].seed(participants).seed for name in participants} if seeds else {}
    question = str(sites[participants[0]].question(participants).id)
    return unmask(masked, Attempt(protocol.sha256, question, tuple(participants)), seeds=revealed)


def test_the_opened_sum_is_the_sum_of_all_children(protocol_of, consortium):
    protocol = protocol_of()
    total = opened(consortium(protocol), protocol.sites, seeds=False)
    expected = 3 * centre_rows(GASE).sum(axis=0)
    # Each of 24 rows is rounded to half a step of 2^-38.
    assert leave_grid(total, CENTRE) == pytest.approx(expected, abs=24 * 2.0**-39)


def test_what_one_site_sends_is_none_of_its_numbers(protocol_of, consortium):
    protocol = protocol_of()
    site = consortium(protocol)["north"]
    sent = site.answer(protocol.sites)
    paid = site.ledger.paid(str(sent.id))
    assert len(sent.total) == len(paid.total) + 1
    assert not (sent.total[:-1] == paid.total).any()


@pytest.mark.parametrize(("sites", "quorum", "colluding"), [(3, 3, 0), (3, 3, 1), (6, 5, 1), (6, 5, 2)])
def test_the_noise_of_the_honest_sites_alone_is_what_is_claimed(
    protocol_of, consortium, sites, quorum, colluding
):
    """What colluding sites subtract and dropped ones never add is not counted on."""
    asked = []

    def noise(dimension, scale):
        asked.append(scale)
        return no_noise(dimension, scale)

    protocol = protocol_of(sites=sites, quorum=quorum, colluding=colluding)
    consortium(protocol, only=("north",), noise=noise, colluding_sites=0)["north"].answer(protocol.sites)
    claimed = price_of(protocol).of("centre").noise_multiplier * sensitivity_units(CENTRE)
    honest = quorum - colluding
    assert asked[0] * math.sqrt(honest) == pytest.approx(claimed, rel=1e-12)


def test_the_sum_of_shares_has_the_declared_spread(protocol_of, consortium):
    """Real noise, three sites, one question each run; mean and spread over all runs."""
    protocol = protocol_of(colluding=0)
    sites = consortium(protocol, noise=discrete_gaussian, colluding_sites=0)
    multiplier = price_of(protocol).of("centre").noise_multiplier
    draws = []
    for site in sites.values():
        site.gate._ledger = Forgetful()
    exact = 3 * centre_rows(GASE).sum(axis=0)
    for _ in range(1000):
        draws.append(leave_grid(opened(sites, protocol.sites, seeds=False), CENTRE) - exact)
    spread = np.array(draws).ravel() / (multiplier * math.sqrt(5))
    # Standard errors at n = 2000: mean 1/45, sd 1/63; all at 4 sigma. KS statistic 1.95/45 at 0.1 %.
    assert abs(spread.mean()) < 4 / 45
    assert spread.std() == pytest.approx(1, abs=4 / 63)
    assert stats.kstest(spread, "norm").statistic < 1.95 / 45


class Forgetful:
    """Takes every charge for the first, so that one release can be drawn often."""

    def charge(self, charge, total, **_):
        from esn_client.gate.ledger_store import Paid
        from esn_core.messages.facts import LedgerMark

        return Paid("", total, LedgerMark(entries=1, head="0" * 64))


def test_a_question_of_another_set_gets_the_same_noised_vector_for_one_charge(protocol_of, consortium):
    protocol = protocol_of(sites=4, quorum=3)
    sites = consortium(protocol, noise=discrete_gaussian)
    sites["north"].answer(protocol.sites)
    three = tuple(name for name in protocol.sites if name != "south")
    total = opened(sites, three)
    paid = [sites[name].ledger.paid(str(sites[name].question(three).id)).total for name in three]
    assert np.array_equal(total, np.sum(paid, axis=0))
    assert {len(sites[name].ledger.entries()) for name in three} == {1}


def test_the_same_set_gets_the_same_bytes(protocol_of, consortium):
    protocol = protocol_of(sites=4, quorum=3)
    site = consortium(protocol, noise=discrete_gaussian)["north"]
    question = site.question(protocol.sites)
    rows = Rows(CENTRE, centre_rows(GASE), CHILDREN)
    first = site.gate.release(question, rows, site.approved)
    assert site.gate.answered(question, site.approved) == first
    assert site.gate.release(question, rows, site.approved) == first
    reveal = site.question(protocol.sites, reveal=True)
    assert site.gate.reveal(reveal, site.approved) == site.gate.reveal(reveal, site.approved)


def test_a_centre_that_lies_about_a_dropout_gets_one_sum_and_no_second(protocol_of, consortium):
    """It has all answers to two sets of sites. No site reveals its seed for both."""
    protocol = protocol_of(sites=4, quorum=3)
    sites = consortium(protocol, noise=discrete_gaussian)
    everybody = protocol.sites
    three = everybody[:3]
    question = str(sites["north"].question(everybody).id)
    first = {name: sites[name].answer(everybody).total for name in everybody}
    second = {name: sites[name].answer(three).total for name in three}
    seeds = {name: sites[name].seed(everybody).seed for name in everybody}
    whole = unmask(first, Attempt(protocol.sha256, question, everybody), seeds=seeds)
    for name in three:
        with pytest.raises(ProtocolError, match="and is for nobody else"):
            sites[name].seed(three)
    with pytest.raises(ProtocolError, match="masks do not cancel"):
        unmask(second, Attempt(protocol.sha256, question, three), seeds={n: seeds[n] for n in three})
    paid = [sites[name].ledger.paid(question).total for name in everybody]
    assert np.array_equal(whole, np.sum(paid, axis=0))


def test_that_a_seed_was_revealed_survives_the_process(protocol_of, consortium):
    protocol = protocol_of(sites=4, quorum=3)
    site = consortium(protocol)["north"]
    site.answer(protocol.sites)
    seed = site.seed(protocol.sites)
    site.ledger.close()
    again = consortium(protocol, only=("north",))["north"]
    assert again.seed(protocol.sites) == seed
    with pytest.raises(ProtocolError, match="and is for nobody else"):
        again.seed(protocol.sites[:3])


def test_no_seed_is_revealed_before_the_answer_or_without_such_masks(protocol_of, consortium):
    site = consortium(protocol_of(sites=4, quorum=3))["north"]
    with pytest.raises(ProtocolError, match="before its question was answered"):
        site.seed(site.protocol.sites)
    whole = protocol_of()
    site.protocol = whole
    with pytest.raises(ProtocolError, match="this protocol's masks have none to reveal"):
        site.seed(whole.sites)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ((), "none were named"),
        (("north",), "a sum of 1 sites was asked for; the protocol allows 3 or more"),
        (("north", "south"), "a sum of 2 sites was asked for"),
        (("south", "west", "east"), "this one among them"),
        (("north", "west", "south"), "in its order"),
        (("north", "south", "west", "stranger"), "sites of the roster"),
        (("north", "north", "south", "west"), "in its order"),
    ],
)
def test_a_set_of_sites_that_cannot_be_is_refused_before_anything_is_charged(
    protocol_of, consortium, named, words
):
    site = consortium(protocol_of(sites=4, quorum=3))["north"]
    with pytest.raises(ProtocolError, match=words):
        site.answer(named)
    assert site.ledger.entries() == []
    assert not site.audit_path.exists()
    site.answer(site.protocol.sites)
    for attempt in (site.answer, site.seed):
        with pytest.raises(ProtocolError, match=words):
            attempt(named)
    with pytest.raises(ProtocolError, match=words):
        site.gate.answered(site.question(named), site.approved)


def test_a_set_of_sites_is_refused_where_no_masks_are(protocol_of, consortium):
    site = consortium(protocol_of(trust="local"))["north"]
    with pytest.raises(ProtocolError, match="this protocol uses no masks"):
        site.answer(site.protocol.sites)


def test_a_site_that_trusts_nobody_refuses_shared_noise(protocol_of, consortium):
    site = consortium(protocol_of(), trust="local")["north"]
    with pytest.raises(GateError, match=r"this site adds all of it \(limits.trust\)"):
        site.answer(site.protocol.sites)
    assert site.ledger.entries() == []
    consortium(protocol_of(trust="local"), only=("west",), trust="local")["west"].answer(())


def test_a_site_that_fears_more_colluding_sites_refuses(protocol_of, consortium):
    site = consortium(protocol_of(colluding=0))["north"]
    with pytest.raises(GateError, match=r"suffices with 0 colluding sites; this site demands 1"):
        site.answer(site.protocol.sites)
    assert site.ledger.entries() == []


def test_a_masked_release_is_charged_and_logged_with_its_facts(protocol_of, consortium):
    site = consortium(protocol_of(sites=4, quorum=3))["north"]
    answer = site.answer(site.protocol.sites)
    seed = site.seed(site.protocol.sites)
    (entry,) = site.ledger.entries()
    assert (entry.charge.trust, entry.charge.noise_share) == ("secure-sum", 0.5)
    assert (answer.charged.entries, answer.charged.head) == (1, entry.hash)
    assert seed.charged == site.ledger.mark
    lines = [json.loads(line) for line in site.audit_path.read_text().splitlines()]
    assert [(line["event"], line["entry"]) for line in lines] == [("sent", 1), ("revealed", 2)]
    assert seed.seed.hex() not in site.audit_path.read_text()
