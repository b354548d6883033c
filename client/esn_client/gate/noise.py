"""The noise of a release: the exact discrete Gaussian, from the operating system's entropy."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Noise = Callable[[int, float], NDArray[np.int64]]
"""Draws (d,) integers from the discrete Gaussian of a standard deviation in grid units."""


def discrete_gaussian(dimension: int, scale: float) -> NDArray[np.int64]:
    """Draw from the discrete Gaussian (Canonne, Kamath & Steinke 2020), from the system's entropy.

    Parameters
    ----------
    dimension : int
    scale : float
        Standard deviation, in grid units.

    """
    return np.array(_measurement(scale)([0] * dimension), dtype=np.int64)


@lru_cache(maxsize=64)
def _measurement(scale: float) -> Callable[[list[int]], list[int]]:
    """Make OpenDP's measurement once for each scale; each call of it draws anew."""
    # Imported here: OpenDP loads a native library, and most commands draw no noise. Its prelude would load
    # scikit-learn as well.
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    made: Callable[[list[int]], list[int]] = make_gaussian(
        vector_domain(atom_domain(T="i64")), l2_distance(T="f64"), scale=scale
    )
    return made
