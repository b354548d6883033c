"""Raw diffusion phantoms: the scan that a child with a known connectome would have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from esn_core.atlas import Atlas
from esn_core.errors import DataError

Floats = NDArray[np.float64]

BRAIN_SEMI_AXES_MM = np.array([62.0, 78.0, 55.0])
"""Of the ellipsoid that stands for a child's brain, in the atlas's space."""
REGION_RADIUS_MM = 24.0
CORTEX_FROM = 0.74
"""Labels fill the shell from this share of the semi-axes to the brain's surface."""
ENDS_AT = 0.90
"""Bundles end at this share of the semi-axes, well inside the cortex."""
ASIDE_MM, ASIDE_SHARE = 7.0, 0.15
"""Bundles end this far from their region's centre towards their partner, or this share of the way if less."""
MEAN_AREA_MM2 = 60.0
"""Cross-section of a bundle whose log weight is `REFERENCE_LOG_WEIGHT`."""
REFERENCE_LOG_WEIGHT = 4.3
FAINTEST_LOG_WEIGHT = 1.0
"""Bundles below this are not drawn: less than 4 % of the mean cross-section."""
STRANDS, STEPS = 48, 64
"""Each bundle is this many strands of this many pieces."""
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


@dataclass(frozen=True)
class Pose:
    """How a head lies in the scanner: atlas millimetres ``x`` become ``matrix @ x + shift_mm``."""

    matrix: Floats
    shift_mm: Floats

    @classmethod
    def draw(cls, *, rng: np.random.Generator) -> "Pose":
        """Draw a head: a few degrees and millimetres off centre, a few per cent larger or smaller."""
        rotation = rotation_matrix(np.radians(rng.normal(0, 2.0, 3)))
        return cls(rotation * np.exp(rng.normal(0, 0.02)), rng.normal(0, 1.5, 3))


