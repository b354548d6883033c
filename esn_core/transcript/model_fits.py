"""The fits of a study's logistic models, step by step from the sums that were released."""

from collections.abc import Sequence

import numpy as np

from esn_core.analyses.neurocognition import Kinds, Model, kinds_of, logit_clip, rules_of
from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.logistic_exact import ExactLogistic
from esn_core.statistics.logistic_fit import LogisticFit, LogisticNewton
from esn_core.transcript.released import Released

Fit = tuple[LogisticFit | None, str | None]
"""A fit, or why there is none."""


class ModelFits:
    """All logistic models of a protocol, moved together by one sum a round.

    Parameters
    ----------
    protocol : Protocol

    """

    def __init__(self, protocol: Protocol) -> None:
        self._kinds = kinds_of(protocol)
        self._clip = logit_clip(price_of(protocol).of("newton").noise_multiplier)
        self._rounds = rules_of(protocol).rounds
        self._machines: list[LogisticNewton | ExactLogistic] = []
        self._steps = 0

    @property
    def steps(self) -> int:
        """How many sums were taken."""
        return self._steps

    @property
    def places(self) -> Floats:
        """The (`Kinds.tracked_count`,) coefficients at which the next sums are needed."""
        if not self._machines:
            return np.zeros(self._kinds.tracked_count)
        return np.concatenate([machine.coefficients.ravel() for machine in self._machines])

    def step(self, sums: Released) -> None:
        """Take one sum of all models at `places`, and move.

        Raises
        ------
        DataError
            The sums hold a number that is not finite.

        """
        noise = sums.noise_sd
        self._machines = self._machines or [self._machine(model, noise) for model in self._kinds.models]
        parts = parts_of(sums.total, self._kinds.newton_widths)
        for machine, part in zip(self._machines, parts, strict=True):
            machine.step(part)
        self._steps += 1

    def _machine(self, model: Model, noise: float) -> LogisticNewton | ExactLogistic:
        norm, clip = model.feature_norm, self._clip
        if self._kinds.exact:
            return ExactLogistic(model.names, feature_norm=norm, logit_clip=clip)
        return LogisticNewton(model.names, feature_norm=norm, logit_clip=clip, noise_sd=noise)

    def fits(self) -> list[Fit]:
        """Return the fit of each model, when all rounds are over.

        Raises
        ------
        StudyError
            A round is still to come.

        """
        if self._steps < self._rounds:
            raise StudyError(f"the models are fitted after {self._rounds} rounds, not {self._steps}")
        found: list[Fit] = []
        for machine in self._machines:
            try:
                found.append((machine.fit(), None))
            except StudyError as error:
                found.append((None, str(error)))
        return found

    def coefficients(self) -> Floats:
        """Return the coefficients of all models together, zeros where there is no fit."""
        each = [
            np.zeros(len(model.names)) if fit is None else fit.coefficients
            for model, (fit, _) in zip(self._kinds.models, self.fits(), strict=True)
        ]
        return np.concatenate(each)


def histograms(kinds: Kinds, total: Floats) -> Floats:
    """Return the histograms of all models in a sum of `Kinds.comparison`, side by side."""
    blocks = list(kinds.comparison_blocks())
    parts = parts_of(total, [kind.dimension for kind, _ in blocks])
    return np.concatenate(
        [part for (kind, _), part in zip(blocks, parts, strict=True) if kind.name == "histogram"]
    )


def parts_of(total: Floats, widths: Sequence[int]) -> list[Floats]:
    """Take a sum apart whose blocks have these widths."""
    return np.split(total, np.cumsum(widths)[:-1])
