"""The noise of a release: the exact discrete Gaussian, from the operating system's entropy."""

from collections.abc import Callable

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
    # Imported here: OpenDP loads a native library, and most commands draw no noise. Its prelude would load
    # scikit-learn as well.
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    measurement = make_gaussian(vector_domain(atom_domain(T="i64")), l2_distance(T="f64"), scale=scale)
    return np.array(measurement([0] * dimension), dtype=np.int64)
