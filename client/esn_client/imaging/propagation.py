"""Propagation: the inner loop of tractography, one step after the other.

Each streamline draws from a random stream of its own, named by its number: neither the order nor the batch
in which streamlines are computed changes them.
"""

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.compilation import compiled

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""With `GOLDEN` the constants of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, figure 16)."""


@compiled
def scramble(bits: np.uint64) -> np.uint64:
    """Turn 64 bits into 64 others that look unrelated."""
    bits = (bits ^ (bits >> np.uint64(30))) * MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * MIX_2
    return bits ^ (bits >> np.uint64(31))


@compiled
def draw_uniform(stream: NDArray[np.uint64]) -> float:
    """Draw from [0, 1) and move the stream of one number, its state, on."""
    stream[0] += GOLDEN
    return (scramble(stream[0]) >> np.uint64(11)) * 2.0**-53


@compiled
def interpolate_stop(position: NDArray[np.float64], stop_map: NDArray[np.float32]) -> float:
    """Interpolate the stop map between eight voxels; -1 outside the centres of the outermost ones."""
    x, y, z = int(np.floor(position[0])), int(np.floor(position[1])), int(np.floor(position[2]))
    if (
        min(x, y, z) < 0
        or x > stop_map.shape[0] - 2
        or y > stop_map.shape[1] - 2
        or z > stop_map.shape[2] - 2
    ):
        return -1.0
    value = 0.0
    for i in range(2):
        along_x = position[0] - x if i else 1 - (position[0] - x)
        for j in range(2):
            along_xy = along_x * (position[1] - y if j else 1 - (position[1] - y))
            for k in range(2):
                weight = along_xy * (position[2] - z if k else 1 - (position[2] - z))
                value += weight * stop_map[x + i, y + j, z + k]
    return value


@compiled
def find_corners(
    position: NDArray[np.float64],
    row_of: NDArray[np.int32],
    rows: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> int:
    """List those of the eight voxels around a position that have an fODF, with their weights; count them."""
    x, y, z = int(np.floor(position[0])), int(np.floor(position[1])), int(np.floor(position[2]))
    found = 0
    for i in range(2):
        along_x = position[0] - x if i else 1 - (position[0] - x)
        for j in range(2):
            along_xy = along_x * (position[1] - y if j else 1 - (position[1] - y))
            for k in range(2):
                weight = along_xy * (position[2] - z if k else 1 - (position[2] - z))
                row = row_of[x + i, y + j, z + k]
                if row >= 0 and weight > 0:
                    rows[found], weights[found] = row, weight
                    found += 1
    return found


@compiled
def draw_axis(
    axes: NDArray[np.int32],
    count: int,
    amplitudes: NDArray[np.float32],
    least: float,
    found: int,
    rows: NDArray[np.int64],
    weights: NDArray[np.float32],
    cumulated: NDArray[np.float32],
    stream: NDArray[np.uint64],
) -> int:
    """Draw the place of one of some axes, as likely as its amplitude where that is enough; -1 if none is."""
    total = np.float32(0)
    last = -1
    for place in range(count):
        amplitude = np.float32(0)
        for corner in range(found):
            amplitude += weights[corner] * amplitudes[rows[corner], axes[place]]
        if amplitude >= least and amplitude > 0:
            total += amplitude
            last = place
        cumulated[place] = total
    if last < 0:
        return -1
    drawn = np.float32(draw_uniform(stream)) * total
    place = 0
    # float32 may round the draw up to the total: then it is the last axis.
    while place < last and cumulated[place] <= drawn:
        place += 1
    return place


@compiled
def propagate(
    amplitudes: NDArray[np.float32],
    row_of: NDArray[np.int32],
    stop_map: NDArray[np.float32],
    stop_threshold: float,
    least_amplitude: float,
    vectors: NDArray[np.float64],
    near: NDArray[np.int32],
    same_way: NDArray[np.bool_],
    count: NDArray[np.int32],
    step_voxels: NDArray[np.float64],
    start: NDArray[np.int32],
    seeds: int,
    first: int,
    last: int,
    random_seed: int,
    points: NDArray[np.float32],
    bounds: NDArray[np.int64],
) -> None:
    """Follow the streamlines number ``first`` to ``last - 1`` of `seeds` both ways from where they start.

    Parameters
    ----------
    amplitudes : (n, H) float32
        fODFs of n voxels along H axes.
    row_of : (X, Y, Z) int32
        The voxel's row of `amplitudes`, or -1.
    stop_map : (X, Y, Z) float32
        A streamline ends before it comes to where this is below `stop_threshold`.
    stop_threshold, least_amplitude : float
        Axes of an amplitude below `least_amplitude` are not followed.
    vectors, near, same_way, count
        Of `Directions`.
    step_voxels : (3,) float64
        Length of a step along each voxel axis, in voxels.
    start : (v, 3) int32
        The voxels to start in. Streamline ``i`` starts in the part ``[i, i + 1) / seeds`` of their list, at
        random within it and within the voxel: seeds are spread evenly, and neighbours share the cache.
    seeds, first, last : int
    random_seed : int
    points : (last - first, 2 L + 1, 3) float32
        Is filled with the streamlines in voxel coordinates; the seed is in the middle, in place ``L``.
    bounds : (last - first, 2) int64
        Is filled with the first place that holds a point, and the place after the last one; they are equal
        where nothing can be followed.

    """
    middle = points.shape[1] // 2
    all_axes = np.arange(len(vectors)).astype(np.int32)
    cumulated = np.empty(len(vectors), np.float32)
    rows, weights = np.empty(8, np.int64), np.empty(8, np.float32)
    stream, seed, position = np.empty(1, np.uint64), np.empty(3), np.empty(3)
    for number in range(first, last):
        streamline = points[number - first]
        stream[0] = scramble(scramble(np.uint64(random_seed) + GOLDEN) + np.uint64(number))
        # The floor of a product may round up to the length of the list.
        voxel = start[min(int((number + draw_uniform(stream)) / seeds * len(start)), len(start) - 1)]
        for axis in range(3):
            seed[axis] = voxel[axis] + draw_uniform(stream) - 0.5
        bounds[number - first] = middle
        if interpolate_stop(seed, stop_map) < stop_threshold:
            continue
        found = find_corners(seed, row_of, rows, weights)
        begin = draw_axis(
            all_axes, len(vectors), amplitudes, least_amplitude, found, rows, weights, cumulated, stream
        )
        if begin < 0:
            continue
        streamline[middle] = seed
        bounds[number - first, 1] = middle + 1
        # The budget is shared: a longer streamline than is allowed is not followed to its end.
        left = middle
        for way in (1, -1):
            axis, sign = begin, way
            position[:] = seed
            place = middle
            while left > 0:
                for k in range(3):
                    position[k] += sign * vectors[axis, k] * step_voxels[k]
                if interpolate_stop(position, stop_map) < stop_threshold:
                    break
                place += way
                left -= 1
                streamline[place] = position
                found = find_corners(position, row_of, rows, weights)
                turn = draw_axis(
                    near[axis],
                    count[axis],
                    amplitudes,
                    least_amplitude,
                    found,
                    rows,
                    weights,
                    cumulated,
                    stream,
                )
                if turn < 0:
                    break
                if not same_way[axis, turn]:
                    sign = -sign
                axis = near[axis, turn]
            bounds[number - first, (way + 1) // 2] = place + (way + 1) // 2
