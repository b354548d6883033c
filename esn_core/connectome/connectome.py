"""Structural connectomes: how many streamlines join each pair of regions.

The type has rules, which it checks when it is built, so that whoever receives a `Connectome` may trust it:

* the counts are float64, finite and not negative;
* they are symmetric, as the pair (a, b) is the pair (b, a);
* there is one name for each row;
* a region without tissue has no counts.

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
    without_tissue : tuple of str
        Regions of which the scan shows next to nothing, after a resection for instance. Nothing is known of
        their
        edges: their counts are 0 and are no finding.

    """

    counts: NDArray[np.float64]
    regions: tuple[str, ...]
    without_tissue: tuple[str, ...] = ()

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
        unknown = [name for name in self.without_tissue if name not in self.regions]
        if unknown:
            raise DataError(f"regions without tissue must be regions of the atlas; {unknown[0]!r} is none")
        if self.counts[~self.has_tissue].any():
            raise DataError("a region without tissue must have no edges; its counts are not all 0")

    @property
    def has_tissue(self) -> NDArray[np.bool_]:
        """Which regions are there, (R,): an edge of another one is missing, which is not the same as 0."""
        away = set(self.without_tissue)
        return np.array([name not in away for name in self.regions], dtype=np.bool_)

    @property
    def known_edges(self) -> NDArray[np.bool_]:
        """Which edges above the diagonal are known, (E,), row by row as everywhere."""
        first, second = np.triu_indices(len(self.regions), k=1)
        return np.asarray(self.has_tissue[first] & self.has_tissue[second], dtype=np.bool_)
