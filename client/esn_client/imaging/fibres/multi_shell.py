"""Fibre orientations of several shells: beside fibres, grey matter and fluid are told apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from esn_client.imaging.fibres.deconvolution import Deconvolution
from esn_client.imaging.fibres.fodf import BATCH_VOXELS, Fodf, legacy_basis
from esn_client.imaging.fibres.response import FASTEST_MM2_PER_S, find_single_fibres
from esn_client.imaging.fibres.tensor import TensorMaps, dipy_table
from esn_client.imaging.preprocessing.gradient_table import Gradients, coefficients_of_order, shells_of
from esn_core.arrays import Floats
from esn_core.errors import DataError

FLUID_MM2_PER_S = 3.0e-3
"""Free water at body temperature (Mills 1973, J Phys Chem 77:685): ventricles of children may have too few
voxels to measure it in, and its amount is what is fitted."""
GREY_FA = 0.15
GREY_MM2_PER_S = (0.6e-3, 1.2e-3)
"""Mean diffusivity of grey matter, in which no direction stands out."""
LEAST_GREY_VOXELS = 30
SMALL_SHARE = 0.1
"""Of the mean fODF; what is smaller is pulled to zero, as in DIPY."""
TISSUE_WEIGHT = 10.0
"""Of an amount of grey matter or fluid below 0, over that of an fODF below 0 in all directions."""
REGULARISED_DIRECTIONS = 362.0
"""Of Tournier's constraint, to whose number DIPY scales the weight of any other."""


@dataclass(frozen=True)
class ShellResponses:
    """What single fibres, grey matter and fluid show in each shell.

    Attributes
    ----------
    b_values_s_per_mm2 : (S,) float64
        Of the shells, ascending, without the b0s.
    fibre : (S, 4) float64
        Diffusivity along, across and across in mm2/s, and the signal without weighting, by shell: at high
        b-values fibres fade less than one tensor says.
    grey, fluid : (S, 4) float64
        The same; isotropic.

    """

    b_values_s_per_mm2: Floats
    fibre: Floats
    grey: Floats
    fluid: Floats


def estimate_shell_responses(
    signal: NDArray[np.float32], gradients: Gradients, maps: TensorMaps, *, voxels: int
) -> ShellResponses:
    """Measure fibres where they run one way, and grey matter where nothing has a direction, in each shell.

    Fibres: the median tensor of the same voxels as of one shell's response, fitted to each shell by itself
    (Jeurissen et al. 2014, NeuroImage 103:411, whose responses are spherical harmonics of each shell).

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
        Of b0s and two shells or more.
    maps : TensorMaps
        Of one shell.
    voxels : int
        In how many the fibres are measured.

    Returns
    -------
    ShellResponses

    Raises
    ------
    DataError
        There is one shell, or too little of either tissue.

    """
    from dipy.reconst.dti import TensorModel

    medians, number = shells_of(gradients)
    if len(medians) < 2:
        raise DataError(f"fODFs of all shells need two shells or more; found b near {medians[0]:.0f} alone")
    single = find_single_fibres(maps, voxels=voxels)
    mean = maps.eigenvalues_mm2_per_s.mean(axis=3)
    deep = binary_erosion(maps.mask)
    low, high = GREY_MM2_PER_S
    grey = deep & (maps.fa < GREY_FA) & (mean >= low) & (mean <= high) & (maps.b0 > 0)
    if grey.sum() < LEAST_GREY_VOXELS:
        raise DataError(
            f"a response of several shells needs {LEAST_GREY_VOXELS} voxels of grey matter or more off the "
            f"brain's surface; found {grey.sum()}"
        )
    b0 = float(np.median(maps.b0[grey]))
    fibre, tissue = np.empty((len(medians), 4)), np.empty((len(medians), 4))
    for shell, b_value in enumerate(medians):
        used = gradients.is_b0 | (number == shell)
        table = Gradients(gradients.b_values_s_per_mm2[used], gradients.directions[used])
        fit = TensorModel(dipy_table(table), fit_method="WLS").fit(signal[single][:, used].astype(np.float64))
        along, across = np.median(fit.evals[:, 0]), np.median(fit.evals[:, 1:].mean(axis=1))
        fibre[shell] = along, across, across, np.median(maps.b0[single])
        faded = np.median(signal[grey][:, number == shell].mean(axis=1, dtype=np.float64)) / b0
        tissue[shell] = [-np.log(min(faded, 1.0)) / b_value] * 3 + [b0]
    fluid = np.tile([FLUID_MM2_PER_S] * 3 + [b0], (len(medians), 1))
    _check(fibre, medians)
    return ShellResponses(np.array(medians), fibre, tissue, fluid)


