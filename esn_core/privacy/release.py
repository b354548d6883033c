"""What may leave a site: sums of one bounded row per child.

A release is described by the row that one child adds to it. The gate adds up
a child's rows, clips the result to `l2_bound` in Euclidean norm whatever it
was given, and sums over the children. So adding or removing one child changes
the sum by at most `l2_bound`: this is the L2 sensitivity of every release. Its
proof asks of the code that computed the rows only that a child's row is
computed from that child alone. The bounds of the releases are chosen so that
the clip changes nothing when the rows are as they should be.

The second of these rows is too long and is scaled down; the third is not finite and counts as zero:

>>> clip_rows(np.array([[1.0, 2.0], [30.0, 40.0], [np.nan, 0.0]]), 5.0)
array([[1., 2.],
       [3., 4.],
       [0., 0.]])
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError

Children = Literal["training", "held-out"]
CHILDREN: tuple[Children, ...] = ("training", "held-out")
People = Literal["training", "held-out", "controls"]
"""Whom a release is about: children of a split, or healthy controls."""


# A site's sum takes 52 bits at most, so that those of 512 sites with their noise fit int64.
_SUM_BITS = 52
_CHILDREN_BITS = 12
LARGEST_CHILDREN = 1 << _CHILDREN_BITS
"""Of one site: so many rows, all at their bound and all alike, fit a sum."""


@dataclass(frozen=True)
class ReleaseKind:
    """A sum that may leave a site.

    Attributes
    ----------
    name : str
        As it stands in the ledger and in the question id.
    children : {'training', 'held-out', 'controls'}
        Whose rows are summed.
    dimension : int
        Length of a row, and of the sum.
    l2_bound : float
        Largest Euclidean norm of one child's row: the sensitivity of the sum
        when a child is added or removed. The gate holds every row to it.

    """

    name: str
    children: People
    dimension: int
    l2_bound: float

    @property
    def fraction_bits(self) -> int:
        """Binary places of the fixed-point grid on which the sum is formed.

        As fine as the bound allows: the rows of 4,096 children of one site, all at the
        bound and all alike, still fit 52 bits.
        """
        return _SUM_BITS - _CHILDREN_BITS - math.ceil(math.log2(self.l2_bound))

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise DataError(f"release {self.name}: a row has at least one number, not {self.dimension}")
        # Beyond these, the grid would have no place after the point, or no place before it.
        if not 2.0**-20 <= self.l2_bound <= 2.0**30:
            raise DataError(
                f"release {self.name}: the bound must lie between 2^-20 and 2^30, not {self.l2_bound}"
            )


def clip_rows(rows: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Scale every row of (n, d) `rows` whose Euclidean norm exceeds `bound` down to it.

    A row that holds a number that is not finite becomes zero. To refuse the
    whole sum instead would tell whoever chose the model's weights that there is
    such a child, at no cost.
    """
    # In the order of rows: otherwise squares are added across the children, in another order for one child
    # than for several.
    finite = np.ascontiguousarray(np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0))
    # Norms are taken of rows over their largest number: squares neither overflow nor vanish.
    largest = np.abs(finite).max(axis=1, keepdims=True, initial=0.0)
    unit = finite / np.where(largest > 0, largest, 1.0)
    norms = np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1.0)
    with np.errstate(over="ignore"):
        too_long = largest * norms > bound
    return np.where(too_long, unit * (bound / norms), finite)
