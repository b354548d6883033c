"""Tracking on graphics cards: the same rules, followed by cuslines.

What differs from the CPU: cuslines starts one streamline along each peak of the fODF at a seed, cuts at 5 %
of the local peak, and takes its step in voxels, so that voxels must be cubes. Its streamlines are thinned so
that a seed counts once on average.
"""

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from dipy.data import get_sphere
from numpy.typing import NDArray

from esn_client.imaging.fodf import Fodf
from esn_client.imaging.streamlines import Streamlines
from esn_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from esn_client.imaging.tracking import TrackingRules

CHUNK_SEEDS = 25_000
CUBE_TOLERANCE = 0.02
"""Voxel edges may differ by this share: then a step is off by no more."""


def choose_device(device: str) -> str:
    """Decide where to track.

    Parameters
    ----------
    device : 'auto', 'cpu' or 'cuda'

    Returns
    -------
    'cpu' or 'cuda'

    Raises
    ------
    ConfigError
        'cuda' is asked for and there is no card, or no cuslines.

    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda', not {device!r}")
    if device == "cpu":
        return "cpu"
    lacking = _lacking()
    if lacking and device == "cuda":
        raise ConfigError(f"device 'cuda' cannot be used: {lacking}")
    return "cpu" if lacking else "cuda"


def _lacking() -> str | None:
    """Say what is missing for tracking on an NVIDIA card, if anything is."""
    for module in ("cuslines", "cuda"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'cuslines[cu13]==2.2.3'"
    from cuda.bindings import runtime

    error, cards = runtime.cudaGetDeviceCount()
    return None if int(error) == 0 and cards > 0 else "no NVIDIA card is visible"


def track_on_gpu(
    fodf: Fodf,
    stop_map: NDArray[np.float64],
    *,
    start: NDArray[np.int64],
    voxel_size_mm: NDArray[np.float64],
    rules: "TrackingRules",
    least_amplitude: float,
    seeds: int,
    random_seed: int,
) -> Iterator[Streamlines]:
    """Track with cuslines, on the device that it finds by itself.

    Parameters
    ----------
    fodf, stop_map, voxel_size_mm, rules, seeds, random_seed
        As `tracking.track` takes them.
    start : (v, 3) int64
        The voxels to start in.
    least_amplitude : float
        Amplitudes below it are not followed.

    Yields
    ------
    Streamlines
        A batch at a time, of allowed length.

    Raises
    ------
    DataError
        Voxels are no cubes.

    """
    import cuslines

    edge_mm = float(np.mean(voxel_size_mm))
    if np.abs(voxel_size_mm / edge_mm - 1).max() > CUBE_TOLERANCE:
        raise DataError(
            f"voxels of {' x '.join(f'{size:g}' for size in voxel_size_mm)} mm are no cubes; "
            "device 'cuda' needs cubes: use 'cpu' or resample the scan"
        )
    sphere = get_sphere(name=rules.sphere)
    amplitudes = fodf.amplitudes(sphere.vertices)
    amplitudes[amplitudes < least_amplitude] = 0
    volume = np.zeros((*fodf.where.shape, len(sphere.vertices)), dtype=np.float32)
    volume[fodf.where] = amplitudes
    rng = np.random.default_rng(random_seed)
    tracker = cuslines.Tracker(
        cuslines.ProbDirectionGetter(),
        volume,
        stop_map.astype(np.float32),
        rules.stop_threshold,
        sphere.vertices,
        sphere.edges,
        max_angle=np.radians(rules.max_angle_deg),
        step_size=rules.step_size_mm / edge_mm,
        rng_seed=random_seed,
        chunk_size=CHUNK_SEEDS,
    )
    with tracker:
        for first in range(0, seeds, CHUNK_SEEDS):
            number = np.arange(first, min(first + CHUNK_SEEDS, seeds))
            place = ((number + rng.random(len(number))) / seeds * len(start)).astype(np.int64)
            positions = start[np.minimum(place, len(start) - 1)] + rng.uniform(-0.5, 0.5, (len(number), 3))
            tracker.seed_propagator.propagate(positions.astype(np.float32))
            lines = tracker.seed_propagator.as_array_sequence()
            yield _select(lines.get_data(), lines._lengths, stop_map.shape, rules, seeds=len(number), rng=rng)


def _select(
    points: NDArray[np.float32],
    sizes: NDArray[np.int64],
    shape: tuple[int, ...],
    rules: "TrackingRules",
    *,
    seeds: int,
    rng: np.random.Generator,
) -> Streamlines:
    """Keep those of allowed length inside the grid, no more than one for each seed on average."""
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    inside = (
        np.logical_and.reduceat(((points >= 0) & (points <= np.array(shape) - 1)).all(axis=1), offsets[:-1])
        if len(sizes)
        else np.zeros(0, dtype=bool)
    )
    length_mm = (sizes - 1) * rules.step_size_mm
    kept = inside & (sizes >= 2) & (length_mm >= rules.min_length_mm) & (length_mm <= rules.max_length_mm)
    if len(sizes) > seeds:
        kept &= rng.random(len(sizes)) < seeds / len(sizes)
    packed = np.concatenate([[0], np.cumsum(sizes[kept])])
    return Streamlines(points[np.repeat(kept, sizes)], packed, rules.step_size_mm)
