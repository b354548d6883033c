"""The centre chooses no number: a site computes them from sums that it adds up itself, of signed answers.

The centre here has its own key and lies in every way that it can: it shows sums that were never released,
leaves answers out, and shows different sums to different sites.
"""

import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from esn_client.site.transcripts import Transcripts
from esn_core.errors import ConfigError, ProtocolError, StudyError
from esn_core.identity.signing import SIGNATURE_BYTES, sign
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark
from esn_core.privacy.secure_sum import Attempt, mask
from esn_core.protocol.phases import PHASES
from esn_core.transcript.course import steering
from esn_core.transcript.relay import first_sum, largest_sum, read_sum, relayed_sum
from esn_core.transcript.transcript import Transcript
from esn_server.study import relay as centres_relay

FOUR = ("north", "south", "west", "east")
TRUSTS = {
    "local": {"trust": "local", "training": {"rounds": 1}},
    "masks": {"trust": "secure-sum", "training": {"rounds": 1}},
    "masks and seeds": {"trust": "secure-sum", "sites": FOUR, "quorum": 3, "training": {"rounds": 1}},
}


@pytest.fixture(scope="module")
def studies(build_consortium, tmp_path_factory):
    """A finished study under each kind of trust."""
    opened, made = [], {}
    for name, rules in TRUSTS.items():
        consortium = build_consortium(tmp_path_factory.mktemp("study"), opened, **rules)
        consortium.study()
        made[name] = consortium
    yield made
    for file in opened:
        file.close()


def questions(consortium, node=1):
    return [consortium.link.read(body) for to, body, _ in consortium.link.carried if to == node]


def stream(consortium):
    """All that was relayed to the first site, which put together is the transcript."""
    whole = b""
    for question in questions(consortium):
        assert question.offset == len(whole) or not question.relayed
        whole += question.relayed
    return whole


def shown(consortium):
    """The messages of each sum that was shown, and the transcript before it."""
    transcript, left = Transcript(consortium.protocol, "r1"), stream(consortium)
    while left:
        messages, length = first_sum(left, largest=largest_sum(consortium.protocol))
        yield transcript, messages
        transcript.append(read_sum(messages, transcript))
        left = left[length:]


def first_shown(consortium):
    return next(shown(consortium))


@pytest.mark.parametrize("name", TRUSTS)
def test_what_is_relayed_adds_up_to_what_the_centre_read_and_is_sent_once(studies, name):
    consortium = studies[name]
    transcript = [transcript for transcript, _ in shown(consortium)][-1]
    asked = [question for question in questions(consortium) if question.after != NOTHING_RELEASED]
    assert asked[-1].after == transcript.mark
    assert [s.phase for s in transcript.sums] == ["centre", "association", "gradient", "calibration"]
    assert {s.phase for s in transcript.sums} == steering(consortium.protocol)
    site = consortium.link.hospitals[1]._transcripts.of(consortium.protocol, "r1")
    assert site.received == len(stream(consortium))


@pytest.mark.parametrize("name", TRUSTS)
def test_a_site_computes_the_numbers_that_the_centre_computes(studies, name):
    consortium = studies[name]
    transcript = [transcript for transcript, _ in shown(consortium)][-1]
    site = consortium.link.hospitals[1]._transcripts.of(consortium.protocol, "r1")
    for phase in ("association", "gradient", "calibration", "evaluation"):
        ours, theirs = transcript.arguments(phase, 0).arrays, site.arguments(phase, 0).arrays
        assert {n: a.tobytes() for n, a in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}
        assert set(ours) == PHASES[phase].arrays


# --- what is shown as released -----------------------------------------------------------------------------


def altered(body, at=-SIGNATURE_BYTES - 9):
    changed = bytearray(body)
    changed[at] ^= 1
    return bytes(changed)


def resigned(consortium, message, **changes):
    """What a site says that sides with the centre."""
    place, body = message
    site = consortium.protocol.sites[place]
    key = consortium.ledgers[site]._store._key
    answer = Answer.from_bytes(body, key.public_key())
    return place, replace(answer, **changes).to_bytes(key)


