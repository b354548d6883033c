"""Networks to compare with: BrainNetCNN, a plain CNN and a graph network, small enough for 200 children."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

_EPOCHS = 60
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-2
_BATCH = 32


class EdgeToEdge(nn.Module):
    """Kawahara et al. 2017 (NeuroImage 146:1038), equation 1: each cell sums its row and its column."""

    def __init__(self, before: int, after: int, regions: int) -> None:
        super().__init__()
        self.row = nn.Conv2d(before, after, (1, regions))
        self.column = nn.Conv2d(before, after, (regions, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, after, R, R) of (B, before, R, R)."""
        cells: Tensor = self.row(x) + self.column(x)
        return cells


class BrainNetCnn(nn.Module):
    """Edge to edge, edge to node, node to graph, for one number of regions."""

    def __init__(self, regions: int, *, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(EdgeToEdge(1, width, regions), nn.LeakyReLU(0.33)),
            *(nn.Conv2d(width, 2 * width, (1, regions)), nn.LeakyReLU(0.33), nn.Dropout(0.5)),
            *(nn.Conv2d(2 * width, 4 * width, (regions, 1)), nn.LeakyReLU(0.33), nn.Flatten()),
            nn.Linear(4 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,) severities."""
        said: Tensor = self.layers(x)[:, 0]
        return said


class PlainCnn(nn.Module):
    """Three convolutions and a linear layer, as for a picture."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after in (width, 2 * width, 2 * width):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before = after
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * before, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,) severities."""
        said: Tensor = self.layers(x)[:, 0]
        return said


class GraphNetwork(nn.Module):
    """Two rounds of messages between regions along the connectome, then the mean over regions.

    A region starts as a learnt vector; a message is weighted by the edge's score (Gilmer et al. 2017).
    """

    def __init__(self, regions: int, *, width: int = 8) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(regions, width) / width**0.5)
        self.own = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.message = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(2)])
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,) severities."""
        scores = x[:, 0]
        h = self.start.expand(len(x), -1, -1)
        for own, message in zip(self.own, self.message, strict=True):
            h = torch.tanh(own(h) + scores @ message(h) / scores.shape[1] ** 0.5)
        said: Tensor = self.last(h).mean(dim=1)[:, 0]
        return said


def train(
    model: nn.Module,
    connectomes: Tensor,
    severity: NDArray[np.float64],
    *,
    epochs: int = _EPOCHS,
    rng: np.random.Generator,
) -> nn.Module:
    """Train a network by AdamW on the squared error.

    Parameters
    ----------
    model : Module
    connectomes : (n, 1, R, R) float32 tensor
    severity : (n,) float64
    epochs : int
    rng : numpy Generator

    """
    target = torch.from_numpy(severity).float()
    adam = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    model.train()
    for _ in range(epochs):
        for batch in torch.split(torch.from_numpy(rng.permutation(len(target))), _BATCH):
            adam.zero_grad()
            functional.mse_loss(model(connectomes[batch]), target[batch]).backward()  # type: ignore[no-untyped-call]
            adam.step()
    return model.eval()
