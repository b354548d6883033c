"""Faults of a scan's voxels that a reader of files cannot see, each refused by name."""

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_core.errors import DataError

MOST_NEGATIVE = 1e-3
"""Interpolation leaves a few negative voxels; overflow and phase images leave many."""
LEAST_CONTRAST = 1.05
"""Weighting attenuates a head's signal by half; a table that does not belong to the scan, not at all."""
CEILING_SHARE = 1e-3
"""So many voxels at the largest value that a file can hold: a scale that ran out."""


def check_signal(
    signal: NDArray[np.float32], gradients: Gradients, *, name: str, ceiling: float | None = None
) -> None:
    """Refuse voxels that no diffusion scan has.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
    name : str
        Of the file, for messages.
    ceiling : float, optional
        The largest value that the file's type can hold, after scaling; None for floating point.

    Raises
    ------
    DataError
        Voxels are not finite; all are equal; more than one in a thousand is negative, as after an overflow of
        int16; many lie at the ceiling; a volume is empty; or the b0s are no brighter than the weighted
        volumes.

    """
    if signal.ndim != 4 or not signal.size:
        raise DataError(f"{name}: a series of volumes (4-D) is needed; found shape {signal.shape}")
    unusable = int(signal.size - np.isfinite(signal).sum())
    if unusable:
        raise DataError(f"{name}: {unusable} voxels are NaN or infinite; all must be finite")
    if signal.min() == signal.max():
        raise DataError(f"{name}: all voxels have the value {signal.min():g}")
    negative = float(np.mean(signal < 0))
    if negative > MOST_NEGATIVE:
        raise DataError(
            f"{name}: {negative:.1%} of the voxels are negative, as after an overflow of integers or in a "
            f"phase image; at most {MOST_NEGATIVE:.1%} may be"
        )
    full = float(np.mean(signal >= ceiling)) if ceiling is not None else 0.0
    if full > CEILING_SHARE:
        raise DataError(
            f"{name}: {full:.1%} of the voxels have the largest value that the file can hold, {ceiling:g}; "
            "the scan was cut off there"
        )
    empty = np.flatnonzero(signal.reshape(-1, signal.shape[3]).max(axis=0) <= 0)
    if empty.size:
        raise DataError(f"{name}: volume {empty[0]} is empty")
    means = signal.mean(axis=(0, 1, 2), dtype=np.float64)
    if gradients.is_b0.any() and not gradients.is_b0.all():
        ratio = float(np.median(means[gradients.is_b0]) / np.median(means[~gradients.is_b0]))
        if ratio < LEAST_CONTRAST:
            raise DataError(
                f"{name}: the b0s are {ratio:.2f} times as bright as the weighted volumes; "
                f"{LEAST_CONTRAST:g} or more is needed: the b-values belong to another scan or order"
            )