LIES = {
    "one number of an answer changed": (
        lambda c, m: [(m[0][0], altered(m[0][1])), *m[1:]],
        "not signed by the site's identity key",
    ),
    "an answer without its signature": (
        lambda c, m: [(m[0][0], m[0][1][:-SIGNATURE_BYTES]), *m[1:]],
        "not signed by the site's identity key",
    ),
    "an answer in another site's name": (
        lambda c, m: [(m[1][0], m[0][1]), *m[1:]],
        "not signed by the site's identity key",
    ),
    "an answer twice": (lambda c, m: [m[0], *m], "two answers of north, or none"),
    "an answer left out": (
        lambda c, m: m[1:],
        "of 3 sites or more|needs an answer of each|seed of each|do not cancel",
    ),
    "answers in another order": (
        lambda c, m: [m[1], m[0], *m[2:]],
        "in the order of the roster",
    ),
    "no answer at all": (lambda c, m: [], "answers to one question"),
    "a site that the roster has not": (lambda c, m: [(77, m[0][1]), *m[1:]], "no site at place 77"),
    "an answer to another round": (
        lambda c, m: [resigned(c, m[0], id=number(c, round=1)), *m[1:]],
        "answers to one question",
    ),
    "answers to a round that the protocol has not": (
        lambda c, m: [resigned(c, one, id=number(c, round=1)) for one in m],
        "has no round 1 of centre",
    ),
    "answers of another run": (
        lambda c, m: [resigned(c, one, id=number(c, run="r2")) for one in m],
        "no part of this run",
    ),
    "answers to another protocol": (
        lambda c, m: [resigned(c, one, id=number(c, protocol_sha256="f" * 64)) for one in m],
        "no part of this run",
    ),
    "an answer that was made from other sums": (
        lambda c, m: [resigned(c, m[0], after=TranscriptMark(sums=1, head="a" * 64)), *m[1:]],
        "north answered .* after other sums",
    ),
}


def number(consortium, **changes):
    about = {"protocol_sha256": consortium.protocol.sha256, "run": "r1", "phase": "centre", "round": 0}
    return QuestionId(**{**about, "attempt": 0, **changes})


@pytest.mark.parametrize("name", TRUSTS)
@pytest.mark.parametrize("lie", LIES)
def test_a_sum_that_was_not_released_is_refused(studies, tmp_path, name, lie):
    consortium = studies[name]
    _, messages = first_shown(consortium)
    tell, words = LIES[lie]
    site = Transcripts(tmp_path / "t.sqlite", salt=b"s" * 32).of(consortium.protocol, "r1")
    question = Question(number(consortium, phase="association"), after=TranscriptMark(sums=1, head="b" * 64))
    with pytest.raises(ProtocolError, match=words):
        site.take(replace(question, relayed=relayed_sum(tell(consortium, messages))))
    # And then the truth.
    mark = [t.mark for t, _ in shown(consortium)][1]
    assert site.take(replace(question, relayed=relayed_sum(messages), after=mark))


def test_a_sum_of_fewer_sites_than_the_quorum_is_refused(studies):
    """Each has signed its own answer; a centre alone may choose neither which, nor how few."""
    transcript, messages = first_shown(studies["local"])
    with pytest.raises(ProtocolError, match="a released sum is of 3 sites or more"):
        read_sum(messages[:2], transcript)


def test_a_seed_that_is_missing_or_another_ones_opens_nothing(studies):
    consortium = studies["masks and seeds"]
    transcript, messages = first_shown(consortium)
    answers, seeds = messages[: len(FOUR)], messages[len(FOUR) :]
    assert len(seeds) == len(FOUR)
    for wrong, words in (
        (seeds[:-1], "comes with the seed of each of its sites"),
        ([], "comes with the seed of each of its sites"),
        ([*seeds, seeds[0]], "two answers of north"),
        ([resigned(consortium, seeds[0], seed=b"x" * 32), *seeds[1:]], "masks do not cancel"),
    ):
        with pytest.raises(ProtocolError, match=words):
            read_sum([*answers, *wrong], transcript)


def test_the_sum_of_another_protocol_is_refused(studies, build_consortium, tmp_path_factory, tmp_path):
    """Its sites are the same, and have signed it."""
    opened = []
    other = build_consortium(
        tmp_path_factory.mktemp("other"), opened, trust="secure-sum", training={"rounds": 2}
    )
    other.study()
    site = Transcripts(tmp_path / "t.sqlite", salt=b"s" * 32).of(studies["masks"].protocol, "r1")
    mine = Question(number(studies["masks"], phase="association"))
    with pytest.raises(ProtocolError, match="no part of this run"):
        site.take(replace(mine, relayed=stream(other)))
    for file in opened:
        file.close()


