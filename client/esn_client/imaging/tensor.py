"""Diffusion tensors: where the brain is, and how anisotropic each voxel."""

from dataclasses import dataclass

import numpy as np
from dipy.core.gradients import GradientTable, gradient_table
from dipy.reconst.dti import TensorModel, fractional_anisotropy
from dipy.segment.threshold import otsu
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label, median_filter

from esn_client.imaging.gradients import B0_MAX_S_PER_MM2, Gradients
from esn_core.errors import DataError

LEAST_BRAIN_VOXELS = 500


@dataclass(frozen=True)
class TensorMaps:
    """The tensor fit of one scan.

    Attributes
    ----------
    mask : (X, Y, Z) bool
        The brain.
    eigenvalues_mm2_per_s : (X, Y, Z, 3) float64
        Descending; 0 outside the brain.
    fa : (X, Y, Z) float64
        Fractional anisotropy, 0 outside the brain.
    b0 : (X, Y, Z) float64
        Mean signal without diffusion weighting.

    """

    mask: NDArray[np.bool_]
    eigenvalues_mm2_per_s: NDArray[np.float64]
    fa: NDArray[np.float64]
    b0: NDArray[np.float64]


def dipy_table(gradients: Gradients) -> GradientTable:
    """Hand a gradient table to DIPY."""
    return gradient_table(
        gradients.b_values_s_per_mm2, bvecs=gradients.directions, b0_threshold=B0_MAX_S_PER_MM2
    )


def find_brain(b0: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Separate brain from air: Otsu's threshold on the smoothed b0, largest piece, holes filled.

    Parameters
    ----------
    b0 : (X, Y, Z) float64

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    DataError
        Fewer than 500 voxels are bright.

    """
    smooth = median_filter(b0, size=3)
    bright = smooth > otsu(smooth) if smooth.min() < smooth.max() else np.zeros(b0.shape, dtype=bool)
    pieces, _ = label(bright)
    sizes = np.bincount(pieces.ravel())[1:]
    if not sizes.size or sizes.max() < LEAST_BRAIN_VOXELS:
        raise DataError(
            f"the brain has {sizes.max(initial=0)} voxels in the b0; {LEAST_BRAIN_VOXELS} or more are needed"
        )
    return np.asarray(binary_fill_holes(pieces == 1 + sizes.argmax()), dtype=np.bool_)


def fit_tensor(signal: NDArray[np.float32], gradients: Gradients) -> TensorMaps:
    """Fit a tensor in each brain voxel by weighted least squares.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients

    Returns
    -------
    TensorMaps

    Raises
    ------
    DataError
        No brain is found.

    """
    b0 = signal[..., gradients.is_b0].mean(axis=3, dtype=np.float64)
    mask = find_brain(b0)
    fit = TensorModel(dipy_table(gradients), fit_method="WLS").fit(signal[mask].astype(np.float64))
    eigenvalues = np.zeros((*mask.shape, 3))
    eigenvalues[mask] = np.clip(fit.evals, 0, None)
    fa = np.zeros(mask.shape)
    fa[mask] = np.clip(np.nan_to_num(fractional_anisotropy(eigenvalues[mask])), 0, 1)
    return TensorMaps(mask, eigenvalues, fa, b0)
