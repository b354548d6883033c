"""Messages survive the way there and back; nothing else is taken for a message."""

import json
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save

from esn_core.errors import ProtocolError
from esn_core.identity.signing import SIGNATURE_BYTES, sign
from esn_core.messages.answer import Answer, Refusal
from esn_core.messages.envelope import LARGEST_HEADER_BYTES, LARGEST_MESSAGE_BYTES
from esn_core.messages.facts import LedgerMark, SiteFacts, size_band
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import TranscriptMark

ID = {"protocol_sha256": "ab" * 32, "run": "r1", "phase": "gradient", "round": 3, "attempt": 0}
FACTS = {
    "software": {"torch": "2.13.0+cpu"},
    "recipe_sha256": "1" * 64,
    "atlas_sha256": "2" * 64,
    "template_sha256": "3" * 64,
    "cohort_band": "16-31",
    "said_at": "2026-11-25T00:00:00Z",
    "ledger": {"entries": 2, "head": "4" * 64},
    "ledger_seen": {"entries": 0, "head": "0" * 64},
}
PAID = LedgerMark(entries=7, head="5" * 64)
BYTES = np.frombuffer(b"released", dtype=np.uint8)


def id_of(**changes):
    return QuestionId.model_validate({**ID, **changes})


def packed(arrays_by_name, header):
    """A message as a sender who holds the key could write it."""
    return save(arrays_by_name, {"esn": header if isinstance(header, str) else json.dumps(header)})


def sealed(body, purpose):
    """Bytes of any kind with the signature that a message of a purpose needs."""
    return body + sign(body, KEY, purpose)


def asked(number):
    """A question's header as it stands on the wire."""
    mark = {"sums": 0, "head": "0" * 64}
    more = {"after": mark, "offset": 0, "more": False, "format": 2}
    return {"id": number, "participants": [], "reveal": False, "entries_seen": 0, **more}


KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key()
VALID_QUESTION = Question(id_of(), relayed=b"what was released").to_bytes(KEY)
VALID_ANSWER = Answer(id_of(), "north", total=np.arange(3), charged=PAID).to_bytes(KEY)
UNSIGNED = VALID_QUESTION[:-SIGNATURE_BYTES]


@given(st.binary(max_size=50), st.integers(0, 2**53), st.booleans())
def test_a_question_survives_the_way(relayed, offset, more):
    after = TranscriptMark(sums=3, head="7" * 64)
    question = Question(id_of(), after=after, relayed=relayed, offset=offset, more=more)
    read = Question.from_bytes(question.to_bytes(KEY), PUBLIC)
    assert read == question
    assert read.content_sha256 == question.content_sha256


@given(arrays(np.int64, st.integers(1, 5)))
def test_an_answer_survives_the_way(total):
    after = TranscriptMark(sums=3, head="7" * 64)
    sent = Answer(id_of(), "north", total=total, charged=PAID, after=after)
    read = Answer.from_bytes(sent.to_bytes(KEY), PUBLIC)
    assert read.after == after
    assert np.array_equal(read.total, total)
    assert (read.id, read.site, read.facts, read.refusal) == (id_of(), "north", None, None)
    assert (read.seed, read.noted, read.charged) == (None, None, PAID)


@given(st.binary(min_size=32, max_size=32))
def test_a_seed_survives_the_way(seed):
    read = Answer.from_bytes(Answer(id_of(), "north", seed=seed, charged=PAID).to_bytes(KEY), PUBLIC)
    assert (read.seed, read.total, read.charged) == (seed, None, PAID)


def test_the_set_of_sites_survives_the_way_and_is_no_part_of_the_content():
    plain = Question(id_of())
    asked = Question(id_of(), participants=("north", "west"), reveal=True, entries_seen=12)
    assert Question.from_bytes(asked.to_bytes(KEY), PUBLIC) == asked
    assert asked.content_sha256 == plain.content_sha256


def test_facts_and_refusals_survive_the_way():
    facts = SiteFacts.model_validate(FACTS)
    assert Answer.from_bytes(Answer(id_of(), "north", facts=facts).to_bytes(KEY), PUBLIC).facts == facts
    refusal = Refusal(error="GateError")
    assert (
        Answer.from_bytes(Answer(id_of(), "north", refusal=refusal).to_bytes(KEY), PUBLIC).refusal == refusal
    )


def test_a_note_of_what_is_there_survives_the_way():
    read = Answer.from_bytes(Answer(id_of(), "north", noted=12).to_bytes(KEY), PUBLIC)
    assert (read.noted, read.total, read.charged) == (12, None, None)


def test_the_id_leaves_the_attempt_out():
    assert str(id_of(attempt=7)) == str(id_of()) == f"{'ab' * 8}/r1/gradient/3"


