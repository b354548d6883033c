"""Connectivity: from streamlines to the strengths of edges."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.compilation import compiled
from esn_client.imaging.tracking.propagation import interpolate_stop
from esn_client.imaging.tracking.streamlines import Streamlines
from esn_core.connectome.atlas import Atlas
from esn_core.connectome.connectome import Connectome
from esn_core.connectome.edge_measures import EdgeMeasures
from esn_core.errors import DataError

PROBE_MM = 0.5
"""How finely the search beyond a streamline's end looks at the voxels that it crosses."""


@dataclass(frozen=True)
class Assignments:
    """Where streamlines end, and what they are like.

    Attributes
    ----------
    regions : (S, 2) int64
        Position of the region of either end in the atlas, or -1.
    lengths_mm : (S,) float64
    mean_fa : (S,) float64
        Along the streamline.

    """

    regions: NDArray[np.int64]
    lengths_mm: NDArray[np.float64]
    mean_fa: NDArray[np.float64]


def assign(
    batches: Iterable[Streamlines],
    regions: NDArray[np.int64],
    *,
    fa: NDArray[np.float64],
    voxel_size_mm: NDArray[np.float64],
    forward_search_mm: float,
) -> Assignments:
    """Find the regions that streamlines join.

    An end belongs to the region of its voxel. If that has none, the first region belongs to it that the
    streamline would meet if it went straight on (tck2connectome's ``-assignment_forward_search``):
    tractography often stops in the white matter below a gyrus, where fODFs are small.

    Parameters
    ----------
    batches : iterable of Streamlines
        Each is let go before the next is asked for.
    regions : (X, Y, Z) int64
        Position of each voxel's region in the atlas, or -1; grown as the protocol says.
    fa : (X, Y, Z) float64
    voxel_size_mm : (3,) float64
    forward_search_mm : float
        How far beyond an end is looked; 0 for not at all.

    Returns
    -------
    Assignments

    """
    found: list[NDArray[np.int64]] = [np.empty((0, 2), dtype=np.int64)]
    lengths, means = [np.empty(0)], [np.empty(0)]
    fa32 = np.ascontiguousarray(fa, dtype=np.float32)
    grid = np.ascontiguousarray(regions)
    for batch in batches:
        ends = np.empty((len(batch), 2), dtype=np.int64)
        mean_fa = np.empty(len(batch))
        _look_up(batch.points, batch.offsets, grid, fa32, voxel_size_mm, forward_search_mm, ends, mean_fa)
        found.append(ends)
        lengths.append(batch.lengths_mm)
        means.append(mean_fa)
    return Assignments(np.concatenate(found), np.concatenate(lengths), np.concatenate(means))


@compiled
def _look_up(
    points: NDArray[np.float32],
    offsets: NDArray[np.int64],
    regions: NDArray[np.int64],
    fa: NDArray[np.float32],
    voxel_size_mm: NDArray[np.float64],
    forward_search_mm: float,
    ends: NDArray[np.int64],
    mean_fa: NDArray[np.float64],
) -> None:
    """Fill in the regions of both ends, and the mean FA, of each streamline."""
    position = np.empty(3)
    ahead = np.empty(3)
    for number in range(len(offsets) - 1):
        begin, end = offsets[number], offsets[number + 1] - 1
        total = 0.0
        for place in range(begin, end + 1):
            position[:] = points[place]
            total += max(interpolate_stop(position, fa), 0.0)
        mean_fa[number] = total / (end - begin + 1)
        for side in range(2):
            tip = end if side else begin
            # Two steps back: one alone is as coarse as the sphere.
            before = max(end - 2, begin) if side else min(begin + 2, end)
            length = 0.0
            for axis in range(3):
                ahead[axis] = (points[tip, axis] - points[before, axis]) * voxel_size_mm[axis]
                length += ahead[axis] ** 2
            length = np.sqrt(length)
            region = -1
            probes = int(forward_search_mm / PROBE_MM) if length > 0 else 0
            for probe in range(probes + 1):
                inside = True
                for axis in range(3):
                    position[axis] = points[tip, axis]
                    if probe:
                        position[axis] += probe * PROBE_MM * ahead[axis] / length / voxel_size_mm[axis]
                    position[axis] = np.rint(position[axis])
                    inside = inside and 0 <= position[axis] < regions.shape[axis]
                if not inside:
                    break
                region = regions[int(position[0]), int(position[1]), int(position[2])]
                if region >= 0:
                    break
            ends[number, side] = region


def connect(
    assignments: Assignments,
    *,
    atlas: Atlas,
    volumes_mm3: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
) -> EdgeMeasures:
    """Measure each pair of regions by the streamlines that join it.

    Parameters
    ----------
    assignments : Assignments
    atlas : Atlas
    volumes_mm3 : (R,) float64
        Of the regions, before they were grown.
    weights : (S,) float64, optional
        Non-negative; None counts each streamline once.

    Returns
    -------
    EdgeMeasures

    Raises
    ------
    DataError
        No streamline joins two different regions.

    """
    size = len(atlas.names)
    joins: NDArray[np.bool_] = np.all(assignments.regions >= 0, axis=1)
    pair = np.sort(assignments.regions[joins], axis=1)
    flat = pair[:, 0] * size + pair[:, 1]
    weight = np.ones(len(flat)) if weights is None else weights[joins]
    length_mm = assignments.lengths_mm[joins]

    def add_up(values: NDArray[np.float64]) -> NDArray[np.float64]:
        upper = np.bincount(flat, weights=values, minlength=size * size).reshape(size, size)
        return np.asarray(upper + np.triu(upper, k=1).T, dtype=np.float64)

    counts = add_up(weight)
    if not np.triu(counts, k=1).any():
        raise DataError(f"none of {len(joins)} streamlines joins two regions; check gradients and labels")
    divisor = np.where(counts > 0, counts, 1.0)
    volume_mm3 = (volumes_mm3[:, None] + volumes_mm3) / 2
    return EdgeMeasures(
        Connectome(counts, atlas.names),
        mean_length_mm=add_up(weight * length_mm) / divisor,
        count_per_length=add_up(weight / length_mm),
        count_per_volume=counts / np.where(volume_mm3 > 0, volume_mm3, 1.0),
        mean_fa=add_up(weight * assignments.mean_fa[joins]) / divisor,
        streamlines=len(joins),
        assigned=int(joins.sum()),
    )
