"""The severity model: a weighted connectome in, standardised GASE out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esn_core.learning.dilated_cnn import DilatedCnn
from esn_core.learning.relation import RelationNetwork

Connectomes = Tensor
"""(n, 1, R, R) float32: symmetric matrices, weighted by the severity network."""

_CHANNELS = 8
_GRID = 6
_HIDDEN = 32


class SeverityModel(nn.Module):
    """The `compact` DCNN+RN, for any number of regions.

    Takes (B, 1, R, R) symmetric connectomes whose edges are weighted by the
    severity network; gives (B,) severities in units of (GASE - 4) / 1.5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects = DilatedCnn(channels=_CHANNELS, grid=_GRID)
        self.relation = RelationNetwork(features=self.objects.features, hidden=_HIDDEN)

    def forward(self, connectome: Tensor) -> Tensor:
        """Return (B,) severities of (B, 1, R, R) connectomes."""
        severity: Tensor = self.relation(self.objects(connectome))
        return severity


def as_matrices(
    values: NDArray[np.float64], edges: NDArray[np.int64], *, ends: NDArray[np.int64], regions: int
) -> Connectomes:
    """Lay edge values out as symmetric matrices.

    Parameters
    ----------
    values : (n, d) float64
    edges : (d,) int64
        Which of the atlas's edges each column is.
    ends : (E, 2) int64
        Regions that each of the atlas's edges joins.
    regions : int

    Returns
    -------
    (n, 1, R, R) float32 tensor
        Zero on the diagonal and at every other edge.

    """
    matrices = np.zeros((len(values), 1, regions, regions), dtype=np.float32)
    row, column = ends[edges].T
    matrices[:, 0, row, column] = values
    matrices[:, 0, column, row] = values
    return torch.from_numpy(matrices)


def predict(model: SeverityModel, connectomes: Connectomes) -> NDArray[np.float64]:
    """Return (n,) severities of (n, 1, R, R) connectomes, on the model's device.

    One by one: in a batch, the rounding of one child's severity would depend on the others.
    """
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return np.array([model(child[None].to(device)).item() for child in connectomes], dtype=np.float64)
