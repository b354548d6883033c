"""Structural connectomes: how many streamlines join each pair of regions.

The type has rules, which it checks when it is built, so that whoever receives a `Connectome` may trust it:

* the counts are float64, finite and not negative;
* they are symmetric, as the pair (a, b) is the pair (b, a);
* there is one name for each row.

>>> Connectome(np.array([[3.0, 5.0], [5.0, 0.0]]), ("hippocampus", "amygdala")).counts.sum()
np.float64(13.0)
>>> Connectome(np.array([[3.0, 5.0], [4.0, 0.0]]), ("hippocampus", "amygdala"))
Traceback (most recent call last):
esn_core.errors.DataError: counts must be symmetric: the pair (a, b) is the pair (b, a)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError


@dataclass(frozen=True)
class Connectome:
    """Streamline counts between regions.

    Attributes
    ----------
    counts : (R, R) float64
        Symmetric and non-negative; a streamline that starts and ends in region
        ``r`` counts once, in ``counts[r, r]``.
    regions : tuple of R str
        Atlas names in the order of the rows.

    """

    counts: NDArray[np.float64]
    regions: tuple[str, ...]

    def __post_init__(self) -> None:
        expected = (len(self.regions), len(self.regions))
        if self.counts.shape != expected:
            raise DataError(f"counts must have shape {expected}, not {self.counts.shape}")
        if self.counts.dtype != np.float64:
            raise DataError(f"counts must be float64, not {self.counts.dtype}")
        if not np.isfinite(self.counts).all():
            raise DataError(f"counts must be finite; {np.sum(~np.isfinite(self.counts))} of them are not")
        if (self.counts < 0).any():
            raise DataError(f"counts must not be negative; the least is {self.counts.min():g}")
        if not np.array_equal(self.counts, self.counts.T):
            raise DataError("counts must be symmetric: the pair (a, b) is the pair (b, a)")
