"""Tractography: streamlines that follow the fibre orientations at random."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from esn_client.imaging.compilation import compiled
from esn_client.imaging.fibres.directions import spread_directions
from esn_client.imaging.fibres.fodf import Fodf
from esn_client.imaging.tracking.device import choose_device
from esn_client.imaging.tracking.propagation import propagate
from esn_client.imaging.tracking.streamlines import Streamlines
from esn_core.errors import DataError

BATCH_SEEDS = 8192
"""Bounds the memory that streamlines take: 80 MB where they may be 250 mm long in steps of 0.6 mm."""
BATCH_VOXELS = 8192


@dataclass(frozen=True)
class TrackingRules:
    """What a streamline may do.

    Attributes
    ----------
    step_size_mm, max_angle_deg : float
        Of one step and of the turn after it.
    min_length_mm, max_length_mm : float
        Shorter and longer streamlines are dropped.
    stop_threshold : float
        Streamlines end where the stop map, trilinearly interpolated, is below this.
    fodf_threshold : float
        Axes are not followed where their amplitude is below this share of the white matter's usual peak, the
        median over the voxels to start in. A share of each voxel's own peak would let streamlines wander
        through grey matter, whose fODFs are small and round.
    sphere : str
        DIPY's name of the directions to choose among.

    """

    step_size_mm: float
    max_angle_deg: float
    min_length_mm: float
    max_length_mm: float
    stop_threshold: float
    fodf_threshold: float
    sphere: str


def find_seeds(
    fa: NDArray[np.float64], mask: NDArray[np.bool_], *, threshold: float, depth_voxels: int
) -> NDArray[np.bool_]:
    """Find the voxels to start in: anisotropic ones away from the brain's surface, whose rim looks so too.

    Parameters
    ----------
    fa : (X, Y, Z) float64
    mask : (X, Y, Z) bool
        The brain.
    threshold : float
        Least FA.
    depth_voxels : int
        How many layers of the brain are left out.

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    DataError
        There is none.

    """
    deep = binary_erosion(mask, iterations=depth_voxels) if depth_voxels else mask
    seeds = deep & (fa >= threshold)
    if not seeds.any():
        most = fa[deep].max(initial=0.0)
        raise DataError(f"no voxel reaches an FA of {threshold:g} to start from; the most is {most:.2f}")
    return np.asarray(seeds, dtype=np.bool_)


def find_reach(
    stop_map: NDArray[np.float64], mask: NDArray[np.bool_], *, stop_threshold: float
) -> NDArray[np.bool_]:
    """Find the voxels whose fODF a streamline can meet: those around each position where it goes on.

    Parameters
    ----------
    stop_map : (X, Y, Z) float64
    mask : (X, Y, Z) bool
        The brain.
    stop_threshold : float

    Returns
    -------
    (X, Y, Z) bool

    """
    # An interpolated value is no more than the largest of its eight voxels, and they touch each other.
    touching = np.ones((3, 3, 3), dtype=bool)
    return np.asarray(mask & binary_dilation(stop_map >= stop_threshold, touching), dtype=np.bool_)


def track(
    fodf: Fodf,
    stop_map: NDArray[np.float64],
    *,
    seed_mask: NDArray[np.bool_],
    voxel_size_mm: NDArray[np.float64],
    rules: TrackingRules,
    seeds: int,
    random_seed: int,
    device: str = "cpu",
) -> Iterator[Streamlines]:
    """Track from random positions, spread evenly over the voxels to start in.

    A streamline starts along an axis drawn from the fODF, not along its highest peak, so that the weaker of
    two crossing bundles is followed as often as it deserves, and is followed both ways.

    Parameters
    ----------
    fodf : Fodf
        Where `find_reach` says.
    stop_map : (X, Y, Z) float64
        FA, or a map of white matter; 0 outside the brain.
    seed_mask : (X, Y, Z) bool
        The voxels to start in.
    voxel_size_mm : (3,) float64
    rules : TrackingRules
    seeds : int
        Streamlines started; those of allowed length are kept, and their number is not known before.
    random_seed : int
        Not negative. The same seed gives the same streamlines on any machine, on its processor or card.
    device : 'auto', 'cpu' or 'cuda'

    Yields
    ------
    Streamlines
        A batch at a time, of allowed length.

    Raises
    ------
    DataError
        No voxel to start in has an fODF.
    ConfigError
        The device is 'cuda', and there is no card or no CUDA toolkit.

    """
    start = np.argwhere(seed_mask & fodf.where)
    if not len(start):
        raise DataError(f"none of {int(seed_mask.sum())} voxels to start in has a fibre orientation")
    propagate_there = _propagate_here
    if choose_device(device) == "cuda":
        from esn_client.imaging.tracking.cuda import propagate_on_card

        propagate_there = propagate_on_card
    directions = spread_directions(rules.sphere, max_angle_deg=rules.max_angle_deg)
    amplitudes = fodf.amplitudes(directions.vectors)
    row_of = fodf.row_of
    usual_peak = _usual_peak(amplitudes, row_of[tuple(start.T)])
    # Numba compiles for each memory layout that it meets: let there be one.
    inputs = (
        np.ascontiguousarray(amplitudes, dtype=np.float32),
        np.ascontiguousarray(row_of, dtype=np.int32),
        np.ascontiguousarray(stop_map, dtype=np.float32),
        rules.stop_threshold,
        rules.fodf_threshold * usual_peak,
        directions.vectors,
        directions.near,
        directions.same_way,
        directions.count,
        directions.all_axes,
        rules.step_size_mm / voxel_size_mm,
        np.ascontiguousarray(start, dtype=np.int32),
        seeds,
        random_seed,
    )
    steps = int(rules.max_length_mm / rules.step_size_mm) + 1
    for points, bounds in propagate_there(inputs, seeds=seeds, steps=steps):
        yield _pack(points, bounds, rules)


def _propagate_here(
    inputs: tuple[Any, ...], *, seeds: int, steps: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Follow all streamlines on the processor, a batch at a time in the same memory."""
    batch = min(BATCH_SEEDS, seeds)
    points = np.empty((batch, 2 * steps + 1, 3), dtype=np.float32)
    bounds = np.empty((batch, 2), dtype=np.int64)
    for first in range(0, seeds, batch):
        last = min(first + batch, seeds)
        propagate(*(*inputs, first, last, points, bounds))
        yield points, bounds[: last - first]


