"""Diffusion tensors: where the brain is, and how anisotropic each voxel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mask import find_brain

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable


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


def dipy_table(gradients: Gradients) -> "GradientTable":
    """Hand a gradient table to DIPY."""
    from dipy.core.gradients import gradient_table

    table: GradientTable = gradient_table(
        gradients.b_values_s_per_mm2, bvecs=gradients.directions, b0_threshold=gradients.b0_max_s_per_mm2
    )
    return table


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
    from dipy.reconst.dti import TensorModel, fractional_anisotropy

    b0 = signal[..., gradients.is_b0].mean(axis=3, dtype=np.float64)
    weighted = signal[..., ~gradients.is_b0].mean(axis=3, dtype=np.float64)
    mask = find_brain(b0, weighted)
    fit = TensorModel(dipy_table(gradients), fit_method="WLS").fit(signal[mask].astype(np.float64))
    eigenvalues = np.zeros((*mask.shape, 3))
    eigenvalues[mask] = np.clip(fit.evals, 0, None)
    fa = np.zeros(mask.shape)
    fa[mask] = np.clip(np.nan_to_num(fractional_anisotropy(eigenvalues[mask])), 0, 1)
    return TensorMaps(mask, eigenvalues, fa, b0)
