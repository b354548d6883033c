"""How the phases of a study ask for a release."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.phases import PhaseName

Arrays = Mapping[str, NDArray[np.float64]]

Ask = Callable[[PhaseName, ReleaseKind, int, Arrays], tuple[NDArray[np.float64], float]]
"""Asks for a release of a phase, given its kind, round and arrays; returns the sum and its noise."""


@dataclass(frozen=True)
class Pooled:
    """The sum of the sites' answers.

    Attributes
    ----------
    total : (d,) float64
    sites : tuple of str
        Who answered, in the order of the roster.

    """

    total: NDArray[np.float64]
    sites: tuple[str, ...]
