"""Residuals: what a tensor, fitted the plainest way, does not explain of a scan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import Gradients

LEAST_SLICE_VOXELS = 100
"""Slices with less brain tell nothing."""
LOST_SHARE = 0.2
"""A slice that lacks more of what a tensor predicts has dropped out; noise leaves some hundredths."""


@dataclass(frozen=True)
class PlainTensor:
    """An ordinary least-squares fit of the logarithm of the signal, for looking at.

    Attributes
    ----------
    principal : (n, 3) float64
        Unit vectors along the voxel axes, for each voxel of the brain.
    residual : (V, S) float64
        Mean absolute residual of each slice in each volume, as a share of the mean b0 signal of the brain;
        NaN where a slice has next to no brain,
        and in the b0 volumes, whose brightness would hide the others.
    lost : (V, S) float64
        Share of the predicted signal that a slice of a volume lacks; NaN as above.

    contrast_to_noise : float
        Median over the brain of how much the tensor's prediction differs between directions, over the
        residual (the sd of
        either; as FSL's eddy_quad has it of a shell).

    """

    principal: NDArray[np.float64]
    residual: NDArray[np.float64]
    lost: NDArray[np.float64]
    contrast_to_noise: float

    @property
    def bad_volumes_percent(self) -> float:
        """Share of the weighted volumes in which a slice lost its signal."""
        weighted = self.lost[~np.isnan(self.lost).all(axis=1)]
        # NaN compares as False: slices without brain are never bad.
        return 100.0 * float((weighted > LOST_SHARE).any(axis=1).mean()) if len(weighted) else 0.0


def fit_plainly(
    signal: NDArray[np.float32], gradients: Gradients, mask: NDArray[np.bool_], *, slice_axis: int
) -> PlainTensor:
    """Fit a tensor in each voxel of the brain.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
    mask : (X, Y, Z) bool
        Not empty.
    slice_axis : 0, 1 or 2
        Along which the slices were stacked: a slice is what drops out.

    """
    x, y, z = gradients.directions.T
    b = gradients.b_values_s_per_mm2
    design = np.column_stack(
        [np.ones_like(b), *(-b * term for term in (x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z))]
    )
    measured = np.clip(signal[mask].astype(np.float64), 1e-3, None)
    solution = np.log(measured) @ np.linalg.pinv(design).T
    xx, yy, zz, xy, xz, yz = solution[:, 1:].T
    tensors = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1).reshape(-1, 3, 3)
    principal = np.linalg.eigh(tensors)[1][..., -1]
    # A voxel of nearly no signal may ask for an exponential beyond all bounds.
    predicted = np.exp(np.clip(solution @ design.T, None, 30.0))
    scale = float(measured[:, gradients.is_b0].mean())
    away = np.abs(measured - predicted) / scale
    slices = mask.shape[slice_axis]
    slice_of = np.nonzero(mask)[slice_axis]
    count = np.bincount(slice_of, minlength=slices)
    residual, lost = (np.full((len(b), slices), np.nan) for _ in range(2))
    enough = count >= LEAST_SLICE_VOXELS
    for volume in np.flatnonzero(~gradients.is_b0):
        gap, seen, expected = (
            np.bincount(slice_of, weights=values[:, volume], minlength=slices)[enough]
            for values in (away, measured, predicted)
        )
        residual[volume, enough] = gap / count[enough]
        lost[volume, enough] = 1 - seen / expected
    weighted = ~gradients.is_b0
    spread = predicted[:, weighted].std(axis=1)
    noise = (measured - predicted)[:, weighted].std(axis=1)
    contrast = float(np.median(spread / np.maximum(noise, 1e-9)))
    return PlainTensor(principal, residual, lost, contrast)
