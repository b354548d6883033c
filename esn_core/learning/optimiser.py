"""The centre's optimiser: takes summed gradients, moves the weights."""

import numpy as np
import torch
from numpy.typing import NDArray


class CentreOptimiser:
    """Adam on the mean gradient of all sites (Reddi et al. 2021, FedAdam, with one local step).

    Parameters
    ----------
    weights : (P,) float64
        Where to start.
    learning_rate : float

    """

    def __init__(self, weights: NDArray[np.float64], *, learning_rate: float) -> None:
        self._weights = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        self._adam = torch.optim.Adam([self._weights], lr=learning_rate)

    @property
    def weights(self) -> NDArray[np.float64]:
        """(P,) float64, a copy."""
        return self._weights.detach().numpy().copy()

    def step(self, gradient: NDArray[np.float64]) -> None:
        """Move against a (P,) mean gradient."""
        self._weights.grad = torch.from_numpy(gradient)
        self._adam.step()
