"""The gate: its order, what it charges, and that its noise is what it claims."""

import datetime
import json
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from esn_client.gate import gate as egress
from esn_client.gate import policy
from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.frozen_cohort import Person
from esn_client.gate.gate import Gate, Rows
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_core.errors import DataError, GateError, PrivacyBudgetError, ProtocolError
from esn_core.messages.answer import Answer
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark
from esn_core.privacy.fixed_point import noise_units, sensitivity_units, units_per_one
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_core.severity_network.association import CENTRE, centre_rows

SALT = b"s" * 32
UNITS = units_per_one(CENTRE)
IDENTITY = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
PUBLIC = IDENTITY.public_key()
MASK_KEY = X25519PrivateKey.from_private_bytes(b"m" * 32)
MARK = LedgerMark(entries=0, head="0" * 64)
CHILDREN = tuple(f"sub-{i:03d}" for i in range(8))
GASE = np.array([1.0, 2, 3, 4, 5, 6, 7, 7])
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


def no_noise(dimension, scale):
    return np.zeros(dimension, dtype=np.int64)


CENTRE_KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)


class Site:
    """One gate with everything behind it."""

    def __init__(self, directory, protocol, *, noise=no_noise, mask_key=None, **limits):
        self.protocol = protocol
        self.ledger = Ledger(directory / "ledger.sqlite", IDENTITY)
        self.audit_path = directory / "audit.jsonl"
        policy = {
            "epsilon_cap": 8.0,
            "delta": 1e-3,
            "minimum_children": 5,
            "exact_sums": False,
            "trust": "secure-sum",
            "colluding_sites": 1,
            **limits,
        }
        self.gate = Gate(
            site="north",
            limits=Limits(**policy),
            ledger=self.ledger,
            audit=AuditLog(self.audit_path, site="north"),
            salt=SALT,
            identity_key=IDENTITY,
            mask_key=mask_key or MASK_KEY,
            noise=noise,
        )

    @property
    def approved(self):
        return approved_as(self.protocol.sha256, signed_with(CENTRE_KEY, self.protocol))

    def question(self, phase="centre", *, run="r1", attempt=0, after=NOTHING_RELEASED):
        digest = self.protocol.sha256
        number = QuestionId(protocol_sha256=digest, run=run, phase=phase, round=0, attempt=attempt)
        return Question(number, after=after)

    def release(self, rows=None, question=None):
        return self.gate.release(question or self.question(), rows or centre(), self.approved)

    def total(self, rows=None, question=None):
        return Answer.from_bytes(self.release(rows, question), PUBLIC).total

    @property
    def audit(self):
        lines = self.audit_path.read_text().splitlines() if self.audit_path.exists() else []
        return [json.loads(line) for line in lines]

    def left_nothing(self):
        return self.ledger.entries() == [] and self.audit == []


def centre(values=None, participants=CHILDREN):
    rows = centre_rows(GASE) if values is None else np.asarray(values, dtype=float)
    return Rows(CENTRE, rows, tuple(participants))


@pytest.fixture
def protocol(protocol_content):
    return Protocol.model_validate(protocol_content)


@pytest.fixture
def exact_protocol(protocol_content):
    privacy = {**protocol_content["privacy"], "noise": "none"}
    return Protocol.model_validate({**protocol_content, "privacy": privacy})


@pytest.fixture
def make_site(tmp_path, protocol):
    """A function that builds a site; its ledger is closed afterwards."""
    made = []

    def make(protocol=protocol, **about):
        directory = tmp_path / f"site{len(made)}"
        directory.mkdir()
        made.append(Site(directory, protocol, **about))
        return made[-1]

    yield make
    for site in made:
        site.ledger.close()


# --- order ------------------------------------------------------------------------------------------


def refuses(site, error, words, rows=None, question=None):
    with pytest.raises(error, match=words):
        site.release(rows, question)
    return site.left_nothing()


def test_a_question_of_another_protocol_stops_at_the_policy(make_site, exact_protocol):
    site = make_site()
    question = Question(site.question().id.model_copy(update={"protocol_sha256": exact_protocol.sha256}))
    assert refuses(site, GateError, "belongs to another protocol", question=question)


def test_rows_of_another_phase_stop_at_the_policy(make_site):
    site = make_site()
    question = site.question("calibration")
    assert refuses(site, GateError, "release centre is no answer to .* calibration", question=question)


