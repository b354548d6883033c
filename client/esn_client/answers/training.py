"""One step of DP-SGD at a site: each child's gradient.

The gate clips, sums and noises them. One round is one full-batch step, so
nothing is subsampled and the ledger's composition is exact.

The children go through the network one by one. In a batch, the rounding of
float32 would depend on who else is in it: with weights chosen to magnify
rounding, one child could then move every other child's clipped row. One by
one, plain autograd gives each child's gradient; Opacus says whether the
network is one that keeps children apart.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from esn_core.errors import ConfigError
from esn_core.gase import standardise_severity
from esn_core.learning.severity_model import SeverityModel

Device = torch.device
"""Where a site computes."""


def device_for(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device to compute on.

    Raises
    ------
    ConfigError
        CUDA was asked for and there is none.

    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for the CPU alone"
        raise ConfigError(
            "compute.device is 'cuda', but this machine offers torch no CUDA device; "
            f"torch {torch.__version__} is {build}"
        )
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def gradients(
    model: SeverityModel, connectomes: torch.Tensor, gase: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each child's gradient of its squared error, and the squared error.

    Parameters
    ----------
    model : SeverityModel
        On the device to compute on; not changed.
    connectomes : (n, 1, R, R) float32 tensor
    gase : (n,) float64

    Returns
    -------
    gradients : (n, P) float64
        In the order of `esn_core.learning.weights.to_vector`.
    losses : (n,) float64
        In squared units of standardised severity.

    Raises
    ------
    ConfigError
        The model holds a layer that mixes children, such as batch normalisation.

    """
    # Here, as it is half of what a hospital's process needs to start. Opacus validates in training mode only.
    from opacus.validators import ModuleValidator

    was_training = model.training
    model.train()
    faults = ModuleValidator.validate(model, strict=False)
    if faults:
        raise ConfigError(f"the model cannot be trained privately: {faults[0]}")
    device = next(model.parameters()).device
    target = torch.from_numpy(standardise_severity(gase)).float()
    parameters = list(model.parameters())
    rows = np.zeros((len(connectomes), sum(p.numel() for p in parameters)))
    losses = np.zeros(len(connectomes))
    try:
        for child in range(len(connectomes)):
            x, y = connectomes[child : child + 1].clone(), target[child : child + 1]
            loss = functional.mse_loss(model(x.to(device)), y.to(device))
            parts = torch.autograd.grad(loss, parameters)
            rows[child] = torch.cat([part.flatten() for part in parts]).cpu().double().numpy()
            losses[child] = loss.item()
    finally:
        model.train(was_training)
    return rows, losses
