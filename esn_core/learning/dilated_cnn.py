"""Dilated convolutions that turn a weighted connectome into objects with features."""

import torch
from torch import Tensor, nn

_GROUPS = 2


class DilatedCnn(nn.Module):
    """Three 3x3 convolutions with strides 2, 2, 1 and dilations 1, 1, 2.

    The DP-ready form of the published front end (METHOD): GroupNorm in place
    of batch normalisation, which mixes children; adaptive pooling, so that any
    atlas gives the same number of objects. A dilated layer with a stride of two
    skips edges; here every edge is seen (decision 0104).

    Parameters
    ----------
    channels : int
        Filters of the first two layers; the third has twice as many.
    grid : int
        The output is pooled to grid x grid objects.

    """

    coordinates: Tensor

    def __init__(self, *, channels: int, grid: int) -> None:
        super().__init__()
        self.features = 2 * channels + 2
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.GroupNorm(_GROUPS, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.GroupNorm(_GROUPS, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 3, padding=2, dilation=2),
            nn.GroupNorm(_GROUPS, 2 * channels),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(grid),
        )
        axis = torch.linspace(-1, 1, grid)
        grid_points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        self.register_buffer("coordinates", grid_points.reshape(-1, 2), persistent=False)

    def forward(self, connectome: Tensor) -> Tensor:
        """Return (B, grid^2, features) objects of (B, 1, R, R) connectomes.

        The last two features are the object's coordinates.
        """
        objects = self.layers(connectome).flatten(2).transpose(1, 2)
        return torch.cat([objects, self.coordinates.expand(len(objects), -1, -1)], dim=-1)