def rotation_matrix(angles_rad: Floats) -> Floats:
    """Compose the (3, 3) rotations about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


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

    Each bundle is a bent tube whose cross-section is proportional to its weight; a voxel holds fibres,
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

    bundles = np.flatnonzero(log_weights > FAINTEST_LOG_WEIGHT)
    voxel, bundle, fraction, direction = _draw_bundles(
        atlas, log_weights, bundles, pose=pose, affine=affine, shape=shape
    )
    inside = brain.ravel()[voxel]
    voxel, bundle, fraction, direction = voxel[inside], bundle[inside], fraction[inside], direction[inside]
    total = np.bincount(voxel, weights=fraction, minlength=brain.size)
    fraction = fraction * (PACKING / np.maximum(total, PACKING))[voxel]

    signal = _signal(scheme, voxel, fraction, direction, brain=brain, depth=depth.reshape(shape))
    signal = _move(signal, voxel_size_mm=voxel_size_mm, motion_mm=motion_mm, rng=rng)
    sd = SIGNAL_B0 / signal_to_noise
    signal = np.hypot(signal + sd * rng.normal(size=signal.shape), sd * rng.normal(size=signal.shape))
    fractions = np.zeros((brain.size, len(bundles)), dtype=np.float32)
    fractions[voxel, bundle] = fraction
    return Phantom(signal, labels, affine, brain, bundles, fractions.reshape(*shape, -1))


def _draw_labels(atlas: Atlas, at_atlas: Floats, depth: Floats) -> NDArray[np.int16]:
    """Give each voxel of the cortical shell to the nearest centroid, if it is near."""
    distance = np.linalg.norm(at_atlas[:, None] - atlas.centroids_mm, axis=2)
    nearest = distance.argmin(axis=1)
    cortex = (depth >= CORTEX_FROM) & (depth < 1) & (distance.min(axis=1) < REGION_RADIUS_MM)
    index = np.array([region.index for region in atlas.regions], dtype=np.int16)
    return np.where(cortex, index[nearest], 0).astype(np.int16)


def _draw_bundles(
    atlas: Atlas,
    log_weights: Floats,
    bundles: NDArray[np.int64],
    *,
    pose: Pose,
    affine: Floats,
    shape: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Lay the bundles into the grid: voxel, bundle, volume fraction and direction of each that is met."""
    centroids = atlas.centroids_mm
    ends = centroids / np.linalg.norm(centroids / BRAIN_SEMI_AXES_MM, axis=1, keepdims=True) * ENDS_AT
    start, stop = ends[atlas.edges[bundles, 0]], ends[atlas.edges[bundles, 1]]
    # A bundle leaves its region on the side of its partner, so that bundles of one region lie apart.
    chord = stop - start
    length = np.linalg.norm(chord, axis=1, keepdims=True)
    aside = np.minimum(ASIDE_MM, ASIDE_SHARE * length) * chord / length
    start, stop = start + aside, stop - aside
    # Long bundles run deep, short ones just below the cortex: cubic Bezier curves drawn to the centre.
    pull = np.clip(0.25 + length / 250, 0.25, 0.75)
    t = np.linspace(0, 1, STEPS + 1)[:, None, None]
    spine = (
        (1 - t) ** 3 * start
        + 3 * (1 - t) ** 2 * t * (start * (1 - pull))
        + 3 * (1 - t) * t**2 * (stop * (1 - pull))
        + t**3 * stop
    )
    tangent = np.gradient(spine, axis=0)
    tangent /= np.linalg.norm(tangent, axis=2, keepdims=True)
    normal = np.cross(tangent, np.cross(start, stop) + 1e-3)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    binormal = np.cross(tangent, normal)
    radius = np.sqrt(MEAN_AREA_MM2 / np.pi * np.exp(log_weights[bundles] - REFERENCE_LOG_WEIGHT))[:, None]
    # Sunflower points fill the tube's cross-section evenly.
    k = np.arange(STRANDS)
    u, angle = np.sqrt((k + 0.5) / STRANDS), np.pi * (3 - np.sqrt(5)) * k
    across = (u * np.cos(angle))[:, None, None, None] * normal + (u * np.sin(angle))[
        :, None, None, None
    ] * binormal
    strands = (spine + radius * across) @ pose.matrix.T + pose.shift_mm
    pieces = np.diff(strands, axis=1)
    middle = (strands[:, 1:] + strands[:, :-1]) / 2
    index = np.rint((middle - affine[:3, 3]) / affine[0, 0]).astype(np.int64)
    ok = ((index >= 0) & (index < shape)).all(axis=-1)
    flat = np.ravel_multi_index(tuple(np.moveaxis(np.where(ok[..., None], index, 0), -1, 0)), shape)
    key = flat * len(bundles) + np.arange(len(bundles))
    keys, slot = np.unique(key[ok], return_inverse=True)
    size = np.linalg.norm(pieces, axis=3)
    area = np.broadcast_to(np.pi * radius[:, 0] ** 2 / STRANDS, size.shape)
    fraction = np.bincount(slot, weights=(size * area)[ok]) / affine[0, 0] ** 3
    along = np.column_stack([np.bincount(slot, weights=pieces[..., axis][ok]) for axis in range(3)])
    direction = along.astype(np.float64) / np.linalg.norm(along, axis=1, keepdims=True)
    return keys // len(bundles), keys % len(bundles), fraction.astype(np.float64), direction


def _signal(
    scheme: Scheme,
    voxel: NDArray[np.int64],
    fraction: Floats,
    direction: Floats,
    *,
    brain: NDArray[np.bool_],
    depth: Floats,
) -> Floats:
    """Add up the signal without noise: fibres, tissue and free water, each with a tensor of its own."""
    b = scheme.b_values_s_per_mm2
    along, across = FIBRE_MM2_PER_S
    fibres = np.bincount(voxel, weights=fraction, minlength=brain.size)
    water = np.where(brain, 0.03 + 0.12 * np.clip((depth - 0.9) / 0.1, 0, 1), 0).ravel()
    rest = np.where(brain.ravel(), 1 - fibres, 0)
    signal = np.empty((brain.size, len(b)))
    for v in range(len(b)):
        cosine = direction @ scheme.directions[v]
        attenuation = np.exp(-b[v] * (across + (along - across) * cosine**2))
        signal[:, v] = np.bincount(voxel, weights=fraction * attenuation, minlength=brain.size)
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