@pytest.mark.parametrize(
    "relayed", [b"\xff" * 8, relayed_sum([(0, b"x")])[:-1] + b"yz", bytes(4) + b"\0" * 3]
)
def test_bytes_that_are_no_sum_are_refused(studies, tmp_path, relayed):
    site = Transcripts(tmp_path / "t.sqlite", salt=b"s" * 32).of(studies["masks"].protocol, "r1")
    question = Question(
        number(studies["masks"]), relayed=relayed, after=TranscriptMark(sums=1, head="b" * 64)
    )
    with pytest.raises(ProtocolError):
        site.take(question)
    assert site.received == 0


@pytest.mark.parametrize(
    "name", ["coefficients", "edge_weights", "calibration", "partial", "weights", "combat"]
)
def test_a_question_that_brings_numbers_is_none(studies, name):
    """As questions once did: a centre could choose each of them."""
    consortium = studies["masks"]
    honest = questions(consortium)[-1].to_bytes(consortium.link.centre_key)
    length = int.from_bytes(honest[:8], "little")
    header = json.loads(honest[8 : 8 + length])["__metadata__"]["esn"]
    body = save({name: np.frombuffer(np.array([0.5]).tobytes(), np.uint8)}, {"esn": header})
    signed = body + sign(body, consortium.link.centre_key, "question")
    with pytest.raises(ProtocolError, match="a question holds no array but 'relayed'"):
        consortium.link.hospitals[1].reply(signed)


def test_a_question_after_sums_that_a_site_does_not_know_is_refused(studies, more_sites):
    """Nor is one after fewer sums than were released, to be asked twice at two places of the study."""
    consortium = studies["masks"]
    asked, key = questions(consortium)[-1], consortium.link.centre_key
    public = more_sites[1]["north"][0].public_key()
    fresh = number(consortium, phase="evaluation")
    marks = {"another": TranscriptMark(sums=2, head="c" * 64), "fewer": NOTHING_RELEASED}
    for after in marks.values():
        question = Question(fresh, asked.participants, after=after)
        said = Answer.from_bytes(consortium.link.hospitals[1].reply(question.to_bytes(key)), public)
        assert said.refusal.error == "ProtocolError"


# --- different sums to different sites ---------------------------------------------------------------------


class TwoFaced:
    """A link of a centre that shows some sites another sum than the others."""

    def __init__(self, link, other):
        self._link, self._other = link, other

    def __getattr__(self, name):
        return getattr(self._link, name)

    def send(self, node_id, body):
        question = self._link.read(body)
        if question.id.phase != "roll-call":
            body = self._other(node_id, question).to_bytes(self._link.centre_key)
        return self._link.send(node_id, body)


def test_two_sites_that_were_told_of_different_sums_open_none_together(make_consortium, more_sites):
    """East sides with the centre, and signs two answers: one for north, one for the others."""
    consortium = make_consortium(trust="secure-sum", sites=FOUR, training={"rounds": 1})
    protocol, keys = consortium.protocol, more_sites[1]

    def other(node, question):
        if node != 1 or not question.relayed or question.id.phase != "association":
            return question
        messages, _ = first_sum(question.relayed, largest=largest_sum(protocol))
        place, body = messages[-1]
        identity, hidden = keys["east"]
        answer = Answer.from_bytes(body, identity.public_key())
        attempt = Attempt(protocol.sha256, str(answer.id), FOUR)
        lied = mask(
            np.array([7, 1 << 30]),
            attempt,
            site="east",
            private_key=hidden,
            public_keys={site: keys[site][1].public_key() for site in FOUR},
            self_masked=False,
        )
        told = [*messages[:-1], (place, replace(answer, total=lied).to_bytes(identity))]
        transcript = Transcript(protocol, "r1")
        mark = transcript.append(read_sum(told, transcript))
        return replace(question, relayed=relayed_sum(told), after=mark)

    consortium.rounds._link = consortium.rounds._courier._link = TwoFaced(consortium.link, other)
    with pytest.raises(StudyError, match="association, round 0: the masks do not cancel"):
        consortium.study()


