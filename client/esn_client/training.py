"""One step of DP-SGD at a site: each child's gradient, by Opacus.

Opacus's hooks give the gradient of every child; the gate clips, sums and
noises them. One round is one full-batch step, so nothing is subsampled and the
ledger's composition is exact.

The children go through the network one by one. In a batch, the rounding of
float32 would depend on who else is in it: with weights chosen to magnify
rounding, one child could then move every other child's clipped row.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch.nn import functional

from esn_core.errors import ConfigError
from esn_core.learning.severity_model import SeverityModel
from esn_core.releases import standardise_severity

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
        raise ConfigError("compute.device is 'cuda', but this machine offers torch no CUDA device")
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
        The model holds a layer that mixes children, such as batch normalisation, or folds another
        dimension into the batch.

    """
    # Opacus validates a model in training mode only.
    was_training = model.training
    model.train()
    faults = ModuleValidator.validate(model, strict=False)
    if faults:
        raise ConfigError(f"the model cannot be trained privately: {faults[0]}")
    device = next(model.parameters()).device
    target = torch.from_numpy(standardise_severity(gase)).float()
    # 'sum': a child's gradient must not depend on how many others there are.
    private = GradSampleModule(model, loss_reduction="sum")
    rows = np.zeros((len(connectomes), sum(p.numel() for p in model.parameters())))
    losses = np.zeros(len(connectomes))
    try:
        for child in range(len(connectomes)):
            x, y = connectomes[child : child + 1], target[child : child + 1]
            # Opacus hooks the backward pass of the first layer: torch runs it as documented
            # only where the input asks for a gradient as well.
            inputs = x.to(device).requires_grad_()
            loss = functional.mse_loss(private(inputs), y.to(device), reduction="none")
            loss.sum().backward()  # type: ignore[no-untyped-call]
            samples = [_of_one_child(p) for p in private.parameters()]
            rows[child] = torch.cat(samples).numpy()
            losses[child] = loss.item()
            private.zero_grad()
    finally:
        private.to_standard_module()
        model.train(was_training)
    return rows, losses


def _of_one_child(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return the gradient of the one child that went through the network.

    A layer that folds something else into the batch dimension (pairs of objects, say) would give
    Opacus's hooks several samples for one child, and the gate rows that are no child's.
    """
    sample: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    if sample.shape != (1, *parameter.shape):
        raise ConfigError(
            f"a parameter of shape {tuple(parameter.shape)} has a gradient of shape {tuple(sample.shape)} "
            "for one child: a layer mixes the batch dimension with another"
        )
    return sample.flatten().cpu().double()
