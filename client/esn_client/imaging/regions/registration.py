"""Atlas regions in a subject's space: FA template to FA, and the labels with it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dipy.align import affine_registration, syn_registration
from numpy.typing import NDArray
from scipy.linalg import polar
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from esn_client.imaging.regions.atlas_volume import read_image, read_labels
from esn_core.arrays import Floats
from esn_core.connectome.atlas import SHIPPED, Atlas, label_volume
from esn_core.errors import DataError

TEMPLATE = "mni-fa-2mm.nii.gz"
RIM_VOXELS = 2
"""FA at the rim of the brain is noise; so much of it is left out."""
LEAST_BRAIN_VOXELS = 500
LEAST_SIDE_VOXELS = 40
"""The bend is found at a quarter of the resolution too, where it compares windows of nine voxels."""


@dataclass(frozen=True)
class Registration:
    """An atlas laid over a subject, with the numbers that say whether to trust it.

    A registration fails silently: rotated by a quarter turn, it has all labels in the brain.

    Attributes
    ----------
    labels : (X, Y, Z) int64
        Region indices on the subject's grid, 0 elsewhere.
    correlation : float
        Of template and subject's FA in the brain without its rim.
    mirrored_correlation : float
        The same with the template's mirror image, from the same affine. Brains are nearly symmetric: only if
        it is clearly higher than `correlation` were left and right exchanged; in the one adult we measured,
        the two differed by up to .004, either way.
    rotation_deg : float
        By which the affine turns, after stretch and shear are taken out.
    scale : float
        Volume of the subject's brain over that of the template's, from the affine.
    misplaced_fraction : float
        Share of the labelled voxels of left and right regions on the wrong side of the median plane.
    volume_ratio : (R,) float64
        Each region's volume over the atlas's times `scale`; 0 where a region is missing.
    missing : tuple of str
        Regions without a voxel.

    """

    labels: NDArray[np.int64]
    correlation: float
    mirrored_correlation: float
    rotation_deg: float
    scale: float
    misplaced_fraction: float
    volume_ratio: Floats
    missing: tuple[str, ...]


def register_atlas(
    fa: Floats, mask: NDArray[np.bool_], affine: Floats, *, atlas: Atlas, volume: Path | None = None
) -> Registration:
    """Lay an atlas over a subject through its FA.

    The FA template goes to the subject's FA by an affine (mutual information) and then by symmetric
    diffeomorphisms (Avants et al. 2008, Med Image Anal 12:26; DIPY). The labels follow, each voxel taking the
    nearest.

    Parameters
    ----------
    fa : (X, Y, Z) float64
    mask : (X, Y, Z) bool
        The brain.
    affine : (4, 4) float64
        Voxels to mm, RAS+.
    atlas : Atlas
    volume : Path, optional
        Label volume of an atlas that does not ship with this package, in MNI space.

    Returns
    -------
    Registration

    Raises
    ------
    DataError
        The brain is too small or without contrast, the atlas has no label volume, or it does not show the
        atlas's regions.

    """
    if fa.shape != mask.shape:
        raise DataError(f"fa {fa.shape} and mask {mask.shape} do not fit")
    if not np.isfinite(fa).all():
        raise DataError("the FA has voxels that are not finite")
    core = binary_erosion(mask, iterations=RIM_VOXELS)
    if core.sum() < LEAST_BRAIN_VOXELS or np.ptp(fa[core]) == 0:
        raise DataError(
            f"an atlas cannot be registered to {core.sum()} voxels of brain with FA of "
            f"{fa[core].min(initial=1):.2g} to {fa[core].max(initial=0):.2g}"
        )
    labels, labels_affine = read_labels(volume or label_volume(atlas.name), atlas)
    template, grid = read_image(SHIPPED / TEMPLATE)
    target, inside, padded_affine = _padded(np.where(core, fa, 0.0), affine)
    space = {"moving_affine": grid, "static_affine": padded_affine}
    with _quiet():
        _, linear = affine_registration(
            template,
            target,
            pipeline=["center_of_mass", "translation", "rigid", "affine"],
            level_iters=[1000, 100, 10],
            sigmas=[3, 1, 0],
            factors=[4, 2, 1],
            **space,
        )
        bent = {"prealign": linear, "level_iters": [10, 10, 5], **space}
        warped, bend = syn_registration(template, target, **bent)
        # The template's grid is symmetric about x = 0: turned over, it is the mirror image in place.
        mirrored, _ = syn_registration(template[::-1], target, **bent)
    laid = np.rint(
        bend.transform(
            labels.astype(np.float64),
            interpolation="nearest",
            image_world2grid=np.linalg.inv(labels_affine),
            out_shape=fa.shape,
            out_grid2world=affine,
        )
    ).astype(np.int64)
    turn, scale = _turn_and_scale(linear)
    volumes_mm3 = _volumes_mm3(laid, atlas, affine)
    return Registration(
        labels=laid,
        correlation=_correlation(np.asarray(warped)[inside], target[inside], core),
        mirrored_correlation=_correlation(np.asarray(mirrored)[inside], target[inside], core),
        rotation_deg=turn,
        scale=scale,
        misplaced_fraction=_misplaced(laid, atlas, affine),
        volume_ratio=volumes_mm3 / (_volumes_mm3(labels, atlas, labels_affine) * scale),
        missing=tuple(name for name, v in zip(atlas.names, volumes_mm3, strict=True) if v == 0),
    )


def _padded(image: Floats, affine: Floats) -> tuple[Floats, tuple[slice, ...], Floats]:
    """Lay a coarse image into a grid that is large enough to be bent; tell where it lies there."""
    more = np.maximum(LEAST_SIDE_VOXELS - np.array(image.shape), 0)
    before = more // 2
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ before
    inside = tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=True))
    return np.pad(image, np.stack([before, more - before], axis=1)), inside, moved


def _correlation(a: Floats, b: Floats, where: NDArray[np.bool_]) -> float:
    if np.ptp(a[where]) == 0:
        return 0.0
    return float(np.corrcoef(a[where], b[where])[0, 1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep DIPY's running commentary out of stdout, where results go."""
    log = logging.getLogger("dipy")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _turn_and_scale(linear: Floats) -> tuple[float, float]:
    """Give the angle of an affine's rotation in degrees, and how much more volume its origin has."""
    determinant = float(np.linalg.det(linear[:3, :3]))
    if determinant <= 0:
        return 180.0, 1 / abs(determinant) if determinant else 0.0
    rotation, _ = polar(linear[:3, :3])
    return float(np.degrees(Rotation.from_matrix(rotation).magnitude())), 1 / determinant