def fit_shells(
    signal: NDArray[np.float32],
    gradients: Gradients,
    *,
    responses: ShellResponses,
    where: NDArray[np.bool_],
    sh_order_max: int,
) -> Fodf:
    """Deconvolve all shells at once into fibres, grey matter and fluid, and keep the fibres.

    The model of Jeurissen et al. 2014, with DIPY's matrices; what is negative is pulled to zero as for one
    shell (`Deconvolution`), where DIPY solves a quadratic program in each voxel.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
        Of b0s and all shells.
    responses : ShellResponses
    where : (X, Y, Z) bool
    sh_order_max : int

    Returns
    -------
    Fodf

    """
    deconvolution = _deconvolution(gradients, responses, sh_order_max)
    size = coefficients_of_order(sh_order_max)
    coefficients = np.empty((int(where.sum()), size), dtype=np.float32)
    voxels = np.argwhere(where)
    for first in range(0, len(voxels), BATCH_VOXELS):
        batch = signal[tuple(voxels[first : first + BATCH_VOXELS].T)].astype(np.float64)
        coefficients[first : first + BATCH_VOXELS] = deconvolution.solve(batch)[:, :size]
    return Fodf(where, coefficients)


def _deconvolution(gradients: Gradients, responses: ShellResponses, sh_order_max: int) -> Deconvolution:
    """Build the equations: coefficients of the fODF first, then the amounts of fluid and of grey matter."""
    from dipy.data import get_sphere
    from dipy.reconst.mcsd import (
        _basic_delta,
        _inflate_response,
        multi_shell_fiber_response,
        multi_tissue_basis,
    )
    from dipy.reconst.shm import real_sh_descoteaux

    table = dipy_table(gradients)
    with legacy_basis():
        response = multi_shell_fiber_response(
            sh_order_max,
            np.r_[0.0, responses.b_values_s_per_mm2],
            responses.fibre,
            responses.grey,
            responses.fluid,
        )
        basis, _, orders = multi_tissue_basis(table, sh_order_max, 2)
        delta = _basic_delta(2, response.m_values, response.l_values, 0.0, 0.0)
        sphere = get_sphere(name="repulsion100")
        along = real_sh_descoteaux(sh_order_max, sphere.theta, sphere.phi)[0]
    forward = np.roll(basis * _inflate_response(response, table, orders, delta), -2, axis=1)
    half = (sphere.vertices @ sphere.vertices.T).argmin(axis=1) > np.arange(len(along))
    # DIPY's weight of the constraint for one shell, with the mean kernel of all volumes.
    size = along.shape[1]
    kernel = float(np.sqrt(np.mean((forward[:, 0] / basis[:, 2]) ** 2)))
    weight = size * kernel / np.sqrt(len(along) * REGULARISED_DIRECTIONS)
    constraints = np.zeros((int(half.sum()) + 2, size + 2))
    constraints[:-2, :size] = np.sqrt(2) * weight * along[half]
    # An amount of tissue is no distribution that might ring: below 0 it is forbidden, or nearly so.
    constraints[-2:, size:] = np.eye(2) * TISSUE_WEIGHT * np.linalg.norm(constraints[:, 0])
    return Deconvolution(forward, constraints, SMALL_SHARE)


def _check(fibre: Floats, medians: tuple[float, ...]) -> None:
    """Refuse fibres that do not fade along their way more than across it, or faster than water does."""
    for (along, across, _, _), b_value in zip(fibre, medians, strict=True):
        if not 0 < across < along <= FASTEST_MM2_PER_S:
            raise DataError(
                f"the single-fibre response near b = {b_value:.0f} has diffusivities of {along:.2g} mm2/s "
                f"along and {across:.2g} across; more along than across, and at most "
                f"{FASTEST_MM2_PER_S:g}, is needed"
            )
