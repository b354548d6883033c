"""The severity model: a weighted connectome in, standardised GASE out.

`as_matrices` lays the edges' values out as the network's input, `SeverityModel` is the network, `predict`
applies it to one child after the other. The trained weights travel as one vector (`weights`).

>>> ends = np.array([[0, 1], [0, 2], [1, 2]])
>>> two_children = as_matrices(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 2]), ends=ends, regions=3)
>>> two_children[0, 0]
tensor([[0., 1., 0.],
        [1., 0., 2.],
        [0., 2., 0.]])
>>> predict(SeverityModel(), two_children).shape
(2,)
"""

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

# The weights of a network add up to 100 in size (`masked_input`), and an edge stands in two cells.
_CELLS_UNIT = 100.0


class SeverityModel(nn.Module):
    """The `compact` DCNN+RN, for any number of regions, beside the weighted sum that it corrects.

    Takes (B, 1, R, R) symmetric connectomes whose edges are weighted by the
    severity network; gives (B,) severities in units of (GASE - 4) / 1.5.

    Wide and deep (Cheng et al. 2016, arXiv:1606.07792): a line on the sum of
    all cells, which is the private CPM's score, plus the relation network's
    output. GroupNorm takes the size of its input from the convolutional
    objects, and with it what a sum over many edges says; the relation network
    therefore has the sums over a 6x6 grid of cells as well (decision 0104).
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects = DilatedCnn(channels=_CHANNELS, grid=_GRID)
        self.relation = RelationNetwork(features=self.objects.features, context=_GRID * _GRID, hidden=_HIDDEN)
        self.sums = nn.AdaptiveAvgPool2d(_GRID)
        self.line = nn.Linear(1, 1)
        with torch.no_grad():
            self.line.weight.fill_(1.0)
            self.line.bias.fill_(-1.0)

    def forward(self, connectome: Tensor) -> Tensor:
        """Return (B,) severities of (B, 1, R, R) connectomes."""
        total = connectome.sum(dim=(1, 2, 3))[:, None] / _CELLS_UNIT
        # The mean of a part of the grid, as the total of a matrix that is like it everywhere.
        sums = self.sums(connectome).flatten(1) * (connectome[0].numel() / _CELLS_UNIT)
        severity: Tensor = self.line(total)[:, 0] + self.relation(self.objects(connectome), sums)
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

    One by one, each in memory of its own: in a batch, the rounding of one child's severity would depend on
    the others, and where a child lies in memory depends on who comes before it.
    """
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return np.array(
            [model(child[None].clone().to(device)).item() for child in connectomes], dtype=np.float64
        )
