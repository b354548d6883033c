"""Bundles: the courses of white matter between the regions of a simulated brain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.simulation.anatomy import anatomy

BRAIN_SEMI_AXES_MM = np.array([62.0, 78.0, 55.0])
"""Of the ellipsoid that stands for a child's brain, in the atlas's space."""
ENDS_AT = 0.90
"""Bundles end at this share of the semi-axes, well inside the cortex."""
ASIDE_MM, ASIDE_SHARE = 7.0, 0.15
"""Bundles end this far from their region's centre towards their partner, or this share of the way if less."""
MEAN_AREA_MM2 = 60.0
"""Cross-section of a bundle whose log weight is `REFERENCE_LOG_WEIGHT`."""
REFERENCE_LOG_WEIGHT = 4.3
FAINTEST_LOG_WEIGHT = 1.0
"""Bundles below this are not drawn: less than 4 % of the mean cross-section."""
MOST_AREA_MM2 = 7000.0
"""Cross-section of all bundles of a mean head together that there is room for; phantom-28 has 4,428."""
STRANDS, STEPS = 48, 64
"""Each bundle is this many strands of this many pieces."""


@dataclass(frozen=True)
class Fibres:
    """What bundles are in which voxels: one entry for each voxel that a bundle meets.

    Attributes
    ----------
    voxel : (n,) int64
        Position in the flattened grid.
    bundle : (n,) int64
        Position among the bundles that were laid.
    fraction : (n,) float64
        Volume of the bundle in the voxel, in voxels.
    direction : (n, 3) float64
        Unit vector in RAS+ space.

    """

    voxel: NDArray[np.int64]
    bundle: NDArray[np.int64]
    fraction: Floats
    direction: Floats


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


def excess_log_weight(atlas: Atlas) -> float:
    """Return by how much an atlas's log weights are too large for its mean bundles to fit into a brain.

    Weights of larger atlases are on the scale of a real scan's streamlines. What goes below the faintest when
    it is taken off is not drawn, and leaves room for the others.
    """
    mean, excess = anatomy(atlas).mean, 0.0
    while (area := _area_mm2(mean - excess)) > MOST_AREA_MM2 * (1 + 1e-6):
        excess += float(np.log(area / MOST_AREA_MM2))
    return excess


def _area_mm2(log_weights: Floats) -> float:
    drawn = log_weights[log_weights > FAINTEST_LOG_WEIGHT]
    return float(MEAN_AREA_MM2 * np.exp(drawn - REFERENCE_LOG_WEIGHT).sum())


def lay_bundles(
    atlas: Atlas,
    log_weights: Floats,
    bundles: NDArray[np.int64],
    *,
    pose: Pose,
    affine: Floats,
    shape: tuple[int, ...],
) -> Fibres:
    """Lay bundles into a grid of cubes: bent tubes with a cross-section proportional to their weight.

    Parameters
    ----------
    atlas : Atlas
    log_weights : (E,) float64
        In the order of ``Atlas.edges``.
    bundles : (B,) int64
        The edges to be laid.
    pose : Pose
    affine : (4, 4) float64
        Voxels to millimetres, without rotation.
    shape : (3,) int

    Returns
    -------
    Fibres
        Voxels may be overfull where bundles cross.

    """
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
    x, y = ((u * wave(angle))[:, None, None, None] for wave in (np.cos, np.sin))
    across = x * normal + y * binormal
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
    return Fibres(keys // len(bundles), keys % len(bundles), fraction.astype(np.float64), direction)
