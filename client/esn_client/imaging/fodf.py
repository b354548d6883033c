"""Fibre orientation distributions: constrained spherical deconvolution of the signal."""

import warnings

import numpy as np
from dipy.data import get_sphere
from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel
from numpy.typing import NDArray

from esn_client.imaging.gradients import Gradients, coefficients_of_order
from esn_client.imaging.response import Response
from esn_client.imaging.tensor import dipy_table


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
        Coefficients in DIPY's legacy ``descoteaux07`` basis; 0 elsewhere.

    """
    model = ConstrainedSphericalDeconvModel(
        dipy_table(gradients),
        (response.eigenvalues_mm2_per_s, response.b0),
        reg_sphere=get_sphere(name="repulsion100"),
        sh_order_max=sh_order_max,
    )
    coefficients = np.zeros((*where.shape, coefficients_of_order(sh_order_max)))
    with warnings.catch_warnings():
        # A few voxels oscillate between two sets of negative directions; the last fODF is as good as any.
        warnings.filterwarnings("ignore", message="maximum number of iterations exceeded")
        coefficients[where] = model.fit(signal[where].astype(np.float64)).shm_coeff
    return coefficients