def test_exact_sums_without_consent_stop_at_the_policy(make_site, exact_protocol):
    site = make_site(exact_protocol, trust="local")
    assert refuses(site, GateError, r"has not consented \(limits.exact_sums\)")


@pytest.mark.parametrize("exact", [{"privacy": {"noise": "none"}}, {"analyses": {"exact": ["cohort"]}}])
def test_a_site_that_demands_masks_gives_no_exact_sum_in_the_clear(make_site, protocol_content, exact):
    content = {
        **protocol_content,
        "analyses": {"cohort": True, **exact.get("analyses", {})},
        "privacy": {**protocol_content["privacy"], **exact.get("privacy", {})},
    }
    site = make_site(Protocol.model_validate(content), exact_sums=True)
    # Whatever of the protocol is asked first, and before any of it: at roll call.
    words = r"own exact sums, without noise or masks: .*cohort.*; this site demands masks \(limits.trust\)"
    assert refuses(site, GateError, words)
    with pytest.raises(GateError, match=words):
        disclose(site)
    assert site.left_nothing()


def test_exact_sums_with_consent_leave_as_they_are(make_site, exact_protocol):
    total = make_site(exact_protocol, exact_sums=True, trust="local", noise=None).total()
    assert total == pytest.approx(centre_rows(GASE).sum(0) * UNITS, abs=8)  # rounded rows


def test_a_sum_that_could_not_leave_is_refused_before_anything_is_charged(make_site, protocol_content):
    """The noise of the first phase would leave the grid; others would be asked before it is noticed."""
    shares = {"centre": 0.05, "association": 0.85, "gradient": 0.1, "calibration": 1e-13, "evaluation": 1.0}
    shares["association"] -= shares["calibration"]
    privacy = {**protocol_content["privacy"], "shares": shares}
    site = make_site(Protocol.model_validate({**protocol_content, "privacy": privacy}))
    with pytest.raises(GateError, match=r"release calibration would need noise .* the budget is too small"):
        disclose(site)
    assert site.left_nothing()


def test_a_sum_that_no_message_holds_is_refused_before_anything_is_charged(make_site, monkeypatch):
    monkeypatch.setattr(policy, "LARGEST_NUMBERS_BYTES", 50_000)
    site = make_site()
    with pytest.raises(GateError, match="the sum of gradient has 7436 numbers, 59496 bytes"):
        disclose(site)
    assert site.left_nothing()


def test_the_policy_comes_before_the_minimum_count(make_site, exact_protocol):
    few = centre(np.ones((1, 2)), CHILDREN[:1])
    assert refuses(make_site(exact_protocol, trust="local"), GateError, "has not consented", rows=few)


@pytest.mark.parametrize(("children", "minimum"), [(4, 3), (0, 3), (7, 8)])
def test_too_few_children_stop_at_the_count_of_the_site_or_the_protocol(make_site, children, minimum):
    def unreachable(*_):
        raise AssertionError("noise was drawn for a sum that may not leave")

    site = make_site(minimum_children=minimum, noise=unreachable)
    few = centre(centre_rows(GASE[:children]), CHILDREN[:children])
    words = f"release centre would sum fewer than the minimum of {max(minimum, 5)} children"
    assert refuses(site, GateError, words, rows=few)


def test_scans_of_one_child_do_not_make_a_minimum(make_site):
    assert refuses(make_site(), GateError, "fewer than the minimum", rows=centre(None, ["sub-000"] * 8))


def test_failing_noise_leaves_nothing(make_site):
    def broken(dimension, scale):
        raise GateError("no entropy")

    assert refuses(make_site(noise=broken), GateError, "no entropy")


def test_the_cap_stops_after_the_noise_and_leaves_nothing(make_site):
    drawn = []

    def noise(dimension, scale):
        drawn.append(scale)
        return no_noise(dimension, scale)

    assert refuses(make_site(noise=noise, epsilon_cap=0.01), PrivacyBudgetError, "the site's cap is 0.01")
    assert len(drawn) == 1


def test_the_charge_comes_before_the_audit_line_and_the_bytes(make_site):
    site = make_site()
    site.audit_path.mkdir()
    with pytest.raises(GateError, match="audit log cannot be written to"):
        site.release()
    assert len(site.ledger.entries()) == 1
    site.audit_path.rmdir()
    # It was paid for: the same question gets it.
    assert site.gate.answered(site.question(), site.approved) is not None
    assert len(site.ledger.entries()) == 1
    assert [line["event"] for line in site.audit] == ["sent"]