def _volumes_mm3(labels: NDArray[np.int64], atlas: Atlas, affine: Floats) -> Floats:
    """Give the (R,) volumes of the regions."""
    counts = np.bincount(labels.ravel(), minlength=max(region.index for region in atlas.regions) + 1)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    return np.array([counts[region.index] * voxel_mm3 for region in atlas.regions], dtype=np.float64)


def _misplaced(labels: NDArray[np.int64], atlas: Atlas, affine: Floats) -> float:
    """Give the share of lateral voxels that lie beyond the middle between left and right regions, by x."""
    where = np.argwhere(labels)
    x_mm = where @ affine[0, :3] + affine[0, 3]
    side = np.zeros(labels.max() + 1)
    for region in atlas.regions:
        if region.index < len(side):
            side[region.index] = {"L": -1, "R": 1, "M": 0}[region.hemisphere]
    sides = side[labels[tuple(where.T)]]
    if not (sides < 0).any() or not (sides > 0).any():
        return 1.0
    # Mean of the two sides' medians; a mirrored brain has them exchanged, and all its voxels misplaced.
    middle_mm = (np.median(x_mm[sides < 0]) + np.median(x_mm[sides > 0])) / 2
    return float(np.mean(((x_mm - middle_mm) * sides)[sides != 0] < 0))
