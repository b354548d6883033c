"""The published DCNN+RN, layer by layer: a reference for studies without privacy.

Source: Jeong et al. 2025 (doi 10.1002/acn3.70217) and the facts of its network's public code, as METHOD
lists them. Batch normalisation makes a child's output depend on the others, so it is never trained privately.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

_FILTERS = 32
_DILATIONS = (1, 1, 2, 2)
_PAIR_WIDTH, _OBJECT_WIDTHS = 512, (512, 512, 256)
_SLOPE = 0.2
_BATCH = 128
_AUGMENTED = 1500
_LEARNING_RATE = 1e-4


class PublishedNetwork(nn.Module):
    """Four blocks [Conv 32 3x3, LeakyReLU, MaxPool 2, BatchNorm], the last two dilated; all pairs of objects.

    Takes (B, 1, R, R) connectomes, strictly upper triangle, of any number of regions that leaves one object
    (70 or more; 83 leave one, whose only pair is itself, 115 nine); gives (B,) scores in [0, 1] where
    training put them.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 1
        for dilation in _DILATIONS:
            blocks += [
                nn.Conv2d(before, _FILTERS, 3, dilation=dilation),
                nn.LeakyReLU(_SLOPE),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(_FILTERS),
            ]
            before = _FILTERS
        self.objects = nn.Sequential(*blocks)
        pair: list[nn.Module] = []
        before = 2 * _FILTERS
        for _ in range(4):
            pair += [nn.Linear(before, _PAIR_WIDTH), nn.LeakyReLU(_SLOPE)]
            before = _PAIR_WIDTH
        self.g = nn.Sequential(*pair)
        first, second, third = _OBJECT_WIDTHS
        self.f = nn.Sequential(
            *(nn.Linear(_PAIR_WIDTH, first), nn.LeakyReLU(_SLOPE), nn.Dropout(0.5)),
            *(nn.Linear(first, second), nn.LeakyReLU(_SLOPE), nn.Dropout(0.5)),
            *(nn.Linear(second, third), nn.LeakyReLU(_SLOPE), nn.Linear(third, 1)),
        )

    def forward(self, connectome: Tensor) -> Tensor:
        """Return (B,) scores of (B, 1, R, R) connectomes."""
        objects = self.objects(connectome).flatten(2).transpose(1, 2)
        n = objects.shape[1]
        pairs = torch.cat(
            [
                objects[:, :, None].expand(-1, n, n, -1),
                objects[:, None].expand(-1, n, n, -1),
            ],
            dim=-1,
        )
        mean = self.g(pairs).mean(dim=(1, 2))
        score: Tensor = self.f(mean)[:, 0]
        return score


def learning_rate(epoch: int) -> float:
    """Return the rate of an epoch, counted from 0: halved at every tenth."""
    return _LEARNING_RATE * 0.5 ** ((1 + epoch) // 10)


def published_epochs(
    connectomes: Tensor,
    score: NDArray[np.float64],
    *,
    jitter: float = 0.05,
    rng: np.random.Generator,
) -> Iterator[PublishedNetwork]:
    """Train as published: MSE, Adam, batches of 128, the training set augmented to 1,500.

    Parameters
    ----------
    connectomes : (n, 1, R, R) float32 tensor
    score : (n,) float64
        GASE rescaled to [0, 1].
    jitter : float
        The public code augments without saying how; here copies carry normal noise of this sd, in units of
        the inputs' own.
    rng : numpy Generator

    Yields
    ------
    PublishedNetwork
        After each epoch, without end; the same network, which the next epoch trains further.

    """
    torch.manual_seed(int(rng.integers(2**31)))
    model = PublishedNetwork()
    adam = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    copies = rng.integers(0, len(score), max(_AUGMENTED - len(score), 0))
    x = torch.cat([connectomes, connectomes[copies]])
    noise = torch.from_numpy(rng.normal(size=(len(copies), *connectomes.shape[1:])).astype(np.float32))
    x[len(score) :] += jitter * float(connectomes.std()) * noise * (connectomes[copies] != 0)
    y = torch.from_numpy(np.concatenate([score, score[copies]])).float()
    for epoch in count():
        model.train()
        for group in adam.param_groups:
            group["lr"] = learning_rate(epoch)
        for batch in torch.split(torch.from_numpy(rng.permutation(len(y))), _BATCH):
            if len(batch) < 2:
                continue  # batch normalisation has no variance of one
            adam.zero_grad()
            functional.mse_loss(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            adam.step()
        yield model.eval()
