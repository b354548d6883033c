"""Rigid registration of two images of one head, by Gauss-Newton steps on the squared difference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from esn_client.imaging.preprocessing.sampling import sample_lines
from esn_core.arrays import Floats

SMOOTHING_VOXELS = (2.0, 0.7)
"""Sd of the smoothing, rough to fine: a wide one finds large movements, a narrow one is exact."""
MOST_STEPS = 25
LEAST_STEP_MM = 2e-3
"""A step that moves no point of the head further ends the search."""
OUTLIER_SDS = 3.0
"""Voxels that differ by more than about this many robust sds hardly count."""


@dataclass(frozen=True)
class Place:
    """Where two images are compared.

    Attributes
    ----------
    affine : (4, 4) float64
        Of the grid of both, voxels to mm.
    voxels : (N, 3) int64
        Those that are compared: the head, and a rim around it.
    centre_mm : (3,) float64
        Turns are about this point.
    radius_mm : float
        What a turn by one radian is compared with a shift by.

    """

    affine: Floats
    voxels: NDArray[np.int64]
    centre_mm: Floats
    radius_mm: float

    @property
    def points_mm(self) -> Floats:
        """The (N, 3) voxels in mm."""
        return np.asarray(self.voxels @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)


def register(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    place: Place,
    *,
    start: Floats,
    near: bool = False,
) -> Floats:
    """Find the rigid movement that takes points of one image to the same points of the other.

    Minimises the squared difference between the moving image and a times the fixed one plus b over movement,
    a and b (inverse composition: Baker & Matthews 2004, IJCV 56:221), with robust weights.

    Parameters
    ----------
    fixed, moving : (X, Y, Z) float32
    place : Place
    start : (4, 4) float64
        Where to begin.
    near : bool
        Whether that is within a fraction of a voxel already: then the narrow smoothing is enough.

    Returns
    -------
    (4, 4) float64
        From mm in `fixed` to mm in `moving`.

    """
    movement = start.copy()
    to_voxel = np.linalg.inv(place.affine)
    points, limit = place.points_mm, np.array(fixed.shape) - 1
    for sd in SMOOTHING_VOXELS[-1:] if near else SMOOTHING_VOXELS:
        target, source = gaussian_filter(fixed, sd), gaussian_filter(moving, sd)
        design = _design(target, place)
        for _ in range(MOST_STEPS):
            at = to_voxel @ movement
            values = sample_lines(source, at, points).astype(np.float64)
            coordinates = points @ at[:3, :3].T + at[:3, 3]
            seen = np.all((coordinates >= 0) & (coordinates <= limit), axis=1)
            shift, turn = _step(design, values, seen)
            movement = movement @ np.linalg.inv(movement_of(shift, turn, place.centre_mm))
            if np.abs(shift).max() + place.radius_mm * np.abs(turn).max() < LEAST_STEP_MM:
                break
    return movement


def movement_of(shift_mm: Floats, turn_rad: Floats, centre_mm: Floats) -> Floats:
    """Give the (4, 4) movement that turns about a centre and then shifts."""
    movement = np.eye(4)
    movement[:3, :3] = Rotation.from_rotvec(turn_rad).as_matrix()
    movement[:3, 3] = centre_mm + shift_mm - movement[:3, :3] @ centre_mm
    return movement


def shift_of(movement: Floats, centre_mm: Floats) -> Floats:
    """Give the (3,) shift of a point by a movement, in mm."""
    return np.asarray(movement[:3, :3] @ centre_mm + movement[:3, 3] - centre_mm, dtype=np.float64)


def turn_of(movement: Floats) -> Floats:
    """Give the (3,) rotation vector of a rigid movement, in radians."""
    return np.asarray(Rotation.from_matrix(movement[:3, :3]).as_rotvec(), dtype=np.float64)


def numbers_of(movement: Floats, place: Place) -> Floats:
    """Give a movement's (6,) numbers: shift in mm of the head's centre, and turn about it in radians."""
    return np.array([*shift_of(movement, place.centre_mm), *turn_of(movement)])


def _design(fixed: NDArray[np.float32], place: Place) -> Floats:
    """Give the (N, 8) derivatives of the fixed image by shift (3), turn (3), scale and offset."""
    where = tuple(place.voxels.T)
    by_voxel = np.stack([np.gradient(fixed.astype(np.float64), axis=a)[where] for a in range(3)], axis=1)
    by_shift = by_voxel @ np.linalg.inv(place.affine)[:3, :3]
    # d/dw of F(c + exp(w) (x - c)) = (x - c) x grad F.
    by_turn = np.cross(place.points_mm - place.centre_mm, by_shift)
    level = fixed[where].astype(np.float64)
    return np.column_stack([by_shift, by_turn, level, np.ones_like(level)])


def _step(design: Floats, values: Floats, seen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Solve the linear problem, once plainly and once with outliers weighted down."""
    weight = seen.astype(np.float64)
    solution = np.zeros(design.shape[1])
    for _ in range(2):
        weighted = design * weight[:, None]
        # The pseudo-inverse: an image without structure asks for no step.
        solution = np.asarray(np.linalg.lstsq(weighted.T @ design, weighted.T @ values, rcond=1e-12)[0])
        rest = values - design @ solution
        scale = OUTLIER_SDS * 1.4826 * float(np.median(np.abs(rest[seen]))) if seen.any() else 0.0
        weight = seen / (1 + (rest / scale) ** 2) ** 2 if scale else weight  # Geman and McClure
    scaling = solution[6]
    if scaling <= 0:
        return np.zeros(3), np.zeros(3)
    return solution[:3] / scaling, solution[3:6] / scaling
