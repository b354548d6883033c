"""Single-fibre responses: the signal of a voxel in which all fibres run one way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from esn_client.imaging.fibres.tensor import TensorMaps
from esn_core.errors import DataError

LEAST_RATIO, LARGEST_RATIO = 1.5, 20.0
"""A rounder response cannot be deconvolved; a longer one comes of noise that made the other eigenvalues 0."""
SLOWEST_MM2_PER_S, FASTEST_MM2_PER_S = 0.5e-3, 3.2e-3
"""Along fibres. Free water at body temperature has 3.0e-3 (Mills 1973, J Phys Chem 77:685)."""
B0_FACTOR = 4.0
"""White matter's b0 lies within this factor of the brain's median."""


@dataclass(frozen=True)
class Response:
    """An axially symmetric tensor.

    Attributes
    ----------
    eigenvalues_mm2_per_s : (3,) float64
        Along, across, across.
    b0 : float
        Signal without diffusion weighting.

    """

    eigenvalues_mm2_per_s: NDArray[np.float64]
    b0: float


def estimate_response(maps: TensorMaps, *, voxels: int) -> Response:
    """Take the median tensor of the most anisotropic voxels, away from the brain's surface.

    Voxels that no tissue can look like are left out first: those with a b0 of nothing, with diffusion faster
    than free water's, or with none across the fibres, all of them the work of noise, pulsation or a wrong
    mask. The median leaves the ends of what remains alone.

    Parameters
    ----------
    maps : TensorMaps
    voxels : int
        How many.

    Returns
    -------
    Response

    Raises
    ------
    DataError
        The brain has fewer such voxels, or the response is too round, too elongated, too slow or too fast, or
        its b0 is not that of tissue.

    """
    best = find_single_fibres(maps, voxels=voxels)
    values, b0 = maps.eigenvalues_mm2_per_s[best], maps.b0[best]
    along, across = float(np.median(values[:, 0])), float(np.median(values[:, 1:].mean(axis=1)))
    found = Response(np.array([along, across, across]), float(np.median(b0)))
    _check(found, brain_b0=float(np.median(maps.b0[_tissue(maps)])))
    return found


def find_single_fibres(maps: TensorMaps, *, voxels: int) -> NDArray[np.bool_]:
    """Find the most anisotropic voxels that look like tissue, off the brain's surface.

    Parameters
    ----------
    maps : TensorMaps
    voxels : int
        How many.

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    DataError
        The brain has fewer.

    """
    tissue = _tissue(maps)
    if tissue.sum() < voxels:
        raise DataError(
            f"a response of {voxels} voxels is asked for; the brain has {tissue.sum()} off its surface that "
            "look like tissue"
        )
    places = np.argwhere(tissue)[np.argsort(-maps.fa[tissue], kind="stable")[:voxels]]
    best = np.zeros(maps.mask.shape, dtype=np.bool_)
    best[tuple(places.T)] = True
    return best


def _tissue(maps: TensorMaps) -> NDArray[np.bool_]:
    values = maps.eigenvalues_mm2_per_s
    deep = binary_erosion(maps.mask)
    return deep & (maps.b0 > 0) & (values[..., 0] <= FASTEST_MM2_PER_S) & (values[..., 2] > 0)


def _check(response: Response, *, brain_b0: float) -> None:
    """Refuse what no white matter shows."""
    along, across, _ = response.eigenvalues_mm2_per_s
    ratio = along / across
    if ratio < LEAST_RATIO:
        raise DataError(
            f"the single-fibre response is {ratio:.2f} times as long as wide; "
            f"{LEAST_RATIO:g} or more is needed"
        )
    if ratio > LARGEST_RATIO:
        raise DataError(
            f"the single-fibre response is {ratio:.0f} times as long as wide; {LARGEST_RATIO:g} or less is "
            "possible: is the signal noise, or was a background subtracted?"
        )
    if along < SLOWEST_MM2_PER_S:
        raise DataError(
            f"diffusion along the fibres is {along:.2g} mm2/s; {SLOWEST_MM2_PER_S:g} or more is expected: "
            "are the b-values in s/mm2?"
        )
    if not brain_b0 / B0_FACTOR <= response.b0 <= brain_b0 * B0_FACTOR:
        raise DataError(
            f"the b0 of the single-fibre voxels is {response.b0:.4g} and the brain's median is "
            f"{brain_b0:.4g}; they must lie within a factor of {B0_FACTOR:g}"
        )