def test_a_release_is_charged_with_its_facts(make_site, protocol):
    site = make_site()
    site.release()
    (entry,) = site.ledger.entries()
    charge = entry.charge
    assert charge.noise_multiplier == price_of(protocol).of("centre").noise_multiplier
    assert (charge.l2_bound, charge.dimension, charge.run) == (math.sqrt(5), 2, "r1")
    assert charge.patients == tuple(sorted(egress.patient_hashes(CHILDREN, salt=SALT, simulated=True)))


# --- what is summed ----------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=8, max_size=8))
def test_whatever_the_rows_are_one_child_moves_the_sum_by_its_bound_at_most(
    tmp_path_factory, protocol_content, values
):
    """Through the real gate, without noise: eight children, then seven of them."""
    sums = []
    for count in (8, 7):
        site = Site(tmp_path_factory.mktemp("site"), Protocol.model_validate(protocol_content))
        sums.append(site.total(centre(values[:count], CHILDREN[:count])))
        site.ledger.close()
    apart = sums[0] - sums[1]
    assert math.hypot(*map(float, apart)) <= sensitivity_units(CENTRE)


def test_scans_of_one_child_are_added_before_the_clip(make_site):
    twice = np.vstack([np.ones((8, 2)), [[100.0, 0.0]], [[-99.0, 1.0]]])
    total = make_site().total(centre(twice, (*CHILDREN, "sub-000", "sub-000")))
    # sub-000: (1, 1) + (100, 0) + (-99, 1) = (2, 2), clipped to sqrt(5).
    assert total / UNITS == pytest.approx([7 + math.sqrt(2.5), 7 + math.sqrt(2.5)], rel=1e-12)


def test_a_row_that_is_not_finite_adds_nothing_and_is_no_reason_to_refuse(make_site):
    values = np.ones((8, 2))
    values[3] = [math.nan, math.inf]
    assert make_site().total(centre(values)) / UNITS == pytest.approx([7, 7])


def test_rows_of_another_shape_are_refused():
    with pytest.raises(GateError, match=r"release centre needs rows of shape \(8, 2\), not \(8, 3\)"):
        centre(np.ones((8, 3)))


def test_a_budget_too_small_for_the_grid_is_refused_before_it_is_spent(make_site, protocol_content):
    privacy = {**protocol_content["privacy"], "epsilon": 1e-3, "delta": 1e-9}
    site = make_site(Protocol.model_validate({**protocol_content, "privacy": privacy}))
    assert refuses(site, GateError, "the budget is too small")


# --- once --------------------------------------------------------------------------------------------


def test_the_same_question_gets_the_same_bytes_for_one_charge(make_site):
    site = make_site(noise=discrete_gaussian)
    first = site.release()
    assert site.release() == first
    assert site.gate.answered(site.question(), site.approved) == first
    assert len(site.ledger.entries()) == 1
    assert len({line["sha256"] for line in site.audit}) == 1


def test_another_attempt_gets_the_same_sum_for_one_charge(make_site):
    site = make_site(noise=discrete_gaussian)
    first, second = site.total(), site.total(question=site.question(attempt=1))
    assert np.array_equal(first, second)
    assert len(site.ledger.entries()) == 1


def test_the_same_id_with_other_content_is_refused(make_site):
    site = make_site()
    site.release()
    other = site.question(after=TranscriptMark(sums=1, head="5" * 64))
    with pytest.raises(ProtocolError, match="asked again with other content"):
        site.release(question=other)
    with pytest.raises(ProtocolError, match="asked again with other content"):
        site.gate.answered(other, site.approved)
    assert len(site.audit) == len(site.ledger.entries()) == 1


def test_a_second_run_is_refused(make_site):
    site = make_site()
    site.release()
    with pytest.raises(PrivacyBudgetError, match="already answered in run r1"):
        site.release(question=site.question(run="r2"))


def test_nothing_was_answered_before_it_was_asked(make_site):
    site = make_site()
    assert site.gate.answered(site.question(), site.approved) is None


# --- roll call ---------------------------------------------------------------------------------------


