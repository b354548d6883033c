"""Tracking on NVIDIA cards: the loop of the processor, one thread for each streamline."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, types
from numba.cuda import libdevice
from numba.extending import overload
from numpy.typing import NDArray

from esn_client.imaging.tracking.propagation import follow, times

BATCH_BYTES = 2**28
"""Bounds the memory that the points of a batch take; there are two batches, on the card and again on the
host."""
THREADS_PER_BLOCK = 64


@overload(times, target="cuda")
def _times_on_card(a, b):  # type: ignore[no-untyped-def]
    # Without these the compiler fuses a product with the sum after it, which the processor does not.
    if a == types.float32 and b == types.float32:
        return lambda a, b: libdevice.fmul_rn(a, b)
    return lambda a, b: libdevice.dmul_rn(a, b)


def propagate_on_card(
    inputs: tuple[Any, ...], *, seeds: int, steps: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Follow all streamlines on the card: while one batch is looked at here, the card is busy with the next.

    Two streams take turns, each with memory of its own on the card and on the host. The host's is pinned:
    only
    from there is a copy made while the processor does something else, and it is made at the bus's full speed.
    A stream is used again when the caller asks for the batch after next, so when it is done with this one.

    Parameters
    ----------
    inputs : tuple
        What `propagation.propagate` takes before ``first``.
    seeds, steps : int
        Streamlines, and the most steps of one.

    Yields
    ------
    points : (b, 2 steps + 1, 3) float32
    bounds : (b, 2) int64
        As `propagation.propagate` fills them; they hold until the next batch is asked for.

    """
    places = 2 * steps + 1
    batch = min(max(BATCH_BYTES // (places * 3 * 4), 1), seeds)
    on_card = tuple(cuda.to_device(value) if isinstance(value, np.ndarray) else value for value in inputs)
    kernel = build_kernel(inputs[0].shape[1])  # of the amplitudes
    blocks = -(-batch // THREADS_PER_BLOCK)
    streams = (cuda.stream(), cuda.stream())
    room = [
        [make((batch, *rest), dtype=kind) for rest, kind in (((places, 3), np.float32), ((2,), np.int64))]
        for make in (cuda.device_array, cuda.device_array, cuda.pinned_array, cuda.pinned_array)
    ]
    there, here = room[:2], room[2:]

    def start(turn: int, first: int) -> None:
        """Hand a batch to the card, and let it copy what it finds; come back at once."""
        last = min(first + batch, seeds)
        kernel[blocks, THREADS_PER_BLOCK, streams[turn]](*on_card, first, last, *there[turn])
        for found, copy in zip(there[turn], here[turn], strict=True):
            found.copy_to_host(copy, stream=streams[turn])

    def finish(turn: int, first: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Wait for a batch, and for it alone."""
        streams[turn].synchronize()
        points, bounds = here[turn]
        return points, bounds[: min(batch, seeds - first)]

    firsts = range(0, seeds, batch)
    try:
        for number, first in enumerate(firsts):
            start(number % 2, first)
            if number:
                yield finish((number - 1) % 2, firsts[number - 1])
        yield finish((len(firsts) - 1) % 2, firsts[-1])
    finally:
        # A caller may stop half-way: the card must not write into memory that is given back.
        for stream in streams:
            stream.synchronize()


@cache
def build_kernel(axes: int) -> Any:
    """Build the kernel for so many axes: a thread's room to work in must have a constant size.

    Parameters
    ----------
    axes : int

    Returns
    -------
    numba's kernel
        Takes what `propagation.propagate` takes.

    """

    @cuda.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
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
        first,
        last,
        points,
        bounds,
    ) -> None:
        place = cuda.grid(1)
        if place >= last - first:
            return
        follow(
            first + place,
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
            cuda.local.array(axes, np.float32),
            cuda.local.array(8, np.int64),
            cuda.local.array(8, np.float32),
            cuda.local.array(1, np.uint64),
            cuda.local.array(3, np.float64),
            cuda.local.array(3, np.float64),
            points[place],
            bounds[place],
        )

    return kernel
