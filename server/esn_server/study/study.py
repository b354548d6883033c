"""The phases of a study, in order; knows no Flower."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from esn_core.analyses.reruns import reruns_of
from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.errors import DataError, StudyError
from esn_core.learning.optimiser import CentreOptimiser
from esn_core.learning.releases import (
    Attribution,
    attribution_release,
    gradient_release,
    local_update_release,
    read_attribution,
    read_gradient,
    read_local_update,
)
from esn_core.learning.weights import pretrained, to_vector
from esn_core.messages.facts import SiteFacts
from esn_core.messages.question import Question, QuestionId
from esn_core.privacy.fixed_point import noise_sd
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.price import Price, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import SignedProtocol
from esn_core.severity_network.association import association_release
from esn_core.severity_network.candidates import Candidates
from esn_core.severity_network.centring import centre_of, centre_release
from esn_core.severity_network.selection import SeverityNetwork
from esn_core.statistics.agreement import EVALUATION, Agreement, agreement, noise_sd_of_mae, noise_sd_of_r
from esn_core.statistics.agreement_estimates import Estimates, estimates
from esn_core.statistics.combat import COVARIATE_NORM, COVARIATES, combat, combat_model
from esn_core.statistics.matching import COHORT, Matching, matching
from esn_core.statistics.recalibration import CALIBRATION, affine
from esn_server.study.asking import Arrays, Asking, Pooled
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
    losses: tuple[float, ...]
    weights: NDArray[np.float64]
    calibration: tuple[float, float]
    agreement: Agreement
    estimates: Estimates
    mae_noise_sd: float | None
    r_noise_sd: float | None
    reruns: Reruns | None
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
    run: str
    asking: Asking
    observer: Observer
    price: Price
    atlas: Atlas
    candidates: Candidates
    harmonisation: Arrays = field(default_factory=dict)
    """What every question from now on carries, for the sites to harmonise their children with."""
    timing_s: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unanswered: Exception | None = None
    """What kept the last question from being answered: no analysis can be left out for that."""

    @property
    def fewest_children(self) -> float:
        """A public lower bound on the children in any sum: every site refuses fewer."""
        return float(self.protocol.rounds.quorum * self.protocol.cohort.minimum_children)

    def question(self, phase: PhaseName, round_: int = 0, arrays: Arrays | None = None) -> Question:
        digest = self.protocol.sha256
        return Question(
            QuestionId(protocol_sha256=digest, run=self.run, phase=phase, round=round_, attempt=0),
            {**(arrays or {}), **self.harmonisation},
        )

    def ask(
        self, phase: PhaseName, kind: ReleaseKind, round_: int = 0, arrays: Arrays | None = None, /
    ) -> tuple[Pooled, float]:
        """Ask for a release; return the sum and the standard deviation of its noise."""
        started = time.monotonic()
        self.observer.began(phase, round_, self.price.of(phase).releases)
        try:
            pooled = self.asking.sum(self.question(phase, round_, arrays), kind)
        except Exception as error:
            self.unanswered = error
            raise
        self.timing_s[phase] = self.timing_s.get(phase, 0.0) + time.monotonic() - started
        each = noise_sd(kind, self.price.of(phase).noise_multiplier, share=self.protocol.noise_share)
        return pooled, each * math.sqrt(len(pooled.sites))

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
    atlas = load_atlas(protocol.imaging.atlas)
    study = _Run(
        protocol=protocol,
        run=run,
        asking=asking,
        observer=observer or Unobserved(),
        price=price_of(protocol),
        atlas=atlas,
        candidates=protocol.candidates,
    )
    facts = _roll_call(study)
    matched = study.unless_impossible("matching", lambda: _match(study))
    _harmonise(study)
    children, severity = _centre(study)
    network = _select(study, children, severity)
    weights, losses = _train(study, network, children)
    calibration = _calibrate(study, network, weights)
    given = {"weights": weights, "edge_weights": network.weight, "calibration": np.array(calibration)}
    found, estimated, mae_noise, r_noise = _evaluate(study, given, rng)
    reruns = study.unless_impossible("reruns", lambda: _rerun(study, severity, rng))
    explained = study.unless_impossible("attribution", lambda: _explain(study, given))
    exact_network = study.unless_impossible("exact_network", lambda: _exact_network(study))
    models = study.unless_impossible("neurocognition", lambda: _neurocognition(study, given))
    return Findings(
        facts=facts,
        price=study.price,
        network=network,
        losses=losses,
        weights=weights,
        calibration=calibration,
        agreement=found,
        estimates=estimated,
        mae_noise_sd=mae_noise,
        r_noise_sd=r_noise,
        reruns=reruns,
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
    return facts


def _harmonise(study: _Run) -> None:
    if study.protocol.cohort.harmonisation != "combat":
        return
    edges = len(study.candidates.edges)
    pooled, _ = study.ask("combat", combat(edges, COVARIATES, covariate_norm=COVARIATE_NORM))
    model = combat_model(pooled.total, edges=edges, covariates=COVARIATES)
    study.harmonisation = {"combat": model.vector}


def _centre(study: _Run) -> tuple[float, NDArray[np.float64]]:
    centring = study.protocol.severity_network.centre
    pooled, noise = study.ask("centre", centre_release(centring))
    return centre_of(pooled.total, centring=centring, fewest_children=study.fewest_children, noise_sd=noise)


def _select(study: _Run, children: float, severity: NDArray[np.float64]) -> SeverityNetwork:
    kind = association_release(study.candidates.released)
    pooled, noise = study.ask("association", kind, 0, {"mean_severity": severity})
    return study.candidates.network(pooled.total, children=children, noise_sd=noise)


def _train(
    study: _Run, network: SeverityNetwork, children: float
) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    rules = study.protocol.training
    optimiser = CentreOptimiser(
        to_vector(pretrained(study.protocol.model.initial_weights)),
        learning_rate=rules.learning_rate,
        strategy=rules.strategy,
    )
    local, bound = rules.local_steps > 1, rules.max_gradient_norm
    phase: PhaseName = "local-update" if local else "gradient"
    describe = local_update_release if local else gradient_release
    kind = describe(len(optimiser.weights), max_gradient_norm=bound)
    losses = []
    for round_ in range(rules.rounds):
        pooled, _ = study.ask(
            phase, kind, round_, {"weights": optimiser.weights, "edge_weights": network.weight}
        )
        step = (
            read_local_update(pooled.total, max_gradient_norm=bound)
            if local
            else read_gradient(pooled.total, children, max_gradient_norm=bound)
        )
        losses.append(step.loss)
        study.observer.learned(round_, step.loss)
        optimiser.step(step.gradient)
    return optimiser.weights, tuple(losses)


def _calibrate(study: _Run, network: SeverityNetwork, weights: NDArray[np.float64]) -> tuple[float, float]:
    pooled, noise = study.ask(
        "calibration", CALIBRATION, 0, {"weights": weights, "edge_weights": network.weight}
    )
    return affine(pooled.total, fewest_children=study.fewest_children, noise_sd=noise)


def _evaluate(
    study: _Run, given: Arrays, rng: np.random.Generator
) -> tuple[Agreement, Estimates, float | None, float | None]:
    pooled, noise = study.ask("evaluation", EVALUATION, 0, given)
    found = agreement(pooled.total)
    estimated = estimates(pooled.total, noise_sd=noise, fewest_children=study.fewest_children, rng=rng)
    mae_noise = noise_sd_of_mae(found.children, noise, mae=found.mae or 0.0)
    return found, estimated, mae_noise, noise_sd_of_r(pooled.total, noise, rng=rng)


def _match(study: _Run) -> Matching | None:
    if not study.protocol.analyses.cohort:
        return None
    pooled, _ = study.ask("cohort", COHORT)
    return matching(pooled.total, minimum=study.protocol.cohort.minimum_children)


def _explain(study: _Run, given: Arrays) -> Attribution | None:
    if not study.protocol.analyses.explanation:
        return None
    kind = attribution_release(len(study.candidates.edges))
    pooled, noise = study.ask("attribution", kind, 0, given)
    return read_attribution(pooled.total, fewest_children=study.fewest_children, noise_sd=noise)


def _exact_network(study: _Run) -> NetworkFound | None:
    rules = study.protocol.analyses.network
    return None if rules is None else run_network(study.protocol, study.ask, rules)


def _neurocognition(study: _Run, given: Arrays) -> Neurocognition | None:
    if study.protocol.analyses.neurocognition is None:
        return None

    return run_neurocognition(study.protocol, study.ask, given)


def _rerun(study: _Run, severity: NDArray[np.float64], rng: np.random.Generator) -> Reruns | None:
    if not reruns_of(study.protocol):
        return None

    return run_reruns(
        study.protocol,
        study.candidates,
        study.ask,
        severity=severity,
        fewest_children=study.fewest_children,
        rng=rng,
    )
