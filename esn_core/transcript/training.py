"""The training of a study's model, step by step from the sums that were released."""

from esn_core.arrays import Floats
from esn_core.learning.optimiser import CentreOptimiser
from esn_core.learning.releases import read_gradient, read_local_update
from esn_core.learning.weights import pretrained, to_vector
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.transcript.released import Released


class Training:
    """The model under way.

    Parameters
    ----------
    protocol : Protocol

    Attributes
    ----------
    phase : str
        Whose sums are its steps.
    losses : list of float
        Mean clipped training loss before each round's step, noise included.

    """

    def __init__(self, protocol: Protocol) -> None:
        rules = protocol.training
        self.phase: PhaseName = "local-update" if rules.local_steps > 1 else "gradient"
        self.losses: list[float] = []
        self._bound = rules.max_gradient_norm
        self._optimiser = CentreOptimiser(
            to_vector(pretrained(protocol.model.initial_weights, protocol.own_weights)),
            learning_rate=rules.learning_rate,
            strategy=rules.strategy,
        )

    @property
    def rounds(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    @property
    def weights(self) -> Floats:
        """(P,) float64, a copy."""
        return self._optimiser.weights

    def step(self, sums: Released, *, children: float) -> None:
        """Take a step along the sum of one round, over so many training children."""
        step = (
            read_local_update(sums.total, max_gradient_norm=self._bound)
            if self.phase == "local-update"
            else read_gradient(sums.total, children, max_gradient_norm=self._bound)
        )
        self.losses.append(step.loss)
        self._optimiser.step(step.gradient)