@pytest.mark.parametrize(
    "changed", [{"protocol_sha256": "ab" * 31 + "cd"}, {"run": "r2"}, {"phase": "centre"}, {"round": 4}]
)
def test_the_content_depends_on_every_part_of_the_id_but_the_attempt(changed):
    assert Question(id_of(**changed)).content_sha256 != Question(id_of()).content_sha256
    assert Question(id_of(attempt=5)).content_sha256 == Question(id_of()).content_sha256


def test_the_content_depends_on_what_was_released_before_and_not_on_what_is_shown_of_it():
    plain, after = Question(id_of()), TranscriptMark(sums=1, head="7" * 64)
    assert Question(id_of(), after=after).content_sha256 != plain.content_sha256
    assert Question(id_of(), relayed=b"part", offset=9, more=True).content_sha256 == plain.content_sha256


def read_both(body):
    """Read signed bytes as a question and as an answer; only `ProtocolError` may come of it."""
    for kind, purpose in ((Question, "question"), (Answer, "answer")):
        try:
            kind.from_bytes(sealed(body, purpose), PUBLIC)
        except ProtocolError:
            continue


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(body):
    for kind, purpose in ((Question, "question"), (Answer, "answer")):
        with pytest.raises(ProtocolError):
            kind.from_bytes(sealed(body, purpose), PUBLIC)


@given(st.sampled_from([VALID_QUESTION, VALID_ANSWER]), st.data())
def test_a_mutated_message_is_read_or_refused(valid, data):
    body = bytearray(valid[:-SIGNATURE_BYTES])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            break
    read_both(bytes(body))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_a_header_of_any_json_is_read_or_refused(content):
    header = json.dumps({"__metadata__": {"esn": json.dumps(content)}, "x": content}).encode()
    read_both(struct.pack("<Q", len(header)) + header)


@given(st.dictionaries(st.sampled_from([*ID, "x"]), st.none() | st.integers() | st.text(max_size=70)))
def test_an_id_of_any_values_is_read_or_refused(changes):
    read_both(packed({}, asked({**ID, **changes})))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "safetensors file with an 'esn' header"),
        (UNSIGNED[:-1], "safetensors file"),
        (UNSIGNED + b"\0", "safetensors file"),
        (save({"weights": np.arange(3.0)}), "safetensors file"),
        (save({"weights": np.arange(3.0)}, {"other": "{}"}), "safetensors file"),
        (packed({}, asked({**ID, "extra": 1})), "header cannot be used: id.extra"),
        (packed({}, asked({**ID, "round": -1})), "header cannot be used: id.round"),
        (packed({}, asked({**ID, "run": "../x"})), "header cannot be used: id.run"),
        (packed({}, asked({**ID, "run": "r1\n"})), "header cannot be used: id.run"),
        (packed({}, asked({**ID, "phase": "all", "x": 0})), "id.phase, id.x"),
        (packed({}, "no json"), "written by an older esn-federated: message format 1"),
        (packed({}, {**asked(ID), "participants": ["no site"]}), "participants.0"),
        (packed({}, {**asked(ID), "participants": ["a"] * 1001}), "participants"),
        (packed({}, {**asked(ID), "reveal": "maybe"}), "reveal"),
        (packed({}, {**asked(ID), "entries_seen": -1}), "entries_seen"),
        (packed({"weights": BYTES}, asked(ID)), r"no array but 'relayed', not \['weights'\]"),
        (packed({"relayed": np.arange(3.0)}, asked(ID)), "must be uint8 vectors"),
        (packed({"relayed": np.arange(3)}, asked(ID)), "must be uint8 vectors"),
        (packed({"relayed": np.ones((2, 2), np.uint8)}, asked(ID)), "must be uint8 vectors"),
        (packed({"relayed": np.array(1, np.uint8)}, asked(ID)), "must be uint8 vectors"),
        (packed({"../etc": BYTES}, asked(ID)), "with plain names"),
        (packed({}, {**asked(ID), "after": {"sums": -1, "head": "0" * 64}}), "after.sums"),
        (packed({}, {**asked(ID), "after": {"sums": 1, "head": "x"}}), "after.head"),
        (packed({}, {**asked(ID), "offset": -1}), "offset"),
        (
            packed({f"a{'b' * i}": BYTES[:0] for i in range(600)}, asked(ID)),
            "header may hold 65536 bytes at most",
        ),
        (bytes(LARGEST_MESSAGE_BYTES + 1 - SIGNATURE_BYTES), "may hold 7340032 bytes at most, not 7340033"),
        (struct.pack("<Q", LARGEST_HEADER_BYTES + 1) + b"{}", "header may hold 65536 bytes"),
        (struct.pack("<Q", 2**64 - 1), "header may hold 65536 bytes"),
    ],
)
def test_what_is_no_question_is_refused_by_what_is_wrong(body, words):
    with pytest.raises(ProtocolError, match=words):
        Question.from_bytes(sealed(body, "question"), PUBLIC)


