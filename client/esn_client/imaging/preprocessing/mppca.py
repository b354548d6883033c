"""MP-PCA: which principal components of a scan's windows are noise, by random matrix theory."""

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError

LEAST_WINDOW = 5
WINDOW_STRIDE = 2
"""Windows start at every second voxel: each voxel still lies in fifteen windows of 5 x 5 x 5."""
WINDOWS_AT_A_TIME = 512


def window_edge(volumes: int) -> int:
    """Give the edge, in voxels, of the least cube with an odd edge that holds as many voxels as volumes."""
    edge = LEAST_WINDOW
    while edge**3 < volumes:
        edge += 2
    return edge


def project_windows(
    signal: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Project the voxels of every window onto the principal components that are more than noise.

    Veraart et al. 2016 (NeuroImage 142:394) with the threshold of Cordero-Grande et al. 2019 (NeuroImage
    200:391), as in MRtrix3's dwidenoise. Unlike there, windows start at every second voxel and a voxel takes
    the mean of its windows, weighted by their number of brain voxels; voxels outside the mask do not enter.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    mask : (X, Y, Z) bool

    Returns
    -------
    signal : (X, Y, Z, V) float32
        Not negative; as it was outside the mask.
    noise_sd : (X, Y, Z) float32
        0 outside the mask.

    Raises
    ------
    DataError
        The image is smaller than a window.

    """
    volumes = signal.shape[3]
    edge = window_edge(volumes)
    if min(mask.shape) < edge:
        raise DataError(
            f"mppca looks through windows of {edge} voxels a side for {volumes} volumes; "
            f"the image has {mask.shape}"
        )
    flat = np.where(mask[..., None], signal, np.float32(0)).reshape(-1, volumes)
    starts, offsets = _windows(mask, edge)
    inside = mask.ravel()
    total = np.zeros_like(flat)
    weight = np.zeros(len(flat), dtype=np.float32)
    variance = np.zeros(len(flat), dtype=np.float32)
    for first in range(0, len(starts), WINDOWS_AT_A_TIME):
        voxels = starts[first : first + WINDOWS_AT_A_TIME, None] + offsets
        count = inside[voxels].sum(axis=1)
        values = flat[voxels]
        exact = values.astype(np.float64)
        eigenvalues, vectors = np.linalg.eigh(exact.transpose(0, 2, 1) @ exact)
        keep, sigma2 = separate_noise(eigenvalues, count)
        vectors = vectors * keep[:, None, :]
        # Restoring from scores is cheaper than from the V x V projector when few components are kept.
        most = int(keep.sum(axis=1).max())
        kept = vectors[:, :, volumes - most :].astype(np.float32)
        clean = (values @ kept) @ kept.transpose(0, 2, 1)
        share = count.astype(np.float32)
        for k in range(voxels.shape[1]):  # windows start at distinct voxels: no voxel is met twice
            where = voxels[:, k]
            total[where] += share[:, None] * clean[:, k]
            weight[where] += share
            variance[where] += share * sigma2.astype(np.float32)
    result, noise = signal.copy(), np.zeros(mask.shape, dtype=np.float32)
    result[mask] = np.maximum(total[inside] / weight[inside, None], 0)
    noise[mask] = np.sqrt(variance[inside] / weight[inside])
    return result, noise


def separate_noise(
    eigenvalues: NDArray[np.float64], voxels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Tell the components of noise from those of signal.

    The noise's eigenvalues follow Marchenko and Pastur's law, whose width and mean both measure the variance:
    the largest set of small ones whose width does not exceed what their mean predicts is noise.

    Parameters
    ----------
    eigenvalues : (W, V) float64
        Ascending, of the V x V matrix of products of each window.
    voxels : (W,) int64
        How many voxels that are not empty each window has; at least 1.

    Returns
    -------
    signal : (W, V) bool
        The components to keep.
    variance : (W,) float64
        Of the noise.

    """
    volumes = eigenvalues.shape[1]
    rank = np.minimum(voxels, volumes)[:, None]
    larger = np.maximum(voxels, volumes)[:, None]
    scaled = np.maximum(eigenvalues, 0) / larger
    # Number of noise components if the one in each column is the largest of them; 0 or less: no component.
    number = np.arange(1, volumes + 1) - (volumes - rank)
    there = number >= 1
    scaled = np.where(there, scaled, 0)
    least = np.take_along_axis(scaled, volumes - rank, axis=1)
    by_mean = np.cumsum(scaled, axis=1) / np.maximum(number, 1)
    gamma = np.maximum(number, 1) / (larger - (rank - number))
    by_width = (scaled - least) / (4 * np.sqrt(gamma))
    noise = there & (by_width < by_mean)
    # The last column that is noise; all smaller components are noise with it.
    last = volumes - 1 - np.argmax(noise[:, ::-1], axis=1)
    found = noise.any(axis=1)
    keep = there & (np.arange(volumes) > np.where(found, last, -1)[:, None])
    variance = np.take_along_axis(by_mean, last[:, None], axis=1)[:, 0]
    return keep, np.where(found, variance, 0.0)


def _windows(mask: NDArray[np.bool_], edge: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the flat index of each window's first voxel, and those of its voxels from there."""
    places = [
        np.unique(np.minimum(np.arange(0, size - edge + WINDOW_STRIDE, WINDOW_STRIDE), size - edge))
        for size in mask.shape
    ]
    # Summed areas: how many mask voxels each window has.
    table = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1).cumsum(2), ((1, 0),) * 3)
    grid = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 3)
    count = np.zeros(len(grid), dtype=np.int64)
    for corner in np.ndindex(2, 2, 2):
        sign = (-1) ** (3 - sum(corner))
        count += sign * table[tuple((grid + edge * np.array(corner)).T)]
    grid = grid[count > 0]
    strides = np.array([mask.shape[1] * mask.shape[2], mask.shape[2], 1])
    cube = np.indices((edge,) * 3).reshape(3, -1).T
    return grid @ strides, cube @ strides
