"""What a centre that does not keep to the study would be given: tried on this site, in a rehearsal.

Every phase of the protocol is asked as the study asks it, and then in the ways of a centre that wants one
child's numbers or one site's sum: again, of other sites, in another round, and after sums that nobody
released. The questions go through a whole hospital, signed as the centre signs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from esn_client.answers.study import Study
from esn_client.privacy_audit.findings import Attempt
from esn_client.privacy_audit.rehearsal import Rehearsal
from esn_core.messages.question import Question
from esn_core.messages.transcript_mark import TranscriptMark
from esn_core.privacy.accounting import NO_NOISE
from esn_core.protocol.price import PhasePrice, price_of
from esn_core.transcript.relay import relayed_sum

Ask = Callable[[Question], bytes | None]
"""Asks the hospital of a rehearsal; None is a refusal."""


class Tried(Protocol):
    """Makes the record of an attempt on one phase."""

    def __call__(self, trick: str, answered: bool, *, covered: bool = False) -> Attempt:
        """Say what was tried and whether it was answered, and whether noise covers that."""


_ANOTHER = TranscriptMark(sums=1, head="5" * 64)
"""A transcript that no site has."""

# Before the signature, 64 bytes.
_IN_THE_LAST_ANSWER = 80


def cheats(
    rehearsal: Rehearsal, study: Study, *, progress: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[Attempt, ...]:
    """Try everything on every phase of the rehearsed protocol, in the order of the study."""
    phases, found = price_of(rehearsal.protocol).phases, list[Attempt]()
    with _asked(rehearsal, study) as ask:
        for place, price in enumerate(phases, start=1):
            found += _on_phase(ask, rehearsal, study, price)
            progress("phases asked as a dishonest centre would", place, len(phases))
    return tuple(found)


@contextmanager
def _asked(rehearsal: Rehearsal, study: Study) -> Iterator[Ask]:
    """Open a hospital that is asked as the centre asks: every question signed."""
    with rehearsal.hospital(study) as answer:
        yield lambda question: answer(question.to_bytes(rehearsal.centre_key))


def _question(rehearsal: Rehearsal, study: Study, price: PhasePrice) -> Question:
    """Return the phase's first question to all sites of the roster."""
    asked = rehearsal.question(price.phase)
    return replace(asked, participants=study.protocol.sites if study.protocol.masked else ())


def _on_phase(ask: Ask, rehearsal: Rehearsal, study: Study, price: PhasePrice) -> Iterator[Attempt]:
    honest = _question(rehearsal, study, price)
    exact = price.noise_multiplier == NO_NOISE

    def tried(trick: str, answered: bool, *, covered: bool = False) -> Attempt:
        return Attempt(price.phase, trick, answered=answered, covered=covered and not exact)

    # Before the phase is asked at all: what is answered here pays for the phase.
    for trick, question in _wrong_questions(rehearsal, honest, study, price):
        yield tried(trick, ask(question) is not None)
    first = ask(honest)
    if first is None:
        return
    yield tried("asked again, to see fresh noise on the same sum", ask(honest) != first)
    other = replace(honest, after=_ANOTHER)
    yield tried("asked again as if other sums had been released", ask(other) is not None)
    if study.protocol.self_masked:
        yield from _sets(ask, honest, study, price, tried)


def _wrong_questions(
    rehearsal: Rehearsal, honest: Question, study: Study, price: PhasePrice
) -> Iterator[tuple[str, Question]]:
    """Yield questions that no study asks, and that are refused before anything is computed."""
    number, protocol, named = honest.id, study.protocol, honest.participants
    last = number.model_copy(update={"round": price.releases})
    yield "asked for a round that the protocol has not", replace(honest, id=last)
    yield "named sums that it did not show", replace(honest, after=_ANOTHER)
    for trick, relayed in _forged(rehearsal).items():
        yield trick, replace(honest, after=_ANOTHER, relayed=relayed)
    if not protocol.masked:
        yield "named sites where there are no masks", replace(honest, participants=protocol.sites)
        return
    others = tuple(site for site in named if site != study.site)
    few = (study.site, *others[: protocol.rounds.quorum - 2])
    sets: Mapping[str, tuple[str, ...]] = {
        "named no site": (),
        "named this site alone": (study.site,),
        "named fewer sites than the quorum": tuple(site for site in named if site in few),
        "left this site out of the sum that it adds to": others,
        "named the sites in another order": named[::-1],
        "named a site twice": (named[0], *named),
        "named a site that it made up": (*named, "zz-made-up"),
    }
    for trick, sites in sets.items():
        yield trick, replace(honest, participants=sites)
    if protocol.self_masked:
        yield "asked for a mask before there was a sum", replace(honest, reveal=True)


def _forged(rehearsal: Rehearsal) -> Mapping[str, bytes]:
    """Return what a centre could show in the place of released sums."""
    signed = bytearray(rehearsal.signed_sum())
    signed[-_IN_THE_LAST_ANSWER] ^= 1
    return {
        "showed bytes that nobody signed as a released sum": relayed_sum([(0, bytes(200))]),
        "changed an answer of the sum that it showed": bytes(signed),
        "showed a sum with the answer of one site alone": rehearsal.signed_sum(sites=1),
        "showed a sum with one answer twice": rehearsal.signed_sum(twice=True),
        "showed a sum of another run": rehearsal.signed_sum(run="other"),
    }


def _sets(ask: Ask, honest: Question, study: Study, price: PhasePrice, tried: Tried) -> Iterator[Attempt]:
    """Try to open this site's sum: by two sets of sites for one question, then by two in two rounds."""
    others = [site for site in study.protocol.sites if site != study.site]
    fewer = tuple(site for site in honest.participants if site != others[-1])
    opened = _open(ask, honest)
    again = _open(ask, replace(honest, participants=fewer, id=honest.id.model_copy(update={"attempt": 1})))
    yield tried(
        "opened the sum of one set of sites and then of another, for the difference", opened and again
    )
    if price.releases > 1:
        later = replace(honest, participants=fewer, id=honest.id.model_copy(update={"round": 1}))
        yield tried(
            "asked the same of all sites but one in the next round, for the difference",
            opened and _open(ask, later),
            covered=True,
        )


def _open(ask: Ask, question: Question) -> bool:
    """Ask for a sum and for the mask over it; tell whether both came."""
    return ask(question) is not None and ask(replace(question, reveal=True)) is not None
