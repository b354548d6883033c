"""What a centre that does not keep to the study would be given: tried on this site, in a rehearsal.

Every phase of the protocol is asked as the study asks it, and then in the ways of a centre that wants one
child's numbers or one site's sum: again, otherwise, of other sites, in another round, with numbers that
choose whom the sum is about. The questions go through a whole hospital, signed as the centre signs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from esn_client.answers.hospital import rows_of
from esn_client.answers.study import Study
from esn_client.privacy_audit.arguments import arguments_of
from esn_client.privacy_audit.findings import Attempt
from esn_client.privacy_audit.rehearsal import Rehearsal
from esn_core.analyses.neurocognition import kinds_of
from esn_core.errors import EsnError
from esn_core.messages.question import Question
from esn_core.privacy.accounting import NO_NOISE
from esn_core.protocol.phases import PHASES
from esn_core.protocol.price import PhasePrice, price_of
from esn_core.statistics.combat import COVARIATES
from esn_core.statistics.logistic_sums import LARGEST_COEFFICIENT

Ask = Callable[[Question], bytes | None]
"""Asks the hospital of a rehearsal; None is a refusal."""


class Tried(Protocol):
    """Makes the record of an attempt on one phase."""

    def __call__(
        self, trick: str, answered: bool, *, covered: bool = False, steered: bool = False
    ) -> Attempt:
        """Say what was tried and whether it was answered, and whether noise or consent covers that."""


# A row that moves by more than rounding does.
_MOVED = 1e-6


def cheats(rehearsal: Rehearsal, study: Study) -> tuple[Attempt, ...]:
    """Try everything on every phase of the rehearsed protocol, in the order of the study."""
    with _asked(rehearsal, study) as ask:
        return tuple(
            attempt
            for price in price_of(rehearsal.protocol).phases
            for attempt in _on_phase(ask, rehearsal, study, price)
        )


@contextmanager
def _asked(rehearsal: Rehearsal, study: Study) -> Iterator[Ask]:
    """Open a hospital that is asked as the centre asks: every question signed."""
    with rehearsal.hospital(study) as answer:
        yield lambda question: answer(question.to_bytes(rehearsal.centre_key))


def _question(rehearsal: Rehearsal, study: Study, price: PhasePrice) -> Question:
    """Return the phase's first question to all sites of the roster."""
    arrays = dict(arguments_of(price.phase, study))
    if study.protocol.cohort.harmonisation == "combat" and PHASES[price.phase].harmonised:
        edges = len(study.candidates.edges)
        arrays["combat"] = np.concatenate([np.zeros((COVARIATES + 1) * edges), np.ones(edges)])
    asked = rehearsal.question(price.phase, arrays)
    return replace(asked, participants=study.protocol.sites if study.protocol.masked else ())


def _on_phase(ask: Ask, rehearsal: Rehearsal, study: Study, price: PhasePrice) -> Iterator[Attempt]:
    honest = _question(rehearsal, study, price)
    exact = price.noise_multiplier == NO_NOISE

    def tried(trick: str, answered: bool, *, covered: bool = False, steered: bool = False) -> Attempt:
        return Attempt(
            price.phase, trick, answered=answered, covered=covered and not exact, consented=steered and exact
        )

    # Before the phase is asked at all: what is answered here pays for the phase.
    for trick, question in _wrong_questions(honest, study, price):
        yield tried(trick, ask(question) is not None)
    for trick, arrays in _isolating(honest):
        yield tried(trick, ask(replace(honest, arrays=arrays)) is not None, covered=True)
    first = ask(honest)
    if honest.arrays:
        words = "asked with numbers of its own choice, which no earlier sum gave"
        yield tried(words, first is not None, covered=True, steered=True)
    if first is None:
        return
    yield tried("asked again, to see fresh noise on the same sum", ask(honest) != first)
    if honest.arrays:
        other = replace(honest, arrays={name: array + 0.25 for name, array in honest.arrays.items()})
        yield tried("asked again with other numbers", ask(other) is not None)
    if study.protocol.self_masked:
        yield from _sets(ask, honest, study, price, tried)
    if price.releases > 1 and "coefficients" in honest.arrays:
        yield tried(*_across_one_child(rehearsal, honest, study), covered=True, steered=True)


def _wrong_questions(honest: Question, study: Study, price: PhasePrice) -> Iterator[tuple[str, Question]]:
    """Yield questions that no study asks, and that are refused before anything is computed."""
    number, protocol, named = honest.id, study.protocol, honest.participants
    last = number.model_copy(update={"round": price.releases})
    yield "asked for a round that the protocol has not", replace(honest, id=last)
    more = {**honest.arrays, "more": np.ones(1)}
    yield "sent numbers that the phase has not", replace(honest, arrays=more)
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
        yield "asked for a mask before there was a sum", replace(honest, arrays={}, reveal=True)


def _isolating(honest: Question) -> Iterator[tuple[str, dict[str, NDArray[np.float64]]]]:
    """Yield arrays that single a child out by overflow: beyond its bounds no number may be answered to."""
    beyond = {
        "partial": ("made all but some children overflow, by a spread of severity near zero", 1e-150),
        "coefficients": ("cut the children by coefficients beyond any fit", 1e15),
        "weights": ("made the model overflow for some children", 1e39),
        "edge_weights": ("gave the connections weights that overflow together", 1e308),
    }
    for name, (trick, size) in beyond.items():
        if name in honest.arrays:
            array = np.full_like(honest.arrays[name], size)
            if name == "partial":  # all zero but the spread of severity, the last number but two
                array[:-3] = array[-2:] = 0.0
            yield trick, {**honest.arrays, name: array}


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
            steered=True,
        )


def _open(ask: Ask, question: Question) -> bool:
    """Ask for a sum and for the mask over it; tell whether both came."""
    return ask(question) is not None and ask(replace(question, arrays={}, reveal=True)) is not None


def _across_one_child(rehearsal: Rehearsal, honest: Question, study: Study) -> tuple[str, bool]:
    """Move the plane of a model across one child from one round to the next: only its row changes.

    Whoever subtracts the two sums has this child's numbers, where no noise covers them.
    """
    first, second = _either_side_of_a_child(study)
    numbers = [honest.id.model_copy(update={"round": n}) for n in (0, 1)]
    questions = [
        replace(honest, id=number, arrays={**honest.arrays, "coefficients": coefficients})
        for number, coefficients in zip(numbers, (first, second), strict=True)
    ]
    try:
        before, after = (rows_of(question, study).values for question in questions)
    except EsnError:
        moved = 0
    else:
        moved = int((np.abs(after - before).max(axis=1) > _MOVED).sum())
    trick = f"moved a model's plane across the children between two rounds, so that {moved} of them differ"
    with _asked(rehearsal, study) as ask:  # another, whose ledger has not seen the first round yet
        return trick, moved > 0 and all(ask(question) is not None for question in questions)


def _either_side_of_a_child(study: Study) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients of a model in severity whose planes lie on either side of the worst child."""
    kinds = kinds_of(study.protocol)
    split = study.cohort.held_out
    worst = np.unique(split.gase)[-1]
    slope = LARGEST_COEFFICIENT / 2
    given = []
    for threshold in (worst - 0.25, worst + 0.25):
        place = (threshold - 4.0) / 3.0  # GASE from 1 to 7, on the scale of a feature
        together = []
        for model, times in zip(kinds.models, kinds.tracks, strict=True):
            own = np.zeros(len(model.names))
            if model.predictors == ("gase",):
                own[:] = (-slope * place, slope)
            together.append(np.tile(own, times))
        given.append(np.concatenate(together))
    return given[0], given[1]
