"""Edge measures: what is known of the streamlines that join two regions, beside their number."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from esn_core.connectome.connectome import Connectome
from esn_core.errors import DataError


@dataclass(frozen=True)
class EdgeMeasures:
    """The connectome of one scan, measured in several ways.

    Every matrix is (R, R) float64, symmetric, finite, non-negative, and 0 where no streamline joins the pair.

    Attributes
    ----------
    connectome : Connectome
        How many, or the sum of their weights.
    mean_length_mm : NDArray
    count_per_length : NDArray
        Sum of the inverse lengths, per mm: long bundles are seeded more often (Hagmann et al. 2008, PLoS Biol
        6:e159).
    count_per_volume : NDArray
        Count over the mean volume of the two regions, per mm³.
    mean_fa : NDArray
        Of the means along each streamline.
    streamlines : int
        Of allowed length, assigned or not.
    assigned : int
        Those with both ends in a region, whatever their weight.

    """

    connectome: Connectome
    mean_length_mm: NDArray[np.float64]
    count_per_length: NDArray[np.float64]
    count_per_volume: NDArray[np.float64]
    mean_fa: NDArray[np.float64]
    streamlines: int
    assigned: int

    def __post_init__(self) -> None:
        for name, matrix in self.matrices().items():
            if matrix.shape != self.connectome.counts.shape or matrix.dtype != np.float64:
                raise DataError(
                    f"{name} must be float64 of shape {self.connectome.counts.shape}, not {matrix.dtype} of "
                    f"{matrix.shape}"
                )
            if not np.isfinite(matrix).all() or (matrix < 0).any():
                raise DataError(f"{name} must be finite and not negative")
            if not np.array_equal(matrix, matrix.T):
                raise DataError(f"{name} must be symmetric: the pair (a, b) is the pair (b, a)")
        if not 0 <= self.assigned <= self.streamlines:
            raise DataError(f"{self.assigned} streamlines of {self.streamlines} cannot be assigned")

    def matrices(self) -> dict[str, NDArray[np.float64]]:
        """Give every measure but the counts, by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NO_MATRIX}

    @property
    def assigned_fraction(self) -> float:
        """Share of the streamlines that have both ends in a region; 0 if there are none."""
        return self.assigned / self.streamlines if self.streamlines else 0.0

    @property
    def density(self) -> float:
        """Share of the pairs of different regions that a streamline joins."""
        upper = self.connectome.counts[np.triu_indices(len(self.connectome.regions), k=1)]
        return float((upper > 0).mean()) if upper.size else 0.0


_NO_MATRIX = ("connectome", "streamlines", "assigned")