def least_amplitude(fodf: Fodf, seed_mask: NDArray[np.bool_], rules: TrackingRules) -> float:
    """Give the amplitude below which axes are not followed.

    Parameters
    ----------
    fodf : Fodf
    seed_mask : (X, Y, Z) bool
        The voxels to start in; one of them at least has an fODF.
    rules : TrackingRules

    """
    directions = spread_directions(rules.sphere, max_angle_deg=rules.max_angle_deg)
    rows = fodf.row_of[seed_mask & fodf.where]
    return rules.fodf_threshold * _usual_peak(fodf.amplitudes(directions.vectors), rows)


def _usual_peak(amplitudes: NDArray[np.float32], rows: NDArray[np.int32]) -> float:
    """Give the median height of some voxels' fODFs."""
    return float(np.median(amplitudes[rows].max(axis=1)))


def _pack(points: NDArray[np.float32], bounds: NDArray[np.int64], rules: TrackingRules) -> Streamlines:
    """Keep the streamlines of allowed length, without the gaps between them."""
    begin, end = bounds.T
    length_mm = (end - begin - 1) * rules.step_size_mm
    allowed = np.flatnonzero(
        (end - begin >= 2) & (length_mm >= rules.min_length_mm) & (length_mm <= rules.max_length_mm)
    )
    offsets = np.concatenate([[0], np.cumsum((end - begin)[allowed])])
    kept = np.empty((offsets[-1], 3), dtype=np.float32)
    _copy(points, begin[allowed], allowed, offsets, kept)
    return Streamlines(kept, offsets, rules.step_size_mm)


@compiled
def _copy(
    points: NDArray[np.float32],
    begin: NDArray[np.int64],
    numbers: NDArray[np.int64],
    offsets: NDArray[np.int64],
    kept: NDArray[np.float32],
) -> None:
    """Copy the points of some streamlines, one after the other."""
    for place in range(len(numbers)):
        first, last = offsets[place], offsets[place + 1]
        kept[first:last] = points[numbers[place], begin[place] : begin[place] + last - first]
