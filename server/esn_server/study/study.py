"""The phases of a study, in order; knows no Flower."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from esn_core.analyses.planned_sums import kind_of
from esn_core.analyses.reruns import reruns_of
from esn_core.errors import DataError, StudyError
from esn_core.learning.releases import Attribution, read_attribution
from esn_core.messages.facts import SiteFacts
from esn_core.messages.question import Question
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.price import Price, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import SignedProtocol
from esn_core.severity_network.selection import SeverityNetwork
from esn_core.statistics.agreement import Agreement, agreement, noise_sd_of_mae, noise_sd_of_r
from esn_core.statistics.agreement_estimates import Estimates, estimates
from esn_core.statistics.matching import Matching, matching
from esn_core.statistics.subgroups import read_subgroups
from esn_core.transcript.course import Course, steering
from esn_core.transcript.released import Released
from esn_core.transcript.training import Training
from esn_core.transcript.transcript import ReleasedSum, Transcript
from esn_server.study.asking import Asking
from esn_server.study.exact_network import NetworkFound, run_network
from esn_server.study.neurocognition import Neurocognition, run_neurocognition
from esn_server.study.observer import Observer, Unobserved
from esn_server.study.reruns import Reruns, run_reruns
from esn_server.study.roll_call import require_alike

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Findings:
    """All that a study found.

    Attributes
    ----------
    facts : dict of str to SiteFacts
        What each site said at roll call.
    price : Price
    network : SeverityNetwork
    weight_of_slope : float or None
        Weight of an edge whose score rises by one per unit of severity; None where no sum tells.
    losses : tuple of float
        Mean clipped training loss before each round's step, noise included.
    weights : (P,) float64
        Of the trained model.
    calibration : (float, float)
        Intercept and slope.
    agreement : Agreement
        On the held-out children, as the sums were released.
    estimates : Estimates
        What these sums tell of it, with intervals.
    mae_noise_sd : float or None
        What the noise does to the mean absolute error.
    r_noise_sd : float or None
        What the noise does to r.
    reruns : Reruns or None
    subgroups : dict of str to Estimates, or None
        Of a group, None where it has too few children.
    attribution : Attribution or None
    matching : Matching or None
    exact_network : NetworkFound or None
    neurocognition : Neurocognition or None
        Each None when the protocol does not ask for it, or when it could not be computed.
    left_out : dict of str to str
        Why an analysis that the protocol asks for could not be computed, by its name above.
    timing_s : dict of str to float
        Seconds by phase.

    """

    facts: Mapping[str, SiteFacts]
    price: Price
    network: SeverityNetwork
    weight_of_slope: float | None
    losses: tuple[float, ...]
    weights: NDArray[np.float64]
    calibration: tuple[float, float]
    agreement: Agreement
    estimates: Estimates
    mae_noise_sd: float | None
    r_noise_sd: float | None
    reruns: Reruns | None
    subgroups: Mapping[str, Estimates | None] | None
    attribution: Attribution | None
    matching: Matching | None
    exact_network: NetworkFound | None
    neurocognition: Neurocognition | None
    left_out: Mapping[str, str]
    timing_s: Mapping[str, float]


@dataclass
class _Run:
    """The study under way: what it asks with, and what it has learnt so far."""

    protocol: Protocol
    asking: Asking
    observer: Observer
    price: Price
    transcript: Transcript
    relayed: bytes = b""
    """The transcript as it is shown to the sites."""
    timing_s: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unanswered: Exception | None = None
    """What kept the last question from being answered: no analysis can be left out for that."""

    @property
    def course(self) -> Course:
        return self.transcript.course

    def question(self, phase: PhaseName, round_: int = 0) -> Question:
        return Question(
            self.transcript.question(phase, round_), after=self.transcript.mark, relayed=self.relayed
        )

    def ask(self, phase: PhaseName, round_: int = 0, /) -> Released:
        """Ask for a release, where the sums before allow it, and take it."""
        self.course.arguments(phase, round_)
        kind = kind_of(phase, self.protocol)
        started = time.monotonic()
        self.observer.began(phase, round_, self.price.of(phase).releases)
        try:
            pooled = self.asking.sum(self.question(phase, round_), kind)
        except Exception as error:
            self.unanswered = error
            raise
        self.timing_s[phase] = self.timing_s.get(phase, 0.0) + time.monotonic() - started
        if phase in steering(self.protocol):
            self.transcript.append(ReleasedSum(phase, round_, pooled.sites, pooled.total))
            self.relayed += pooled.relayed
            return self.course.sum_of(phase, round_)
        released = Released.of(self.protocol, kind, pooled.total, pooled.sites)
        return self.course.take(phase, round_, released)

    def unless_impossible(self, name: str, compute: Callable[[], _T]) -> _T | None:
        """Compute an analysis; None, with its reason kept, where its sums do not allow it.

        A question that is not answered ends the study, which can be resumed; sums that an analysis can make
        nothing of would be the same for ever.
        """
        try:
            return compute()
        except (StudyError, DataError, ArithmeticError, ValueError) as error:
            if error is self.unanswered:
                raise
            _LOG.warning("the analysis %s is left out", name, exc_info=error)
            self.left_out[name] = f"it could not be computed: {error}"
            return None


def run_study(
    signed: SignedProtocol,
    *,
    run: str,
    asking: Asking,
    rng: np.random.Generator,
    observer: Observer | None = None,
) -> Findings:
    """Run all phases of a study.

    Parameters
    ----------
    signed : SignedProtocol
    run : str
        Name of this run; part of every question's id.
    asking : Asking
    rng : numpy Generator
        For the simulation of what the noise does to r; nothing private.
    observer : Observer, optional

    Raises
    ------
    StudyError
        A phase cannot be finished, or a site is not fit to take part.

    """
    protocol = signed.protocol
    study = _Run(
        protocol=protocol,
        asking=asking,
        observer=observer or Unobserved(),
        price=price_of(protocol),
        transcript=Transcript(protocol, run),
    )
    course = study.course
    facts = _roll_call(study)
    matched = study.unless_impossible("matching", lambda: _match(study))
    if protocol.cohort.harmonisation == "combat":
        study.ask("combat")
    study.ask("centre")
    study.ask("association")
    trained = _train(study)
    study.ask("calibration")
    found, estimated, mae_noise, r_noise = _evaluate(study, rng)
    reruns = study.unless_impossible("reruns", lambda: _rerun(study, rng))
    grouped = study.unless_impossible("subgroups", lambda: _group(study, rng))
    explained = study.unless_impossible("attribution", lambda: _explain(study))
    exact_network = study.unless_impossible("exact_network", lambda: _exact_network(study))
    models = study.unless_impossible("neurocognition", lambda: _neurocognition(study))
    return Findings(
        facts=facts,
        price=study.price,
        network=course.network,
        weight_of_slope=course.weight_of_slope,
        losses=tuple(trained.losses),
        weights=trained.weights,
        calibration=course.calibration,
        agreement=found,
        estimates=estimated,
        mae_noise_sd=mae_noise,
        r_noise_sd=r_noise,
        reruns=reruns,
        subgroups=grouped,
        attribution=explained,
        matching=matched,
        exact_network=exact_network,
        neurocognition=models,
        left_out=study.left_out,
        timing_s=study.timing_s,
    )


def _roll_call(study: _Run) -> dict[str, SiteFacts]:
    started = time.monotonic()
    study.observer.began("roll-call", 0, 1)
    facts = study.asking.roll_call(study.question("roll-call"))
    study.timing_s["roll-call"] = time.monotonic() - started
    require_alike(study.protocol, facts)
    for site in study.protocol.cohort.without_controls:
        _LOG.warning("%s is judged by other sites' pooled controls and trains nothing", site)
    return facts


def _train(study: _Run) -> Training:
    for round_ in range(study.protocol.training.rounds):
        study.ask(study.course.trained(round_).phase, round_)
        study.observer.learned(round_, study.course.trained(round_ + 1).losses[-1])
    return study.course.trained(study.protocol.training.rounds)


def _evaluate(
    study: _Run, rng: np.random.Generator
) -> tuple[Agreement, Estimates, float | None, float | None]:
    sums, fewest = study.ask("evaluation"), study.course.fewest_children
    noise = sums.noise_sd
    found = agreement(sums.total)
    estimated = estimates(sums.total, noise_sd=noise, fewest_children=fewest, rng=rng)
    mae_noise = noise_sd_of_mae(found.children, noise, mae=found.mae or 0.0)
    return found, estimated, mae_noise, noise_sd_of_r(sums.total, noise, rng=rng)


def _match(study: _Run) -> Matching | None:
    if not study.protocol.analyses.cohort:
        return None
    return matching(study.ask("cohort").total, minimum=study.protocol.cohort.minimum_children)


def _group(study: _Run, rng: np.random.Generator) -> Mapping[str, Estimates | None] | None:
    if not study.protocol.analyses.subgroups:
        return None
    sums, minimum = study.ask("subgroup-evaluation"), study.protocol.cohort.minimum_children
    return read_subgroups(sums.total, noise_sd=sums.noise_sd, minimum=minimum, rng=rng)


def _explain(study: _Run) -> Attribution | None:
    if not study.protocol.analyses.explanation:
        return None
    sums = study.ask("attribution")
    fewest = study.course.fewest_children
    return read_attribution(sums.total, fewest_children=fewest, noise_sd=sums.noise_sd)


def _exact_network(study: _Run) -> NetworkFound | None:
    rules = study.protocol.analyses.network
    return None if rules is None else run_network(study.course, study.ask, rules)


def _neurocognition(study: _Run) -> Neurocognition | None:
    if study.protocol.analyses.neurocognition is None:
        return None
    return run_neurocognition(study.course, study.ask)


def _rerun(study: _Run, rng: np.random.Generator) -> Reruns | None:
    if not reruns_of(study.protocol):
        return None
    return run_reruns(study.course, study.ask, rng=rng)
