"""Raw diffusion phantoms: the scan that a child with a known connectome would have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError
from esn_core.simulation.bundles import (
    BRAIN_SEMI_AXES_MM,
    ENDS_AT,
    FAINTEST_LOG_WEIGHT,
    Fibres,
    Pose,
    excess_log_weight,
    lay_bundles,
    rotation_matrix,
)

REGION_RADIUS_MM = 24.0
CORTEX_FROM = 0.74
"""Labels fill the shell from this share of the semi-axes to the brain's surface."""
PACKING = 0.85
"""The share of a voxel that fibres can fill."""

FIBRE_MM2_PER_S = (1.7e-3, 0.25e-3)
"""Diffusivity along and across fibres."""
TISSUE_MM2_PER_S = 0.8e-3
FREE_WATER_MM2_PER_S = 3.0e-3
SIGNAL_B0 = 1000.0


@dataclass(frozen=True)
class Scheme:
    """The diffusion weightings of a scan, one for each volume.

    Attributes
    ----------
    b_values_s_per_mm2 : (V,) float64
    directions : (V, 3) float64
        Unit vectors in RAS+ space; ignored where the b-value is 0.

    """

    b_values_s_per_mm2: Floats
    directions: Floats

    def __post_init__(self) -> None:
        expected = (len(self.b_values_s_per_mm2), 3)
        if self.directions.shape != expected:
            raise DataError(f"directions must have shape {expected}, not {self.directions.shape}")
        weighted = self.b_values_s_per_mm2 > 0
        if not np.allclose(np.linalg.norm(self.directions[weighted], axis=1), 1, atol=1e-6):
            raise DataError("directions of weighted volumes must be unit vectors")


@dataclass(frozen=True)
class Phantom:
    """A raw scan with its labels and its truth.

    Attributes
    ----------
    signal : (X, Y, Z, V) float64
        Stored RAS.
    labels : (X, Y, Z) int16
        Region indices of the atlas, 0 elsewhere.
    affine : (4, 4) float64
        Voxels to millimetres, RAS+.
    brain : (X, Y, Z) bool
    bundles : (B,) int64
        Edges that were drawn.
    fractions : (X, Y, Z, B) float32
        Volume fraction of each drawn bundle.

    """

    signal: Floats
    labels: NDArray[np.int16]
    affine: Floats
    brain: NDArray[np.bool_]
    bundles: NDArray[np.int64]
    fractions: NDArray[np.float32]


def draw_phantom(
    atlas: Atlas,
    log_weights: Floats,
    scheme: Scheme,
    *,
    voxel_size_mm: float,
    signal_to_noise: float,
    rng: np.random.Generator,
    motion_mm: float = 0.0,
) -> Phantom:
    """Draw the raw scan of one subject.

    Each bundle is a bent tube whose cross-section is proportional to its weight; those of larger atlases
    are all smaller alike (`excess_log_weight`), and the faintest are left out; a voxel holds fibres,
    tissue and free water (multi-tensor signal); the noise is Rician.

    Parameters
    ----------
    atlas : Atlas
    log_weights : (E,) float64
        In the order of ``Atlas.edges``.
    scheme : Scheme
    voxel_size_mm : float
        Voxels are cubes.
    signal_to_noise : float
        Of tissue without diffusion weighting.
    rng : Generator
        For the head's position, the bundles' shapes, motion and noise.
    motion_mm : float
        Sd of the head's shift between volumes, along each axis; it turns by as many degrees.

    Returns
    -------
    Phantom

    Raises
    ------
    DataError
        The number of log weights is not the atlas's number of edges.

    """
    if log_weights.shape != (len(atlas.edges),):
        raise DataError(f"log_weights must have shape ({len(atlas.edges)},), not {log_weights.shape}")
    shape = tuple(2 * int(np.ceil(semi / voxel_size_mm + 1)) for semi in BRAIN_SEMI_AXES_MM)
    affine = np.diag([voxel_size_mm] * 3 + [1.0])
    affine[:3, 3] = -voxel_size_mm * (np.array(shape) - 1) / 2
    pose = Pose.draw(rng=rng)
    centres = np.indices(shape).reshape(3, -1).T * voxel_size_mm + affine[:3, 3]
    at_atlas = (centres - pose.shift_mm) @ np.linalg.inv(pose.matrix).T
    depth = np.linalg.norm(at_atlas / BRAIN_SEMI_AXES_MM, axis=1)
    brain = (depth < 1).reshape(shape)
    labels = _draw_labels(atlas, at_atlas, depth).reshape(shape)

    log_weights = log_weights - excess_log_weight(atlas)
    bundles = np.flatnonzero(log_weights > FAINTEST_LOG_WEIGHT)
    laid = lay_bundles(atlas, log_weights, bundles, pose=pose, affine=affine, shape=shape)
    fibres = _pack(laid, brain)
    signal = _signal(scheme, fibres, brain=brain, depth=depth.reshape(shape))
    signal = _move(signal, voxel_size_mm=voxel_size_mm, motion_mm=motion_mm, rng=rng)
    sd = SIGNAL_B0 / signal_to_noise
    signal = np.hypot(signal + sd * rng.normal(size=signal.shape), sd * rng.normal(size=signal.shape))
    fractions = np.zeros((brain.size, len(bundles)), dtype=np.float32)
    fractions[fibres.voxel, fibres.bundle] = fibres.fraction
    return Phantom(signal, labels, affine, brain, bundles, fractions.reshape(*shape, -1))


