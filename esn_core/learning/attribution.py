"""What each connection contributes to a prediction: integrated gradients."""

import numpy as np
import torch
from numpy.typing import NDArray

from esn_core.learning.severity_model import SeverityModel, as_matrices

STEPS = 32
"""Points on the path from the baseline to the child; the sum misses the prediction by a percent or so."""


def attributions(
    model: SeverityModel,
    values: NDArray[np.float64],
    edges: NDArray[np.int64],
    *,
    ends: NDArray[np.int64],
    regions: int,
    steps: int = STEPS,
) -> NDArray[np.float64]:
    """Attribute each child's prediction to its edges.

    Sundararajan, Taly & Yan 2017 (arXiv:1703.01365), equation 1, from the baseline 0 (a child whose scores
    are the template's), by the midpoint rule: over the edges, attributions add up to the prediction less that
    of the baseline.

    Parameters
    ----------
    model : SeverityModel
    values : (n, d) float64
        The model's inputs by edge (`esn_core.severity_network.selection.masked_input`).
    edges : (d,) int64
        Which of the atlas's edges each column is.
    ends : (E, 2) int64
        Regions that each of the atlas's edges joins.
    regions : int
    steps : int

    Returns
    -------
    (n, d) float64
        In the model's unit, (GASE - 4) / 1.5. Each row is computed from that child alone.

    """
    device = next(model.parameters()).device
    model.eval()
    row, column = (torch.from_numpy(index) for index in ends[edges].T)
    path = torch.arange(0.5, steps, device=device).div(steps).view(-1, 1, 1, 1)
    found = np.zeros(values.shape)
    for i in range(len(values)):
        child = as_matrices(values[i : i + 1], edges, ends=ends, regions=regions).to(device)
        along = (path * child).requires_grad_()
        (slope,) = torch.autograd.grad(model(along).sum(), along)
        share = (slope.mean(dim=0, keepdim=True) * child)[0, 0].cpu()
        # An edge stands in two cells.
        found[i] = (share[row, column] + share[column, row]).numpy()
    return found
