"""Single-fibre responses: the signal of a voxel in which all fibres run one way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from esn_client.imaging.tensor import TensorMaps
from esn_core.errors import DataError

LEAST_RATIO = 1.5
"""A response less elongated than this cannot be deconvolved."""


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
    """Average the tensors of the most anisotropic voxels, away from the brain's surface.

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
        The brain has fewer voxels, or the response is too round.

    """
    deep = binary_erosion(maps.mask)
    if deep.sum() < voxels:
        raise DataError(
            f"a response of {voxels} voxels is asked for; the brain has {deep.sum()} off its surface"
        )
    values, b0 = maps.eigenvalues_mm2_per_s[deep], maps.b0[deep]
    best = np.argsort(-maps.fa[deep], kind="stable")[:voxels]
    along, across = values[best, 0].mean(), values[best, 1:].mean()
    if along < LEAST_RATIO * across:
        raise DataError(
            f"the single-fibre response is {along / max(across, 1e-12):.2f} times as long as wide; "
            f"{LEAST_RATIO:g} or more is needed"
        )
    return Response(np.array([along, across, across]), float(b0[best].mean()))
