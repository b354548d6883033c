"""Arrays: the name of those that most of the house computes with, and a product of one row at a time.

Shapes stand in the docstrings.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def product_by_rows(rows: Floats, factors: Floats) -> Floats:
    """Multiply rows by a vector or a matrix, so that no row's product depends on the other rows.

    BLAS computes several rows at once and the last few by other instructions: which rows are there, and how
    many, decides the rounding of each. Here every number is multiplied and added by itself, in the order of
    the columns.

    Parameters
    ----------
    rows : (n, p) float64
    factors : (p,) or (p, q) float64

    Returns
    -------
    (n,) or (n, q) float64
        The same bits for a row whatever the others are. What overflows is not finite, without a warning.

    """
    total = np.zeros((len(rows), *factors.shape[1:]))
    with np.errstate(over="ignore", invalid="ignore"):
        for column, factor in zip(rows.T, factors, strict=True):
            total += column * factor if factors.ndim == 1 else column[:, None] * factor
    return total