def _draw_labels(atlas: Atlas, at_atlas: Floats, depth: Floats) -> NDArray[np.int16]:
    """Give each voxel of the cortical shell to the nearest region, if it is near.

    A region whose centroid lies outside of the shell, as those of deep nuclei do, lies where its bundles end.
    """
    centroids = atlas.centroids_mm
    at = np.linalg.norm(centroids / BRAIN_SEMI_AXES_MM, axis=1, keepdims=True)
    places = np.where((at < CORTEX_FROM) | (at > 1), centroids / at * ENDS_AT, centroids)
    distance = np.linalg.norm(at_atlas[:, None] - places, axis=2)
    nearest = distance.argmin(axis=1)
    cortex = (depth >= CORTEX_FROM) & (depth < 1) & (distance.min(axis=1) < REGION_RADIUS_MM)
    index = np.array([region.index for region in atlas.regions], dtype=np.int16)
    return np.where(cortex, index[nearest], 0).astype(np.int16)


def _pack(laid: Fibres, brain: NDArray[np.bool_]) -> Fibres:
    """Keep what lies in the brain, and let crossing bundles share an overfull voxel."""
    inside = brain.ravel()[laid.voxel]
    voxel, fraction = laid.voxel[inside], laid.fraction[inside]
    total = np.bincount(voxel, weights=fraction, minlength=brain.size)
    fraction = fraction * (PACKING / np.maximum(total, PACKING))[voxel]
    return Fibres(voxel, laid.bundle[inside], fraction, laid.direction[inside])


def _signal(scheme: Scheme, fibres: Fibres, *, brain: NDArray[np.bool_], depth: Floats) -> Floats:
    """Add up the signal without noise: fibres, tissue and free water, each with a tensor of its own."""
    b = scheme.b_values_s_per_mm2
    along, across = FIBRE_MM2_PER_S
    filled = np.bincount(fibres.voxel, weights=fibres.fraction, minlength=brain.size)
    water = np.where(brain, 0.03 + 0.12 * np.clip((depth - 0.9) / 0.1, 0, 1), 0).ravel()
    rest = np.where(brain.ravel(), 1 - filled, 0)
    signal = np.empty((brain.size, len(b)))
    for v in range(len(b)):
        cosine = fibres.direction @ scheme.directions[v]
        left = fibres.fraction * np.exp(-b[v] * (across + (along - across) * cosine**2))
        signal[:, v] = np.bincount(fibres.voxel, weights=left, minlength=brain.size)
        tissue = (1 - water) * np.exp(-b[v] * TISSUE_MM2_PER_S) + water * np.exp(-b[v] * FREE_WATER_MM2_PER_S)
        signal[:, v] += rest * tissue
    return SIGNAL_B0 * signal.reshape(*brain.shape, len(b))


def _move(signal: Floats, *, voxel_size_mm: float, motion_mm: float, rng: np.random.Generator) -> Floats:
    """Shift and turn each volume a little, as a child's head does between volumes."""
    if motion_mm == 0:
        return signal
    centre = (np.array(signal.shape[:3]) - 1) / 2
    moved = np.empty_like(signal)
    for v in range(signal.shape[3]):
        turn = rotation_matrix(np.radians(rng.normal(0, motion_mm, 3)))
        offset = centre - turn @ centre + rng.normal(0, motion_mm, 3) / voxel_size_mm
        moved[..., v] = affine_transform(signal[..., v], turn, offset=offset, order=1, mode="nearest")
    return moved
