"""Diffusion tensors: where the brain is, and how anisotropic each voxel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mask import find_brain
from esn_core.arrays import Floats

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

BATCH_VOXELS = 4096
"""Bounds the memory of the weights, and keeps them in the processor's cache."""
LEAST_SIGNAL = 1e-4
"""What is darker counts as this bright where a logarithm is taken; DIPY's choice too."""
LEAST_DIFFUSIVITY = 1e-6
"""Least eigenvalue times the largest b, again DIPY's."""
UNEVEN = 1e8
"""Weights of one voxel whose largest is so many times the smallest leave its equations too few digits."""


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
    from dipy.reconst.dti import TensorModel, decompose_tensor, fractional_anisotropy, from_lower_triangular

    b0 = signal[..., gradients.is_b0].mean(axis=3, dtype=np.float64)
    weighted = signal[..., ~gradients.is_b0].mean(axis=3, dtype=np.float64)
    mask = find_brain(b0, weighted)
    design = TensorModel(dipy_table(gradients)).design_matrix
    least = LEAST_DIFFUSIVITY / -design.min()
    voxels = signal[mask]
    found = np.empty((len(voxels), 3))
    for first in range(0, len(voxels), BATCH_VOXELS):
        batch = np.maximum(voxels[first : first + BATCH_VOXELS].astype(np.float64), LEAST_SIGNAL)
        tensors = from_lower_triangular(solve_weighted(design, np.log(batch)))
        found[first : first + BATCH_VOXELS] = decompose_tensor(tensors, min_diffusivity=least)[0]
    eigenvalues = np.zeros((*mask.shape, 3))
    eigenvalues[mask] = found
    fa = np.zeros(mask.shape)
    fa[mask] = np.clip(np.nan_to_num(fractional_anisotropy(eigenvalues[mask])), 0, 1)
    return TensorMaps(mask, eigenvalues, fa, b0)


def solve_weighted(design: Floats, logs: Floats) -> Floats:
    """Fit by weighted least squares, the weights being the squared signal of an unweighted fit.

    Chung, Lu & Henry 2006 (NeuroImage 33:531), by normal equations: a pseudo-inverse of each voxel's weighted
    design takes ten times as long. It is left to voxels whose weights differ beyond `UNEVEN`.

    Parameters
    ----------
    design : (V, P) float64
    logs : (n, V) float64
        Logarithms of the signal.

    Returns
    -------
    (n, P) float64

    """
    size = np.abs(design).max(axis=0)
    even = design / size
    predicted = logs @ np.linalg.pinv(even).T @ even.T
    weights = np.exp(2 * (predicted - predicted.max(axis=1, keepdims=True)))
    plain = weights.min(axis=1) * UNEVEN > 1
    count = even.shape[1]
    products = (even[:, :, None] * even[:, None, :]).reshape(len(even), -1)
    solution = np.empty((len(logs), count))
    normal = (weights[plain] @ products).reshape(-1, count, count)
    right = (weights[plain] * logs[plain]) @ even
    solution[plain] = np.linalg.solve(normal, right[..., None])[..., 0]
    root = np.sqrt(weights[~plain])
    solution[~plain] = np.einsum("nij,nj->ni", np.linalg.pinv(even * root[..., None]), root * logs[~plain])
    return np.asarray(solution / size)