@pytest.mark.parametrize(
    ("arrays_by_name", "changes", "words"),
    [
        ({"total": np.arange(3.0)}, {}, "must be int64 vectors"),
        ({"total": np.arange(3), "more": np.arange(2)}, {}, "no array but 'total'"),
        ({}, {}, "one of a released sum, facts, a seed, a note or a refusal"),
        ({}, {"noted": -1}, "cannot be used: noted"),
        (
            {"total": np.arange(3)},
            {"facts": FACTS},
            "one of a released sum, facts, a seed, a note or a refusal",
        ),
        ({"total": np.arange(3)}, {}, "comes with its ledger entry"),
        ({}, {"facts": FACTS, "charged": PAID.model_dump()}, "comes with its ledger entry"),
        ({}, {"seed": "00", "charged": PAID.model_dump()}, "cannot be used: seed"),
        ({"total": np.arange(3)}, {"charged": {"entries": -1, "head": "0" * 64}}, "charged.entries"),
        ({"total": np.arange(3)}, {"site": "\x1b[2J"}, "cannot be used: site"),
        ({}, {"refusal": {"error": "GateError: /data/sub-001"}}, "refusal.error"),
        ({}, {"facts": {**FACTS, "cohort_band": "x"}}, "facts.cohort_band"),
        ({}, {"facts": {**FACTS, "cohort_band": "17-18"}}, "facts.cohort_band"),
        ({}, {"facts": {**FACTS, "cohort_band": "0-0"}}, "facts.cohort_band"),
        ({}, {"facts": {**FACTS, "atlas_sha256": "<script>"}}, "facts.atlas_sha256"),
        ({}, {"facts": {**FACTS, "software": {"torch": "<script>"}}}, "facts.software.torch"),
        ({}, {"facts": {**FACTS, "software": {f"p{i}": "1" for i in range(33)}}}, "facts.software"),
    ],
)
def test_what_is_no_answer_is_refused_by_what_is_wrong(arrays_by_name, changes, words):
    mark = {"sums": 0, "head": "0" * 64}
    body = packed(arrays_by_name, {"id": ID, "site": "north", "after": mark, "format": 2, **changes})
    with pytest.raises(ProtocolError, match=words):
        Answer.from_bytes(sealed(body, "answer"), PUBLIC)


SECRETS = st.floats(0.0, 1.0, exclude_max=True)


@given(st.integers(0, 10**6), SECRETS)
def test_the_band_of_a_cohort_holds_its_size_and_is_accepted(children, secret):
    band = size_band(children, secret=secret)
    low, high = map(int, band.split("-"))
    assert low <= children <= high <= max(2 * low, 15)
    assert SiteFacts.model_validate({**FACTS, "cohort_band": band})


@given(st.integers(16, 10**6), st.integers(-1, 1), SECRETS)
def test_no_size_is_on_an_edge_for_every_secret(children, more, secret):
    """Whoever sees a band change does not know at which size: by some secrets it does not change there."""
    here, there = children, children + more
    bands = {size_band(here, secret=s) for s in (0.0, 0.25, 0.5, 0.75, secret)}
    assert bands & {size_band(there, secret=s) for s in (0.0, 0.25, 0.5, 0.75, secret)}


@given(st.data())
def test_a_message_with_any_byte_changed_is_not_the_centres(data):
    body = bytearray(VALID_QUESTION)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError, match="must be signed by the centre's signing key"):
        Question.from_bytes(bytes(body), PUBLIC)


@pytest.mark.parametrize(
    "body",
    [b"", bytes(64), UNSIGNED, UNSIGNED + KEY.sign(UNSIGNED), sealed(UNSIGNED, "answer"), VALID_ANSWER],
    ids=["nothing", "zeros", "unsigned", "no purpose", "another purpose", "an answer"],
)
def test_what_is_not_signed_as_a_question_is_none(body):
    with pytest.raises(ProtocolError, match="must be signed by the centre's signing key"):
        Question.from_bytes(body, PUBLIC)


def test_a_signature_of_another_key_is_none():
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    with pytest.raises(ProtocolError, match="must be signed by the centre's"):
        Question.from_bytes(VALID_QUESTION, other.public_key())
    with pytest.raises(ProtocolError, match="not signed by the site's identity key"):
        Answer.from_bytes(VALID_ANSWER, other.public_key())


def test_equal_messages_have_equal_bytes():
    assert Question(id_of(), relayed=b"what was released").to_bytes(KEY) == VALID_QUESTION
    assert Answer(id_of(), "north", total=np.arange(3), charged=PAID).to_bytes(KEY) == VALID_ANSWER
