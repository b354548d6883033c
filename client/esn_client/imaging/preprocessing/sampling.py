"""Sampling: an image's values between its voxels, at many places.

SciPy's loops serve every order, type and edge, and take ten times as long for it: a scan of 70 volumes is
sampled four hundred times where it is aligned. The tests hold these two to SciPy's.
"""

from math import floor

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import spline_filter

from esn_client.imaging.compilation import compiled
from esn_core.arrays import Floats

PAD_VOXELS = 12
"""By which the edge's values are repeated, as SciPy does: the splines then know of nothing beyond."""


def sample_lines(image: NDArray[np.float32], at: Floats, places: Floats) -> NDArray[np.float32]:
    """Interpolate linearly between the eight voxels around each place.

    Parameters
    ----------
    image : (X, Y, Z) float32
    at : (4, 4) float64
        Takes a place to the image's voxels.
    places : (N, 3) float64

    Returns
    -------
    (N,) float32
        Outside of the image the value at its edge.

    """
    values = np.empty(len(places), dtype=np.float32)
    _linear(np.ascontiguousarray(image), np.ascontiguousarray(at), np.ascontiguousarray(places), values)
    return values


def resample_lines(image: NDArray[np.float32], at: Floats) -> NDArray[np.float32]:
    """Interpolate linearly at every voxel of a grid of the image's shape.

    Parameters
    ----------
    image : (X, Y, Z) float32
    at : (4, 4) float64
        Takes a voxel of the result to the image's voxels.

    Returns
    -------
    (X, Y, Z) float32
        Outside of the image the value at its edge.

    """
    values = np.empty(image.shape, dtype=np.float32)
    _linear_grid(np.ascontiguousarray(image), np.ascontiguousarray(at), values)
    return values


def resample_splines(image: NDArray[np.float32], at: Floats) -> NDArray[np.float32]:
    """Interpolate by cubic B-splines (Unser 1999, IEEE Signal Process Mag 16:22) at every voxel of a grid.

    Parameters
    ----------
    image : (X, Y, Z) float32
    at : (4, 4) float64
        Takes a voxel of the result to the image's voxels.

    Returns
    -------
    (X, Y, Z) float32
        Outside of the image the value at its edge.

    """
    padded = np.pad(image, PAD_VOXELS, mode="edge")
    coefficients = spline_filter(padded, order=3, output=np.float32, mode="nearest")
    values = np.empty(image.shape, dtype=np.float32)
    _cubic_grid(coefficients, np.ascontiguousarray(at), values)
    return values


@compiled
def _between(x: float, y: float, z: float, image: NDArray[np.float32]) -> float:
    """Interpolate linearly at one place."""
    x = min(max(x, 0.0), image.shape[0] - 1.0)
    y = min(max(y, 0.0), image.shape[1] - 1.0)
    z = min(max(z, 0.0), image.shape[2] - 1.0)
    i, j, k = int(x), int(y), int(z)
    right = min(i + 1, image.shape[0] - 1)
    front = min(j + 1, image.shape[1] - 1)
    above = min(k + 1, image.shape[2] - 1)
    dx, dy, dz = x - i, y - j, z - k
    low = (image[i, j, k] * (1 - dx) + image[right, j, k] * dx) * (1 - dy) + (
        image[i, front, k] * (1 - dx) + image[right, front, k] * dx
    ) * dy
    high = (image[i, j, above] * (1 - dx) + image[right, j, above] * dx) * (1 - dy) + (
        image[i, front, above] * (1 - dx) + image[right, front, above] * dx
    ) * dy
    value: float = low * (1 - dz) + high * dz
    return value


@compiled
def _linear(image: NDArray[np.float32], at: Floats, places: Floats, values: NDArray[np.float32]) -> None:
    for n in range(len(places)):
        a, b, c = places[n]
        values[n] = _between(
            at[0, 0] * a + at[0, 1] * b + at[0, 2] * c + at[0, 3],
            at[1, 0] * a + at[1, 1] * b + at[1, 2] * c + at[1, 3],
            at[2, 0] * a + at[2, 1] * b + at[2, 2] * c + at[2, 3],
            image,
        )


@compiled
def _linear_grid(image: NDArray[np.float32], at: Floats, values: NDArray[np.float32]) -> None:
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                values[i, j, k] = _between(
                    at[0, 0] * i + at[0, 1] * j + at[0, 2] * k + at[0, 3],
                    at[1, 0] * i + at[1, 1] * j + at[1, 2] * k + at[1, 3],
                    at[2, 0] * i + at[2, 1] * j + at[2, 2] * k + at[2, 3],
                    image,
                )


@compiled
def _cubic_grid(coefficients: NDArray[np.float32], at: Floats, values: NDArray[np.float32]) -> None:
    """Fill in a grid from the coefficients of its padded image's splines."""
    weights = np.empty((3, 4))
    first = np.empty(3, np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                for axis in range(3):
                    place = at[axis, 0] * i + at[axis, 1] * j + at[axis, 2] * k + at[axis, 3]
                    # Where four coefficients are there on either side, and the image is its edge.
                    most = coefficients.shape[axis] - 3.0
                    place = min(max(place + PAD_VOXELS, 1.0), most)
                    whole = min(int(floor(place)), coefficients.shape[axis] - 4)  # noqa: RUF046
                    t = place - whole
                    first[axis] = whole - 1
                    weights[axis, 0] = (1 - t) ** 3 / 6
                    weights[axis, 1] = (4 - 6 * t * t + 3 * t * t * t) / 6
                    weights[axis, 2] = (1 + 3 * t + 3 * t * t - 3 * t * t * t) / 6
                    weights[axis, 3] = t * t * t / 6
                total = 0.0
                for a in range(4):
                    for b in range(4):
                        line = coefficients[first[0] + a, first[1] + b]
                        along = 0.0
                        for c in range(4):
                            along += weights[2, c] * line[first[2] + c]
                        total += weights[0, a] * weights[1, b] * along
                values[i, j, k] = total
