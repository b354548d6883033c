"""The centre's optimiser: takes mean gradients or mean local updates, moves the weights.

Every site takes the same steps as the centre. Each number is added, multiplied and divided by itself, so that
the weights are the same to the bit on every machine.
"""

from typing import Literal

import numpy as np

from esn_core.arrays import Floats

# Of Adam: Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1, with its own numbers.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class CentreOptimiser:
    """Adam on the mean gradient of all sites, or plain descent along it.

    The first is FedAdam with one local step (Reddi et al. 2021, arXiv:2003.00295). The second takes what
    the sites' steps add up to over their learning rate: it arrives at the mean of the sites' weights, as in
    FedAvg (McMahan et al. 2017, arXiv:1602.05629).

    Parameters
    ----------
    weights : (P,) float64
        Where to start.
    learning_rate : float
    strategy : {'fedadam', 'fedavg', 'fedprox'}

    """

    def __init__(
        self,
        weights: Floats,
        *,
        learning_rate: float,
        strategy: Literal["fedadam", "fedavg", "fedprox"],
    ) -> None:
        self._weights = weights.copy()
        self._rate, self._adam = learning_rate, strategy == "fedadam"
        self._mean, self._square = np.zeros_like(weights), np.zeros_like(weights)
        # The powers of both numbers, by multiplication alone: a power of the machine's would round otherwise.
        self._power_1, self._power_2 = 1.0, 1.0

    @property
    def weights(self) -> Floats:
        """(P,) float64, a copy."""
        return self._weights.copy()

    def step(self, gradient: Floats) -> None:
        """Move against a (P,) mean gradient."""
        if not self._adam:
            self._weights -= self._rate * gradient
            return
        self._power_1, self._power_2 = _BETA_1 * self._power_1, _BETA_2 * self._power_2
        self._mean += (1 - _BETA_1) * (gradient - self._mean)
        self._square = _BETA_2 * self._square + (1 - _BETA_2) * gradient * gradient
        spread = np.sqrt(self._square) / np.sqrt(1 - self._power_2) + _EPSILON
        self._weights -= self._rate / (1 - self._power_1) * self._mean / spread
