"""The course of a study: the numbers of each question, from the protocol and the sums released before.

The centre and every site compute them with what is here. So no question carries a number: a centre could
only send what the sites know already, or something else. Nothing compares the results, as no promise needs
them to be the same to the last bit: a site's bounds and noise hold for any numbers.

Each number depends on the sums of certain earlier phases (`Phase.needs`), never on the order in which the
others were asked, or on whether they were.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from esn_core.analyses.neurocognition import kinds_of
from esn_core.analyses.reruns import read_rerun_association, reruns_of
from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.protocol.phases import PHASES, PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.bootstrap import Partial
from esn_core.severity_network.centring import centre_of, weight_of_slope
from esn_core.severity_network.exact import ExactNetwork, Moments, exact_network
from esn_core.severity_network.exact_releases import moments_of
from esn_core.severity_network.selection import SeverityNetwork
from esn_core.severity_network.votes import Votes
from esn_core.statistics.combat import COVARIATES, combat_model
from esn_core.statistics.recalibration import CALIBRATION, affine
from esn_core.transcript.arguments import Arguments
from esn_core.transcript.model_fits import ModelFits, histograms
from esn_core.transcript.released import Released
from esn_core.transcript.training import Training


def steering(protocol: Protocol) -> frozenset[PhaseName]:
    """Return the phases of a protocol on whose sums a later question depends."""
    asked = {phase.phase for phase in protocol.phases}
    needed = {before for phase in asked for before in PHASES[phase].needs if before in asked}
    if protocol.cohort.harmonisation == "combat":
        needed.add("combat")
    return frozenset(needed)


class Course:
    """What a study asks next, and what its sums said so far.

    Parameters
    ----------
    protocol : Protocol

    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._sums: dict[tuple[PhaseName, int], Released] = {}
        self._training: Training | None = None
        self._fits: ModelFits | None = None

    def take(self, phase: PhaseName, round_: int, sums: Released) -> Released:
        """Take a sum that was released; return it."""
        self._sums[phase, round_] = sums
        return sums

    def sum_of(self, phase: PhaseName, round_: int = 0) -> Released:
        """Return a sum that was released.

        Raises
        ------
        StudyError
            It was not.

        """
        try:
            return self._sums[phase, round_]
        except KeyError:
            raise StudyError(f"the sum of {phase}, round {round_}, has not been released yet") from None

    def arguments(self, phase: PhaseName, round_: int = 0) -> Arguments:
        """Return the numbers that a question is asked with.

        Raises
        ------
        StudyError
            A sum that they depend on has not been released.
        EsnError, ArithmeticError, ValueError
            The sums allow no such numbers; they never will.

        """
        about = PHASES[phase]
        found: dict[str, Floats] = {}
        combat = self.protocol.cohort.harmonisation == "combat" and about.harmonised
        for name in sorted(about.arrays | ({"combat"} if combat else set())):
            found[name] = self._array(name, phase, round_)
        return Arguments(phase, found)

    def _array(self, name: str, phase: PhaseName, round_: int) -> Floats:
        needs = PHASES[phase].needs
        rerun = "rerun-association" in needs
        match name:
            case "chosen":
                return Votes.from_total(self.sum_of("votes").total).chosen.astype(np.float64)
            case "combat":
                return self.combat
            case "mean_severity":
                return self.centre[1]
            case "weights":
                # A phase that trains needs the rounds of its own before.
                trains = phase in needs and "calibration" not in needs
                return self.trained(round_ if trains else self.protocol.training.rounds).weights
            case "edge_weights":
                return self.rerun_weights if rerun else self.network.weight
            case "calibration":
                return self.rerun_calibrations if rerun else np.array(self.calibration)
            case "partial":
                return self.partial.vector
            case "coefficients" | "histograms":
                return self.of_models(phase, round_)[name]
        raise StudyError(f"nothing says what the array {name} of {phase} is")

    @property
    def fewest_children(self) -> float:
        """A public lower bound on the children in any sum: every site that adds any refuses fewer."""
        return float(self.protocol.training_quorum * self.protocol.cohort.minimum_children)

    @cached_property
    def combat(self) -> Floats:
        """ComBat's shared model, as a question has it."""
        edges = len(self.protocol.candidates.edges)
        return combat_model(self.sum_of("combat").total, edges=edges, covariates=COVARIATES).vector

    @cached_property
    def centre(self) -> tuple[float, Floats]:
        """How many children train, and what their severity residuals are taken from."""
        sums = self.sum_of("centre")
        return centre_of(
            sums.total,
            centring=self.protocol.severity_network.centre,
            fewest_children=self.fewest_children,
            noise_sd=sums.noise_sd,
        )

    @cached_property
    def network(self) -> SeverityNetwork:
        """The severity network."""
        sums = self.sum_of("association")
        children, _ = self.centre
        return self.protocol.candidates.network(sums.total, children=children, noise_sd=sums.noise_sd)

    @cached_property
    def weight_of_slope(self) -> float | None:
        """The weight of an edge whose score rises by one per unit of severity; None where no sum tells."""
        if self.protocol.severity_network.centre != "levels" or self.protocol.candidates.grouped:
            return None
        return weight_of_slope(self.sum_of("centre").total, float(self.centre[1][0]))

    def trained(self, rounds: int) -> Training:
        """Return the model after so many rounds.

        Raises
        ------
        StudyError
            A sum of these rounds has not been released.

        """
        training = self._training
        if training is None or training.rounds > rounds:
            training = Training(self.protocol)
        phase = training.phase
        while training.rounds < rounds:
            training.step(self.sum_of(phase, training.rounds), children=self.centre[0])
        self._training = training
        return training

    @cached_property
    def calibration(self) -> tuple[float, float]:
        """Intercept and slope of the trained model's predictions."""
        sums = self.sum_of("calibration")
        return affine(sums.total, fewest_children=self.fewest_children, noise_sd=sums.noise_sd)

    @cached_property
    def rerun_weights(self) -> Floats:
        """Weights of the candidates in the network of each rerun, one after the other."""
        sums, candidates = self.sum_of("rerun-association"), self.protocol.candidates
        each = read_rerun_association(
            sums.total,
            reruns_of(self.protocol),
            candidates.released,
            fewest_children=self.fewest_children,
        )
        return np.concatenate(
            [
                candidates.network(own, children=children, noise_sd=sums.noise_sd).weight
                for own, children in each
            ]
        )

    @cached_property
    def rerun_calibrations(self) -> Floats:
        """Intercept and slope of each rerun, one after the other."""
        sums = self.sum_of("rerun-calibration")
        lines = [
            affine(own, fewest_children=self.fewest_children, noise_sd=sums.noise_sd)
            for own in sums.total.reshape(-1, CALIBRATION.dimension)
        ]
        return np.array(lines).ravel()

    @cached_property
    def moments(self) -> Moments:
        """The exact network's moments."""
        sums = self.sum_of("network")
        training = sum(self.protocol.trains(site) for site in sums.sites)
        return moments_of(sums.total, edges=len(self.protocol.candidates.edges), sites=training)

    @cached_property
    def exact_network(self) -> ExactNetwork:
        """The exact network."""
        return exact_network(self.moments)

    @cached_property
    def partial(self) -> Partial:
        """What the exact network's bootstrap is asked with."""
        return Partial.of(self.moments, self.exact_network.r)

    def fitted(self, rounds: int) -> ModelFits:
        """Return the logistic models after so many rounds.

        Raises
        ------
        StudyError
            A sum of these rounds has not been released.

        """
        fits = self._fits
        if fits is None or fits.steps > rounds:
            fits = ModelFits(self.protocol)
        while fits.steps < rounds:
            fits.step(self.sum_of("newton", fits.steps))
        self._fits = fits
        return fits

    def of_models(self, phase: PhaseName, round_: int = 0) -> Mapping[str, Floats]:
        """Return what a question about the logistic models has beside the prediction."""
        if phase == "linear":
            return {}
        rules = self.protocol.analyses.neurocognition
        every = 0 if rules is None else rules.rounds
        if phase == "newton":
            return {"coefficients": self.fitted(round_).places}
        found: dict[str, Floats] = {"coefficients": self.fitted(every).coefficients()}
        if phase == "ranking":
            found["histograms"] = histograms(kinds_of(self.protocol), self.sum_of("comparison").total)
        return found
