"""A relation network: one function of every ordered pair of objects, averaged."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class RelationNetwork(nn.Module):
    """Santoro et al. 2017 (arXiv:1706.01427), averaged over pairs as in the published DCNN+RN.

    The first layer of g on a pair [o_i, o_j] is split as W_a o_i + W_b o_j, so
    that the (n, n, 2 features) tensor is never built; the batch stays in
    dimension 0, as per-sample gradients need it. The last layer starts at
    zero, so that an untrained network adds nothing.

    Parameters
    ----------
    features : int
        Of each object.
    context : int
        How many numbers f takes beside the mean over pairs.
    hidden : int
        Width of g and f.

    """

    def __init__(self, *, features: int, context: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(features, hidden, bias=False)
        self.pair = nn.Linear(hidden, hidden)
        self.readout = nn.Sequential(
            *(nn.Linear(hidden + context, hidden), nn.LeakyReLU(0.2)),
            *(nn.Linear(hidden, hidden), nn.LeakyReLU(0.2)),
        )
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, objects: Tensor, context: Tensor) -> Tensor:
        """Return (B,) numbers from (B, n, features) objects and (B, context) numbers."""
        pairs = self.first(objects)[:, :, None] + self.second(objects)[:, None, :]
        pairs = functional.leaky_relu(self.pair(functional.leaky_relu(pairs, 0.2)), 0.2)
        relations: Tensor = self.last(self.readout(torch.cat([pairs.mean(dim=(1, 2)), context], dim=1)))
        return relations[:, 0]