HELD_OUT = tuple(f"sub-10{i}" for i in range(1, 6))


def disclose(site, *, training=CHILDREN, held_out=HELD_OUT, **others):
    children = {"training": training, "held-out": held_out}
    cohort = [Person(label, of) for of, labels in {**children, **others}.items() for label in labels]
    about = {"children": children, "others": others, "cohort": cohort}
    return site.gate.disclose(site.question("roll-call"), FACTS, site.approved, **about)


def test_a_site_that_can_answer_to_the_end_says_its_facts(make_site):
    site = make_site()
    assert Answer.from_bytes(disclose(site), PUBLIC).facts == FACTS
    assert site.ledger.entries() == []


@pytest.mark.parametrize("split", ["training", "held_out"])
def test_a_site_with_too_few_children_in_a_split_refuses_before_anything_is_spent(make_site, split):
    site = make_site()
    with pytest.raises(GateError, match="fewer than the minimum of 5 children"):
        disclose(site, **{split: CHILDREN[:4]})
    assert site.left_nothing()


def test_a_site_whose_cap_is_below_the_whole_price_refuses_before_anything_is_spent(make_site):
    with pytest.raises(PrivacyBudgetError, match=r"epsilon 8.00 .* the site's cap is 7.9"):
        disclose(make_site(epsilon_cap=7.9))


def test_a_site_without_consent_refuses_at_roll_call(make_site, exact_protocol):
    with pytest.raises(GateError, match="has not consented"):
        disclose(make_site(exact_protocol, trust="local"))
    disclose(make_site(exact_protocol, exact_sums=True, trust="local"))


def test_a_study_under_way_still_passes_the_roll_call(make_site):
    site = make_site()
    site.release()
    disclose(site)


# --- words -------------------------------------------------------------------------------------------


def test_a_refusal_carries_the_class_of_the_error_and_nothing_else(make_site):
    site = make_site()
    body = site.gate.refuse(site.question(), DataError("/data/hospital/sub-007: GASE is 5"))
    answer = Answer.from_bytes(body, PUBLIC)
    assert (answer.refusal.error, answer.total, answer.facts) == ("DataError", None, None)
    for secret in (b"sub-", b"/data", b"GASE"):
        assert secret not in body
        assert secret not in site.audit_path.read_bytes()
    assert [line["event"] for line in site.audit] == ["refused"]


def test_nothing_that_leaves_or_is_logged_names_a_child_or_a_path(make_site, tmp_path):
    site = make_site()
    left = site.release() + disclose(site) + site.audit_path.read_bytes()
    for secret in (b"sub-", str(tmp_path).encode(), SALT):
        assert secret not in left
    assert b"sub-" not in (site.audit_path.parent / "ledger.sqlite").read_bytes()
    plain = {"at", "previous", "site", "event", "question", "attempt", "bytes", "sha256"}
    assert [set(line) - plain for line in site.audit] == [{"entry", "entry_hash"}, set()]


# --- noise -------------------------------------------------------------------------------------------


def test_the_noise_has_the_declared_spread_and_shape(protocol):
    multiplier = price_of(protocol).of("centre").noise_multiplier
    sd = noise_units(CENTRE, multiplier, share=1.0)
    noise = discrete_gaussian(20_000, sd)
    assert noise.dtype == np.int64
    # Standard errors at n = 20,000: mean 1/141, sd 1/200, KS statistic 1.63/141 at 1 %; all at 4 sigma.
    assert abs(noise.mean() / sd) < 4 / 141
    assert noise.std() / sd == pytest.approx(1, abs=4 / 200)
    assert stats.kstest(noise / sd, "norm").statistic < 2.5 / 141
    assert abs(np.corrcoef(noise[::2], noise[1::2])[0, 1]) < 4 / 100


def test_two_draws_of_noise_differ():
    assert not np.array_equal(discrete_gaussian(4, 1e6), discrete_gaussian(4, 1e6))


def test_the_gate_asks_for_the_declared_noise(make_site, protocol):
    asked = []

    def noise(dimension, scale):
        asked.append((dimension, scale))
        return np.array([5, -7])

    total = make_site(noise=noise).total()
    multiplier = price_of(protocol).of("centre").noise_multiplier
    assert asked == [(2, multiplier * sensitivity_units(CENTRE))]
    assert np.array_equal(total - [5, -7], make_site().total())
