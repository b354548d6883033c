"""Labels in T1 space, carried to the scan by a rigid registration of the T1w image to the b0."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, binary_closing, binary_fill_holes

from esn_client.imaging.regions.registration import (
    misplaced_fraction,
    require_all,
    turn_and_scale,
    volumes_mm3,
)
from esn_client.imaging.regions.sides import compare_sides
from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError

CLOSING_VOXELS = 3
"""Labels of cortex and deep nuclei leave white matter open; so much is closed before holes are filled."""
LEAST_OVERLAP = 0.7
"""Dice's coefficient of the labelled brain and the scan's mask: cortex is cut off one and meninges are left
on the other, which
costs some .15; heads that lie elsewhere have less than half."""

SURE_MARGIN_PERCENT = 2.0
"""Of mutual information, by which one side is sure: 6.7 % on a real head, 0 on a symmetric one."""


@dataclass(frozen=True)
class T1Labels:
    """Labels on the scan's grid, with the numbers that say whether to trust them.

    Attributes
    ----------
    labels : (X, Y, Z) int64
        Region indices, 0 elsewhere.
    rotation_deg, shift_mm : float
        By which the T1w image had to be moved.
    overlap : float
        Dice's coefficient of the labelled brain, moved, and the scan's mask.
    sides_margin_percent : float
        By how much better the T1w image fits as it is than mirrored.
    misplaced_fraction : float
        Share of the labelled voxels of left and right regions on the wrong side of the median plane.
    volume_ratio : (R,) float64
        Each region's volume on the scan's grid over its volume in T1 space; 0 where it has none in either.

    """

    labels: NDArray[np.int64]
    rotation_deg: float
    shift_mm: float
    overlap: float
    sides_margin_percent: float
    misplaced_fraction: float
    volume_ratio: Floats


@dataclass(frozen=True)
class T1Anatomy:
    """A T1w image and its labels, on one grid.

    Attributes
    ----------
    image : (X, Y, Z) float64
    labels : (X, Y, Z) int64
        Region indices of the atlas, 0 elsewhere.
    brain : (X, Y, Z) bool
        All that the segmentation calls brain, white matter and ventricles included where it has them.
    affine : (4, 4) float64
        Voxels to mm, RAS+.

    """

    image: Floats
    labels: NDArray[np.int64]
    brain: NDArray[np.bool_]
    affine: Floats


def brain_of(labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close the gaps that a segmentation leaves in a brain."""
    closed = binary_closing(np.pad(labelled, CLOSING_VOXELS), iterations=CLOSING_VOXELS)
    inner = tuple(slice(CLOSING_VOXELS, -CLOSING_VOXELS) for _ in range(3))
    return np.asarray(binary_fill_holes(closed)[inner], dtype=np.bool_)


def lay_t1_labels(
    anatomy: T1Anatomy,
    b0: Floats,
    mask: NDArray[np.bool_],
    affine: Floats,
    *,
    atlas: Atlas,
    lesion: NDArray[np.bool_] | None = None,
) -> T1Labels:
    """Move a T1w image's labels to where the head was in the scan.

    T1w image and b0 have opposite contrasts: they are compared by mutual information, brain to brain, as
    they are and mirrored (`compare_sides`): two headers that say different sides are refused. Each voxel of
    the scan takes the label that its centre falls on.

    Parameters
    ----------
    anatomy : T1Anatomy
    b0 : (X, Y, Z) float64
    mask : (X, Y, Z) bool
        The brain in the scan.
    affine : (4, 4) float64
        Of the scan, voxels to mm, RAS+.
    atlas : Atlas
    lesion : (X, Y, Z) bool, optional
        What is marked as lost; it has no say.

    Returns
    -------
    T1Labels

    Raises
    ------
    DataError
        The two brains do not come to lie on each other, one is the other's mirror image, or a region of the
        T1w image has no voxel on the scan's grid.

    """
    sides = compare_sides(
        np.where(anatomy.brain, anatomy.image, 0.0), anatomy.affine, b0, mask, affine, lesion=lesion
    )
    linear = sides.linear
    at = np.linalg.inv(anatomy.affine) @ linear @ affine

    def carry(volume: NDArray[np.int64]) -> NDArray[np.int64]:
        return affine_transform(volume, at[:3, :3], at[:3, 3], output_shape=mask.shape, order=0)

    labels, brain = carry(anatomy.labels), carry(anatomy.brain.astype(np.int64)) > 0
    overlap = 2 * float((brain & mask).sum()) / float(brain.sum() + mask.sum())
    if overlap < LEAST_OVERLAP:
        raise DataError(
            f"the T1w image's brain and the scan's overlap by {overlap:.2f} after a rigid registration "
            f"({LEAST_OVERLAP:g} or more "
            "is needed): are both of the same head and session, and whole?"
        )
    if sides.margin_percent < -SURE_MARGIN_PERCENT:
        raise DataError(
            f"the T1w image fits the scan {-sides.margin_percent:.0f} % better mirrored than as it is: one "
            "of the two headers has left for right; convert both again from DICOM, and never repair one by "
            "hand"
        )
    centre_mm = np.argwhere(mask).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    before, after = (
        volumes_mm3(v, atlas, a) for v, a in ((anatomy.labels, anatomy.affine), (labels, affine))
    )
    lost = (before > 0) & (after == 0)
    require_all([name for name, away in zip(atlas.names, lost, strict=True) if away], atlas)
    turn, _ = turn_and_scale(linear)
    return T1Labels(
        labels,
        rotation_deg=turn,
        shift_mm=float(np.linalg.norm(linear[:3, :3] @ centre_mm + linear[:3, 3] - centre_mm)),
        overlap=overlap,
        sides_margin_percent=sides.margin_percent,
        misplaced_fraction=misplaced_fraction(labels, atlas, affine),
        volume_ratio=after / np.where(before > 0, before, np.inf),
    )
