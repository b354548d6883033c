"""Propagation: the inner loop of tractography, one step after the other.

Each streamline draws from a random stream of its own, named by its number: neither the order nor the batch
in which streamlines are computed changes them. Processor and graphics card compile the same source, and round
each product before it is added to: they follow the same streamlines to the last bit.
"""

from math import floor

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from esn_client.imaging.compilation import compiled

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""With `GOLDEN` the constants of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, figure 16)."""


def times(a: float, b: float) -> float:
    """Multiply; on a card too the product is rounded, where fused multiplication would keep more digits."""
    return a * b


@overload(times)
def _times_on_processor(a, b):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return lambda a, b: a * b


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
    return times(np.float64(scramble(stream[0]) >> np.uint64(11)), 2.0**-53)


@compiled
def interpolate_stop(position: NDArray[np.float64], stop_map: NDArray[np.float32]) -> float:
    """Interpolate the stop map between eight voxels; -1 outside the centres of the outermost ones."""
    # numba's floor is a float on a card.
    x, y, z = int(floor(position[0])), int(floor(position[1])), int(floor(position[2]))  # noqa: RUF046
    if (
        x < 0
        or y < 0
        or z < 0
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
                value += times(weight, np.float64(stop_map[x + i, y + j, z + k]))
    return value


@compiled
def find_corners(
    position: NDArray[np.float64],
    row_of: NDArray[np.int32],
    rows: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> int:
    """List those of the eight voxels around a position that have an fODF, with their weights; count them."""
    # numba's floor is a float on a card.
    x, y, z = int(floor(position[0])), int(floor(position[1])), int(floor(position[2]))  # noqa: RUF046
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
            amplitude += times(weights[corner], amplitudes[rows[corner], axes[place]])
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
def follow(
    number: int,
    amplitudes: NDArray[np.float32],
    row_of: NDArray[np.int32],
    stop_map: NDArray[np.float32],
    stop_threshold: float,
    least_amplitude: float,
    vectors: NDArray[np.float64],
    near: NDArray[np.int32],
    same_way: NDArray[np.bool_],
    count: NDArray[np.int32],
    all_axes: NDArray[np.int32],
    step_voxels: NDArray[np.float64],
    start: NDArray[np.int32],
    seeds: int,
    random_seed: int,
    cumulated: NDArray[np.float32],
    rows: NDArray[np.int64],
    weights: NDArray[np.float32],
    stream: NDArray[np.uint64],
    seed: NDArray[np.float64],
    position: NDArray[np.float64],
    streamline: NDArray[np.float32],
    bounds: NDArray[np.int64],
) -> None:
    """Follow one streamline both ways from where it starts.

    Parameters
    ----------
    number : int
        Of the streamline, among `seeds`.
    amplitudes, row_of, stop_map, stop_threshold, least_amplitude, step_voxels, start, seeds, random_seed
        As `propagate` takes them.
    vectors, near, same_way, count, all_axes
        Of `Directions`.
    cumulated : (H,) float32
    rows, weights : (8,) int64 and float32
    stream : (1,) uint64
    seed, position : (3,) float64
        Room to work in.
    streamline : (2 L + 1, 3) float32
        Is filled with the points, the seed in place ``L``.
    bounds : (2,) int64
        Is filled with the first place that holds a point, and the place after the last one.

    """
    middle = streamline.shape[0] // 2
    stream[0] = scramble(scramble(np.uint64(random_seed) + GOLDEN) + np.uint64(number))
    # The floor of a product may round up to the length of the list.
    chosen = int((number + draw_uniform(stream)) / seeds * len(start))
    if chosen == len(start):
        chosen -= 1
    for k in range(3):
        seed[k] = start[chosen, k] + draw_uniform(stream) - 0.5
    bounds[0] = bounds[1] = middle
    if interpolate_stop(seed, stop_map) < stop_threshold:
        return
    found = find_corners(seed, row_of, rows, weights)
    begin = draw_axis(
        all_axes, len(all_axes), amplitudes, least_amplitude, found, rows, weights, cumulated, stream
    )
    if begin < 0:
        return
    for k in range(3):
        streamline[middle, k] = seed[k]
    bounds[1] = middle + 1
    # The budget is shared: a longer streamline than is allowed is not followed to its end.
    left = middle
    for way in (1, -1):
        axis, sign = begin, way
        for k in range(3):
            position[k] = seed[k]
        place = middle
        while left > 0:
            for k in range(3):
                position[k] += times(sign * vectors[axis, k], step_voxels[k])
            if interpolate_stop(position, stop_map) < stop_threshold:
                break
            place += way
            left -= 1
            for k in range(3):
                streamline[place, k] = position[k]
            found = find_corners(position, row_of, rows, weights)
            turn = draw_axis(
                near[axis], count[axis], amplitudes, least_amplitude, found, rows, weights, cumulated, stream
            )
            if turn < 0:
                break
            if not same_way[axis, turn]:
                sign = -sign
            axis = near[axis, turn]
        bounds[(way + 1) // 2] = place + (way + 1) // 2


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
    all_axes: NDArray[np.int32],
    step_voxels: NDArray[np.float64],
    start: NDArray[np.int32],
    seeds: int,
    random_seed: int,
    first: int,
    last: int,
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
    vectors, near, same_way, count, all_axes
        Of `Directions`.
    step_voxels : (3,) float64
        Length of a step along each voxel axis, in voxels.
    start : (v, 3) int32
        The voxels to start in. Streamline ``i`` starts in the part ``[i, i + 1) / seeds`` of their list, at
        random within it and within the voxel: seeds are spread evenly, and neighbours share the cache.
    seeds, random_seed, first, last : int
    points : (last - first, 2 L + 1, 3) float32
        Is filled with the streamlines in voxel coordinates; the seed is in the middle, in place ``L``.
    bounds : (last - first, 2) int64
        Is filled with the first place that holds a point, and the place after the last one; they are equal
        where nothing can be followed.

    """
    cumulated = np.empty(len(all_axes), np.float32)
    rows, weights = np.empty(8, np.int64), np.empty(8, np.float32)
    stream, seed, position = np.empty(1, np.uint64), np.empty(3), np.empty(3)
    for number in range(first, last):
        follow(
            number,
            amplitudes,
            row_of,
            stop_map,
            stop_threshold,
            least_amplitude,
            vectors,
            near,
            same_way,
            count,
            all_axes,
            step_voxels,
            start,
            seeds,
            random_seed,
            cumulated,
            rows,
            weights,
            stream,
            seed,
            position,
            points[number - first],
            bounds[number - first],
        )
