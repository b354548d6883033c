"""A sum that was released: what every later question of a study may be computed from."""

import math
from dataclasses import dataclass

from esn_core.arrays import Floats
from esn_core.privacy.fixed_point import noise_sd
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol


@dataclass(frozen=True)
class Released:
    """One sum over the children of all sites that answered.

    Attributes
    ----------
    total : (d,) float64
        Off the grid, noise included.
    sites : tuple of str
        Whose children were summed, in the order of the roster.
    noise_sd : float
        Standard deviation of the noise in each number.

    """

    total: Floats
    sites: tuple[str, ...]
    noise_sd: float

    @classmethod
    def of(cls, protocol: Protocol, kind: ReleaseKind, total: Floats, sites: tuple[str, ...]) -> "Released":
        """Add to a sum what its noise is, which the protocol says."""
        multiplier = price_of(protocol).of(kind.name).noise_multiplier
        each = noise_sd(kind, multiplier, share=protocol.noise_share)
        return cls(total, sites, each * math.sqrt(len(sites)))
