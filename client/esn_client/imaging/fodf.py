"""Fibre orientation distributions: constrained spherical deconvolution of the signal."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from dipy.core.sphere import Sphere
from dipy.data import get_sphere
from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel
from dipy.reconst.shm import sh_to_sf
from numpy.typing import NDArray

from esn_client.imaging.gradients import Gradients, coefficients_of_order
from esn_client.imaging.response import Response
from esn_client.imaging.tensor import dipy_table

BASIS = "descoteaux07"
"""The spherical harmonics of DIPY's deconvolution and tracker, in their legacy form."""


@contextmanager
def legacy_basis() -> Iterator[None]:
    """Quieten DIPY's announcement that the basis that it uses by itself will change one day."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The legacy descoteaux07 SH basis")
        yield


def fit_fodf(
    signal: NDArray[np.float32],
    gradients: Gradients,
    *,
    response: Response,
    where: NDArray[np.bool_],
    sh_order_max: int,
) -> NDArray[np.float64]:
    """Deconvolve the signal (Tournier et al. 2007, Neuroimage 35:1459), only where it is needed.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
    response : Response
    where : (X, Y, Z) bool
    sh_order_max : int

    Returns
    -------
    (X, Y, Z, C) float64
        Coefficients in DIPY's legacy ``descoteaux07`` basis, along the voxel axes; 0 elsewhere.

    """
    coefficients = np.zeros((*where.shape, coefficients_of_order(sh_order_max)))
    if not where.any():
        return coefficients
    with legacy_basis():
        # A few voxels oscillate between two sets of negative directions; their last fODF is as good as any.
        warnings.filterwarnings("ignore", message="maximum number of iterations exceeded")
        model = ConstrainedSphericalDeconvModel(
            dipy_table(gradients),
            (response.eigenvalues_mm2_per_s, response.b0),
            reg_sphere=get_sphere(name="repulsion100"),
            sh_order_max=sh_order_max,
        )
        coefficients[where] = model.fit(signal[where].astype(np.float64)).shm_coeff
    return coefficients


def amplitudes(coefficients: NDArray[np.float64], sphere: Sphere) -> NDArray[np.float64]:
    """Evaluate fODFs on a sphere.

    Parameters
    ----------
    coefficients : (n, C) float64
        As `fit_fodf` returns them.
    sphere : Sphere
        Of D directions.

    Returns
    -------
    (n, D) float64

    """
    # C = (order + 1) (order + 2) / 2
    order = int(np.sqrt(8 * coefficients.shape[1] + 1) - 3) // 2
    with legacy_basis():
        return np.asarray(sh_to_sf(coefficients, sphere, sh_order_max=order, basis_type=BASIS, legacy=True))
