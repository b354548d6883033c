"""Local steps of one site between two rounds: FedAvg and FedProx.

The result mixes the site's children, so it is no sum of rows of one child each: it leaves a site in studies
without noise only. Under privacy a round is one full-batch step.
"""

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from esn_core.errors import DataError
from esn_core.gase import standardise_severity
from esn_core.learning.severity_model import Connectomes, SeverityModel
from esn_core.learning.weights import to_vector


def take_local_steps(
    model: SeverityModel,
    inputs: Connectomes,
    gase: NDArray[np.float64],
    *,
    steps: int,
    learning_rate: float,
    proximal: float = 0.0,
) -> NDArray[np.float64]:
    """Take full-batch gradient steps on the mean squared error, and return how the weights moved.

    McMahan et al. 2017 (arXiv:1602.05629), algorithm 1, with the whole site as one batch. Li et al. 2020
    (arXiv:1812.06127), equation 2, where `proximal` is positive: the loss grows by mu/2 |w - w_t|^2, with
    w_t the weights from the centre, so that sites that differ stay near one another.

    Parameters
    ----------
    model : SeverityModel
        The weights from the centre; not changed.
    inputs : (n, 1, R, R) float32 tensor
    gase : (n,) float64
    steps : int
        1 or more.
    learning_rate : float
    proximal : float
        mu; 0 is FedAvg.

    Returns
    -------
    (P,) float64
        New weights less those from the centre, in the order of `esn_core.learning.weights.to_vector`. The
        centre takes their mean, weighted by the sites' children.

    Raises
    ------
    DataError
        There is no child, or no step to take, or `proximal` is negative; or the steps diverged. The update
        is for studies without noise: such a refusal spends nothing that the release itself would not.

    """
    if not len(gase):
        raise DataError("a local update needs one child or more")
    if steps < 1 or not proximal >= 0:
        raise DataError(
            f"a local update takes 1 step or more and a proximal term of 0 or more, not {steps} "
            f"and {proximal}"
        )
    local = deepcopy(model).train()
    start = [p.detach().clone() for p in local.parameters()]
    device = start[0].device
    x = inputs.to(device)
    target = torch.from_numpy(standardise_severity(gase)).float().to(device)
    descent = torch.optim.SGD(local.parameters(), lr=learning_rate)
    for _ in range(steps):
        descent.zero_grad()
        functional.mse_loss(local(x), target).backward()  # type: ignore[no-untyped-call]
        for p, before in zip(local.parameters(), start, strict=True):
            assert p.grad is not None
            p.grad.add_(p.detach() - before, alpha=proximal)
        descent.step()
    moved: NDArray[np.float64] = to_vector(local) - to_vector(model)
    if not np.isfinite(moved).all():
        raise DataError(
            f"{steps} local steps diverged at learning rate {learning_rate:g}; take fewer, or a smaller rate"
        )
    return moved