def test_without_masks_the_next_question_shows_it(make_consortium):
    """Each answer names the sums that it was made from."""
    consortium = make_consortium(trust="local", sites=FOUR, quorum=3, training={"rounds": 2})
    protocol = consortium.protocol
    lied_of = {}

    def other(node, question):
        if node != 1 or not question.relayed:
            return question
        if question.id.phase == "association":
            messages, _ = first_sum(question.relayed, largest=largest_sum(protocol))
            told = relayed_sum(messages[:3])  # without east
            transcript = Transcript(protocol, "r1")
            lied_of["association"] = transcript.append(read_sum(messages[:3], transcript))
            return replace(question, relayed=told, after=lied_of["association"])
        return replace(question, offset=consortium.link.hospitals[1]._transcripts.of(protocol, "r1").received)

    consortium.rounds._link = consortium.rounds._courier._link = TwoFaced(consortium.link, other)
    # North is refused by what it was told, and the others refuse what north answered.
    with pytest.raises(StudyError, match=r"gradient, round 0: .*refused \(ProtocolError\)"):
        consortium.study()


# --- how it travels, and how it is kept --------------------------------------------------------------------


def test_a_transcript_in_small_parts_arrives(make_consortium, monkeypatch):
    monkeypatch.setattr(centres_relay, "LARGEST_PART_BYTES", 50_000)
    consortium = make_consortium(trust="secure-sum", training={"rounds": 1})
    consortium.study()
    parts = [question for question in questions(consortium) if question.relayed]
    assert max(len(question.relayed) for question in parts) == 50_000
    assert any(question.more for question in parts)
    assert not parts[-1].more
    whole = b"".join(question.relayed for question in parts)
    assert consortium.link.hospitals[1]._transcripts.of(consortium.protocol, "r1").received == len(whole)


def test_a_site_that_was_away_is_shown_all_that_it_missed(make_consortium):
    consortium = make_consortium(trust="secure-sum", sites=FOUR, quorum=3, training={"rounds": 1})
    consortium.link.down = {4: lambda q: q.id.phase in {"centre", "association"}}
    consortium.study()
    parts = [q for q in questions(consortium, 4) if q.relayed]
    assert [q.id.phase for q in parts][:1] == ["gradient"]
    east = consortium.link.hospitals[4]._transcripts.of(consortium.protocol, "r1")
    assert east.received == len(stream(consortium))


def test_a_site_that_starts_anew_goes_on_and_one_that_lost_its_file_is_shown_it_again(make_consortium):
    consortium = make_consortium(trust="secure-sum", training={"rounds": 2})
    hospital = consortium.link.hospitals[1]
    before = hospital._transcripts
    hospital._transcripts = Restarting(before)
    found = consortium.study()
    assert found.agreement.children > 0
    assert hospital._transcripts.notes == 1


class Restarting:
    """Forgets all but the file before every question; and, once, the file."""

    def __init__(self, transcripts):
        self.path, self.notes, self.lost = transcripts._path, 0, False

    def of(self, protocol, run):
        found = Transcripts(self.path, salt=b"s" * 32).of(protocol, run)
        if found.received and not self.lost:
            self.path.unlink()
            self.lost, self.notes = True, self.notes + 1
            found = Transcripts(self.path, salt=b"s" * 32).of(protocol, run)
        return found


CHANGES = {
    "a total": "UPDATE sums SET total = zeroblob(16) WHERE number = 1",
    "its sites": 'UPDATE sums SET sites = \'["north", "south"]\' WHERE number = 2',
    "its code": "UPDATE sums SET code = (SELECT code FROM sums WHERE number = 2) WHERE number = 1",
    "its place": "UPDATE sums SET received = 1 WHERE number = 3",
    "its phase": "UPDATE sums SET phase = 'evaluation' WHERE number = 2",
    "that it is there": "DELETE FROM sums WHERE number = 1",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_transcript_that_was_changed_on_disk_steers_nothing(studies, tmp_path, change):
    consortium = studies["masks"]
    kept = consortium.link.hospitals[1]._transcripts._path
    path = shutil.copy(kept, tmp_path / "t.sqlite")
    again = Transcripts(path, salt=b"s" * 32).of(consortium.protocol, "r1")
    assert again.received == len(stream(consortium))
    connection = sqlite3.connect(path)
    connection.execute(CHANGES[change])
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="is not the one that this site verified; remove the file"):
        Transcripts(path, salt=b"s" * 32).of(consortium.protocol, "r1")
    with pytest.raises(ConfigError, match="sum 1 of run r1 is not the one"):
        Transcripts(kept, salt=b"t" * 32).of(consortium.protocol, "r1")
