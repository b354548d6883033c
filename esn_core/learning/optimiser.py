"""The centre's optimiser: takes mean gradients or mean local updates, moves the weights."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray


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
        weights: NDArray[np.float64],
        *,
        learning_rate: float,
        strategy: Literal["fedadam", "fedavg", "fedprox"],
    ) -> None:
        self._weights = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        rule = torch.optim.Adam if strategy == "fedadam" else torch.optim.SGD
        self._optimiser: torch.optim.Optimizer = rule([self._weights], lr=learning_rate)

    @property
    def weights(self) -> NDArray[np.float64]:
        """(P,) float64, a copy."""
        return self._weights.detach().numpy().copy()

    def step(self, gradient: NDArray[np.float64]) -> None:
        """Move against a (P,) mean gradient."""
        self._weights.grad = torch.from_numpy(gradient)
        self._optimiser.step()
