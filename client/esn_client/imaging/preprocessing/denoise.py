"""Denoising: a scan without the part that no other volume, or no principal component, confirms."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import B0_MAX_S_PER_MM2, Gradients
from esn_client.imaging.preprocessing.mppca import project_windows
from esn_core.errors import DataError

DenoiseMethod = Literal["patch2self", "mppca"]

LEAST_SHARE_OF_SPECTRUM = 1e-10
"""Eigenvalues of the volumes' covariance below this share of the largest count as this share."""


@dataclass(frozen=True)
class Denoised:
    """A scan with less noise.

    Attributes
    ----------
    signal : (X, Y, Z, V) float32
        Not negative; as it was outside the mask.
    noise_sd : (X, Y, Z) float32
        Sd of the noise in units of the signal, 0 outside the mask. With ``mppca`` an estimate of the noise;
        with ``patch2self`` the rms of what was taken away from the weighted volumes.

    """

    signal: NDArray[np.float32]
    noise_sd: NDArray[np.float32]


def denoise(
    signal: NDArray[np.float32],
    gradients: Gradients,
    mask: NDArray[np.bool_],
    *,
    method: DenoiseMethod = "patch2self",
) -> Denoised:
    """Take the noise out of a scan.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
        Of the V volumes.
    mask : (X, Y, Z) bool
        Where to denoise; a little more than the brain does no harm.
    method : 'patch2self' or 'mppca'

    Returns
    -------
    Denoised

    Raises
    ------
    DataError
        Shapes differ, the mask is empty, or there are too few volumes or voxels for the method.

    """
    if signal.ndim != 4 or signal.shape[:3] != mask.shape or signal.shape[3] != len(gradients.is_b0):
        raise DataError(
            f"signal {signal.shape}, mask {mask.shape} and {len(gradients.is_b0)} gradients do not fit"
        )
    if not mask.any():
        raise DataError("the mask is empty; there is nothing to denoise")
    if method == "mppca":
        return Denoised(*project_windows(signal, mask))
    return _patch2self(signal, gradients, mask)


def remove_gibbs_ringing(signal: NDArray[np.float32], *, slice_axis: int) -> NDArray[np.float32]:
    """Take the ringing beside sharp edges out of each slice (Kellner et al. 2016, MRM 76:1574; DIPY).

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
        As acquired: not interpolated, not from partial Fourier sampling.
    slice_axis : 0, 1 or 2
        Along which the slices were stacked.

    Returns
    -------
    (X, Y, Z, V) float32
        Not negative.

    """
    from dipy.denoise.gibbs import gibbs_removal

    clean = gibbs_removal(signal.astype(np.float64), slice_axis=slice_axis, inplace=True)
    return np.asarray(np.maximum(clean, 0), dtype=np.float32)


def divide_bias(
    signal: NDArray[np.float32], gradients: Gradients, mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Divide a smooth field of sensitivity out of all volumes, in the brain.

    The logarithm of the mean b0 is fitted by Legendre polynomials up to order 3, coarse to fine, edges and
    outliers weighted down (DIPY, `dipy.denoise.bias_correction`); its mean over the brain stays as it was.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
    mask : (X, Y, Z) bool
        Not empty.

    Returns
    -------
    (X, Y, Z, V) float32
        As it was outside the mask.

    """
    from dipy.core.gradients import gradient_table
    from dipy.denoise.bias_correction import polynomial_bias_field_dwi

    table = gradient_table(
        gradients.b_values_s_per_mm2, bvecs=gradients.directions, b0_threshold=B0_MAX_S_PER_MM2
    )
    _, field = polynomial_bias_field_dwi(signal, table, mask=mask)
    field = field[mask] / np.exp(np.log(field[mask]).mean())
    even = signal.copy()
    even[mask] = signal[mask] / field[:, None]
    return even


def _patch2self(signal: NDArray[np.float32], gradients: Gradients, mask: NDArray[np.bool_]) -> Denoised:
    """Predict each volume from the others of its kind, by linear regression over the voxels.

    Fadnavis et al. 2020 (NeurIPS, Patch2Self), patches of one voxel and ordinary least squares, as is the
    default of DIPY. All the V regressions of one volume on the others follow from one V x V matrix: with the
    precision P, the inverse of the covariance, the residual of volume j is X P[:, j] / P[j, j] for centred X
    (Lauritzen 1996, Graphical Models, section 5.1). DIPY sketches the voxels at random and fits V times.
    """
    weighted = ~gradients.is_b0
    if weighted.sum() < 2:
        raise DataError(f"patch2self predicts volumes from each other; found {weighted.sum()} weighted ones")
    inside = signal[mask]
    if len(inside) <= 2 * weighted.sum():
        raise DataError(
            f"patch2self fits {weighted.sum()} volumes to {len(inside)} voxels; "
            f"more than {2 * weighted.sum()} voxels are needed"
        )
    clean = inside.copy()
    for group in (weighted, ~weighted):
        if group.sum() > 1:
            clean[:, group] -= _residuals(inside[:, group])
    squares = np.square(inside[:, weighted] - clean[:, weighted], dtype=np.float32)
    result, noise = signal.copy(), np.zeros(mask.shape, dtype=np.float32)
    result[mask] = np.maximum(clean, 0)
    noise[mask] = np.sqrt(squares.mean(axis=1))
    return Denoised(result, noise)


def _residuals(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give what the regression of each column on all the others leaves of it."""
    mean = volumes.mean(axis=0, dtype=np.float64)
    centred = volumes - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    floor = LEAST_SHARE_OF_SPECTRUM * values.max()
    if floor == 0:
        return np.zeros_like(volumes)
    precision = (vectors / np.maximum(values, floor)) @ vectors.T
    return np.asarray(centred @ (precision / np.diag(precision)), dtype=np.float32)
