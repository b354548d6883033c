"""Fibre orientation distributions: constrained spherical deconvolution of the signal."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.fibres.deconvolution import Deconvolution
from esn_client.imaging.fibres.response import Response
from esn_client.imaging.fibres.tensor import dipy_table
from esn_client.imaging.preprocessing.gradient_table import Gradients, coefficients_of_order
from esn_core.errors import DataError

BATCH_VOXELS = 4096
"""Bounds the memory of the batch's equations: 35 MB at order 8."""


@dataclass(frozen=True)
class Fodf:
    """Fibre orientation distributions of some voxels.

    Attributes
    ----------
    where : (X, Y, Z) bool
        The n voxels that have one.
    coefficients : (n, C) float32
        In DIPY's legacy ``descoteaux07`` basis, along the voxel axes, in the order of ``where``.

    """

    where: NDArray[np.bool_]
    coefficients: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.coefficients) != self.where.sum():
            raise DataError(
                f"{int(self.where.sum())} voxels must have an fODF each; there are {len(self.coefficients)}"
            )

    @property
    def row_of(self) -> NDArray[np.int32]:
        """Row of each voxel in `coefficients`, or -1; (X, Y, Z)."""
        rows = np.full(self.where.shape, -1, dtype=np.int32)
        rows[self.where] = np.arange(len(self.coefficients), dtype=np.int32)
        return rows

    def amplitudes(self, directions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Evaluate the fODFs along some directions, negative values as 0.

        Parameters
        ----------
        directions : (D, 3) float64
            Unit vectors.

        Returns
        -------
        (n, D) float32

        """
        from dipy.core.sphere import Sphere
        from dipy.reconst.shm import real_sh_descoteaux

        # C = (order + 1) (order + 2) / 2
        order = int(np.sqrt(8 * self.coefficients.shape[1] + 1) - 3) // 2
        sphere = Sphere(xyz=directions)
        with legacy_basis():
            basis = real_sh_descoteaux(order, sphere.theta, sphere.phi, legacy=True)[0]
        amplitudes: NDArray[np.float32] = self.coefficients @ basis.T.astype(np.float32)
        return np.maximum(amplitudes, 0, out=amplitudes)


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
) -> Fodf:
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
    Fodf

    """
    from dipy.data import get_sphere
    from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel

    coefficients = np.empty((int(where.sum()), coefficients_of_order(sh_order_max)), dtype=np.float32)
    voxels = np.argwhere(where)
    weighted = ~gradients.is_b0
    with legacy_basis():
        model = ConstrainedSphericalDeconvModel(
            dipy_table(gradients),
            (response.eigenvalues_mm2_per_s, response.b0),
            reg_sphere=get_sphere(name="repulsion100"),
            sh_order_max=sh_order_max,
        )
    # DIPY's matrices, with one of each two opposite directions counted twice.
    half = (model.sphere.vertices @ model.sphere.vertices.T).argmin(axis=1) > np.arange(len(model.B_reg))
    deconvolution = Deconvolution(model._X, np.sqrt(2) * model.B_reg[half], model.tau)
    for first in range(0, len(voxels), BATCH_VOXELS):
        batch = signal[tuple(voxels[first : first + BATCH_VOXELS].T)][:, weighted].astype(np.float64)
        coefficients[first : first + BATCH_VOXELS] = deconvolution.solve(batch)
    return Fodf(where, coefficients)
