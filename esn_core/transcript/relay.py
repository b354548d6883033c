"""How sums travel to the sites: as the signed answers and revealed seeds that they are the sum of.

The transcript is a row of bytes that only grows. Each sum in it is a length and, for every message, the place
of its site in the roster, a length, and the message as the site sent it. Nobody has to be believed: a site
looks at every signature, cancels the masks, and adds up.
"""

from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from esn_core.analyses.planned_sums import kind_of
from esn_core.errors import ProtocolError
from esn_core.identity.public_keys import identity_key
from esn_core.identity.signing import SIGNATURE_BYTES
from esn_core.messages.answer import Answer
from esn_core.messages.envelope import LARGEST_HEADER_BYTES
from esn_core.privacy.fixed_point import add_up, check_range, leave_grid
from esn_core.privacy.secure_sum import Attempt, unmask
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.transcript.course import steering
from esn_core.transcript.transcript import ReleasedSum, Transcript

_LENGTH_BYTES, _PLACE_BYTES = 4, 2

LARGEST_PART_BYTES = 4 * 2**20
"""Of the transcript in one message; a site that lacks more is sent several."""

Message = tuple[int, bytes]
"""The place of a site in the roster, and what it sent."""


def relayed_sum(messages: Iterable[Message]) -> bytes:
    """Return the bytes of one sum, of the answers and then the seeds of its sites."""
    parts = b"".join(
        place.to_bytes(_PLACE_BYTES, "big") + len(body).to_bytes(_LENGTH_BYTES, "big") + body
        for place, body in messages
    )
    return len(parts).to_bytes(_LENGTH_BYTES, "big") + parts


def first_sum(relayed: bytes, *, largest: int) -> tuple[list[Message], int] | None:
    """Take the first sum off a transcript's bytes.

    Parameters
    ----------
    relayed : bytes
    largest : int
        Bytes of a sum (`largest_sum`).

    Returns
    -------
    messages : list of (int, bytes)
    length : int
        Bytes of the sum.

    None where it is not there as a whole.

    Raises
    ------
    ProtocolError
        It is longer than any sum, or no row of messages.

    """
    if len(relayed) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(relayed[:_LENGTH_BYTES], "big")
    if length > largest:
        raise ProtocolError(f"a released sum of {length} bytes was relayed; there is none above {largest}")
    end = _LENGTH_BYTES + length
    if len(relayed) < end:
        return None
    at, messages = _LENGTH_BYTES, []
    while at < end:
        place = int.from_bytes(relayed[at : at + _PLACE_BYTES], "big")
        begin = at + _PLACE_BYTES + _LENGTH_BYTES
        at = begin + int.from_bytes(relayed[at + _PLACE_BYTES : begin], "big")
        if at > end or begin > end:
            raise ProtocolError("what was relayed is no row of answers: one of them has no end")
        messages.append((place, relayed[begin:at]))
    return messages, end


def largest_sum(protocol: Protocol) -> int:
    """Return how many bytes the longest sum of a protocol's transcript takes, at most."""
    steer = steering(protocol)
    longest = max((kind_of(phase, protocol).dimension for phase in steer), default=0)
    beside = LARGEST_HEADER_BYTES + SIGNATURE_BYTES + 64
    return len(protocol.roster) * (8 * (longest + 1) + 2 * beside)


def read_sum(messages: Sequence[Message], transcript: Transcript) -> ReleasedSum:
    """Add up the answers of which the next sum of a transcript is said to be.

    Parameters
    ----------
    messages : sequence of (int, bytes)
    transcript : Transcript
        Up to the sum before.

    Raises
    ------
    ProtocolError
        A message is not signed by its site, twice there, or to another question, run or protocol, or was
        computed from other sums; there are fewer sites than the quorum; a seed is missing; the masks do not
        cancel; or the protocol asks for no such sum.

    """
    protocol = transcript.protocol
    answers: dict[str, Answer] = {}
    seeds: dict[str, bytes] = {}
    for place, body in messages:
        answer = _signed(place, body, protocol)
        _check_place(answer, transcript)
        if answer.total is not None and answer.site not in answers:
            answers[answer.site] = answer
        elif answer.seed is not None and answer.site not in seeds:
            seeds[answer.site] = answer.seed
        else:
            raise ProtocolError(f"two answers of {answer.site}, or none, were relayed for one sum")
    questions = {str(answer.id) for answer in answers.values()}
    if len(questions) != 1:
        raise ProtocolError("a released sum is of answers to one question")
    (first, *_) = answers.values()
    phase, round_ = first.id.phase, first.id.round
    if round_ >= price_of(protocol).of(phase).releases:
        raise ProtocolError(f"the protocol has no round {round_} of {phase}")
    sites = tuple(site for site in protocol.sites if site in answers)
    if tuple(answers) != sites or len(sites) < protocol.rounds.quorum:
        raise ProtocolError(
            f"a released sum is of {protocol.rounds.quorum} sites or more, in the order of the roster; "
            f"the answers of {', '.join(answers)} were relayed"
        )
    if set(seeds) != (set(sites) if protocol.self_masked else set()):
        raise ProtocolError("a released sum comes with the seed of each of its sites, where masks have seeds")
    kind = kind_of(phase, protocol)
    if not protocol.masked:
        total = add_up([a.total for a in answers.values() if a.total is not None], kind)
        return ReleasedSum(phase, round_, sites, total)
    masked = {site: a.total for site, a in answers.items() if a.total is not None}
    if {vector.shape for vector in masked.values()} != {(kind.dimension + 1,)}:
        raise ProtocolError(f"release {kind.name} holds {kind.dimension} numbers and a check number")
    attempt = Attempt(protocol.sha256, str(first.id), sites, transcript.mark.head)
    units = unmask(masked, attempt, seeds=seeds)
    check_range(units, kind, sites=len(sites))
    return ReleasedSum(phase, round_, sites, leave_grid(units, kind))


def _signed(place: int, body: bytes, protocol: Protocol) -> Answer:
    """Return a relayed message, which the site at its place in the roster has signed."""
    if place >= len(protocol.roster):
        raise ProtocolError(f"the roster has no site at place {place}")
    entry = protocol.roster[place]
    key: Ed25519PublicKey = identity_key(entry.identity_key)
    answer = Answer.from_bytes(body, key)
    if answer.site != entry.site:
        raise ProtocolError(f"an answer in the name of {answer.site} was signed by {entry.site}")
    return answer


def _check_place(answer: Answer, transcript: Transcript) -> None:
    """Refuse an answer that belongs to another run, or that was computed from other sums."""
    if answer.id != transcript.question(answer.id.phase, answer.id.round).model_copy(
        update={"attempt": answer.id.attempt}
    ):
        raise ProtocolError(f"the answer of {answer.site} to {answer.id} is no part of this run")
    if answer.after != transcript.mark:
        raise ProtocolError(
            f"{answer.site} answered {answer.id} after other sums than those that were relayed here"
        )
