"""Lobes of fODFs: the fibre populations of each voxel, and how much of it each takes up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.compilation import compiled
from esn_client.imaging.fibres.directions import spread_directions
from esn_client.imaging.fibres.fodf import Fodf

NEIGHBOUR_FACTOR = 1.6
"""Axes count as neighbours up to this many times the spacing of a regular spread."""


@dataclass(frozen=True)
class Lobes:
    """The lobes of all voxels, numbered through.

    Attributes
    ----------
    vectors : (H, 3) float64
        The axes on which fODFs were looked at.
    row_of : (X, Y, Z) int32
        The voxel's row, or -1.
    lobe_of : (n, H) int32
        The lobe to which an axis belongs in each voxel, or -1.
    density : (L,) float64
        Integral of the fODF over each lobe.

    """

    vectors: NDArray[np.float64]
    row_of: NDArray[np.int32]
    lobe_of: NDArray[np.int32]
    density: NDArray[np.float64]


def find_lobes(fodf: Fodf, *, sphere: str, least_amplitude: float) -> Lobes:
    """Divide each fODF among its peaks: an axis belongs to the peak to which steepest ascent leads.

    Parameters
    ----------
    fodf : Fodf
    sphere : str
        DIPY's name of the directions to look along.
    least_amplitude : float
        Axes of a smaller amplitude belong to no lobe.

    Returns
    -------
    Lobes

    """
    everywhere = spread_directions(sphere, max_angle_deg=90.0)
    axes = len(everywhere.vectors)
    # H axes stand for 2 H directions of 4 pi / 2 H sr each; a triangular grid is 2 / sqrt(3) as wide.
    spacing_rad = np.sqrt(2 * np.pi / axes * 2 / np.sqrt(3))
    near = spread_directions(sphere, max_angle_deg=float(np.degrees(NEIGHBOUR_FACTOR * spacing_rad)))
    amplitudes = fodf.amplitudes(everywhere.vectors)
    lobe_of = np.full(amplitudes.shape, -1, dtype=np.int32)
    density = np.zeros(amplitudes.size)
    found = _climb(amplitudes, near.near, near.count, least_amplitude, lobe_of, density)
    # An axis is both of its directions.
    return Lobes(everywhere.vectors, fodf.row_of, lobe_of, density[:found] * 4 * np.pi / axes)


@compiled
def _climb(
    amplitudes: NDArray[np.float32],
    near: NDArray[np.int32],
    count: NDArray[np.int32],
    least: float,
    lobe_of: NDArray[np.int32],
    density: NDArray[np.float64],
) -> int:
    """Give numbers to the lobes of each voxel and add up their amplitudes; count them."""
    found = 0
    for row in range(len(amplitudes)):
        height = amplitudes[row]
        for axis in range(len(height)):
            if height[axis] < least or height[axis] <= 0:
                continue
            here = axis
            while True:
                highest = here
                for place in range(count[here]):
                    other = near[here, place]
                    # Among equals the first one: ascent ends.
                    if height[other] > height[highest] or (
                        height[other] == height[highest] and other < highest
                    ):
                        highest = other
                if highest == here:
                    break
                here = highest
            if lobe_of[row, here] < 0:
                lobe_of[row, here] = found
                found += 1
            lobe_of[row, axis] = lobe_of[row, here]
            density[lobe_of[row, axis]] += height[axis]
    return found
