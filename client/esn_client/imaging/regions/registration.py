"""Atlas regions in a subject's space: FA template to FA, and the labels with it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import polar
from scipy.ndimage import affine_transform, distance_transform_edt
from scipy.spatial.transform import Rotation

from esn_client.imaging.regions.atlas_volume import read_image, read_labels, unpacked_labels
from esn_core.arrays import Floats
from esn_core.connectome.atlas import SHIPPED, VOLUME, Atlas, label_volume
from esn_core.errors import DataError

TEMPLATE = "mni-fa-2mm.nii.gz"
RIM_MM = 4.5
"""FA at the rim of the brain is noise: so much of it is left out of the subject's. The template's FA lacks as
much. Its 1,541 mL are those that remain of the 1,797 to 1,889 mL around the two atlases' labels, 3.5 to 5 mm
below their surface."""
AFFINE_SPACING_MM = 5.2
"""The affine looks at every second voxel, third and so on, up to this distance: for twelve numbers an eighth
of a head's voxels says as much as all of them. They are not blurred for it; at 7.2 mm they are too few."""
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
    template_fa : (X, Y, Z) float32
        The template, bent to the subject.
    correlation : float
        Of template and subject's FA in the brain without its rim.
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
    template_fa: NDArray[np.float32]
    correlation: float
    rotation_deg: float
    scale: float
    misplaced_fraction: float
    volume_ratio: Floats
    missing: tuple[str, ...]


def register_atlas(
    fa: Floats,
    mask: NDArray[np.bool_],
    affine: Floats,
    *,
    atlas: Atlas,
    volume: bytes | None = None,
    lesion: NDArray[np.bool_] | None = None,
) -> Registration:
    """Lay an atlas over a subject through its FA.

    The FA template goes to the subject's FA by an affine (mutual information) and then by symmetric
    diffeomorphisms (Avants et al. 2008, Med Image Anal 12:26; DIPY). The labels follow, each voxel taking the
    nearest. A lesion has no say in the affine; before the bending it is filled with the template, so that
    nothing is drawn
    into it (in the manner of Nachev et al. 2008, NeuroImage 39:1215, who fill it from the other hemisphere).

    Parameters
    ----------
    fa : (X, Y, Z) float64
    mask : (X, Y, Z) bool
        The brain.
    affine : (4, 4) float64
        Voxels to mm, RAS+.
    atlas : Atlas
    volume : bytes, optional
        Label volume that came with the protocol, in MNI space; without it, that of the atlas which ships.
    lesion : (X, Y, Z) bool, optional
        What is marked as lost.

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
    core = _without_rim(mask, affine)
    if core.sum() < LEAST_BRAIN_VOXELS or np.ptp(fa[core]) == 0:
        raise DataError(
            f"an atlas cannot be registered to {core.sum()} voxels of brain with FA of "
            f"{fa[core].min(initial=1):.2g} to {fa[core].max(initial=0):.2g}"
        )
    labels, labels_affine = (
        read_labels(label_volume(atlas.name), atlas)
        if volume is None
        else unpacked_labels(volume, atlas, name=f"{atlas.name}{VOLUME}")
    )
    template, grid = read_image(SHIPPED / TEMPLATE)
    target, inside, padded_affine = _padded(np.where(core, fa, 0.0), affine)
    lost = None if lesion is None else _padded(lesion, affine)[0]
    thin, thin_affine = thinned(padded_affine)
    from dipy.align import affine_registration, syn_registration

    with quiet():
        _, linear = affine_registration(
            template,
            target[thin],
            pipeline=["center_of_mass", "translation", "rigid", "affine"],
            level_iters=[1000, 100],
            sigmas=[1.5, 0],
            factors=[2, 1],
            moving_affine=grid,
            static_affine=thin_affine,
            static_mask=None if lost is None else (~lost[thin]).astype(np.int32),
        )
        if lost is not None:
            laid_fa = _laid(template, grid, linear, padded_affine, target.shape)
            target = np.where(lost, laid_fa, target)
        warped, bend = syn_registration(
            template,
            target,
            prealign=linear,
            level_iters=[10, 10, 5],
            moving_affine=grid,
            static_affine=padded_affine,
        )
    laid = np.rint(
        bend.transform(
            labels.astype(np.float64),
            interpolation="nearest",
            image_world2grid=np.linalg.inv(labels_affine),
            out_shape=fa.shape,
            out_grid2world=affine,
        )
    ).astype(np.int64)
    turn, scale = turn_and_scale(linear)
    laid_mm3 = volumes_mm3(laid, atlas, affine)
    return Registration(
        labels=laid,
        template_fa=np.asarray(warped, dtype=np.float32)[inside],
        correlation=_correlation(np.asarray(warped)[inside], target[inside], core),
        rotation_deg=turn,
        scale=scale,
        misplaced_fraction=misplaced_fraction(laid, atlas, affine),
        volume_ratio=laid_mm3 / (volumes_mm3(labels, atlas, labels_affine) * scale),
        missing=tuple(name for name, v in zip(atlas.names, laid_mm3, strict=True) if v == 0),
    )


def require_all(missing: Sequence[str], atlas: Atlas) -> None:
    """Do nothing where no region is missing on the scan's grid; `DataError` otherwise."""
    if missing:
        raise DataError(
            f"{len(missing)} regions of atlas {atlas.name} lie outside of the scan, such as {missing[0]}; is "
            "the brain cut off?"
        )


def _without_rim(brain: NDArray[np.bool_], affine: Floats) -> NDArray[np.bool_]:
    """Leave out the voxels whose centres are within `RIM_MM` of the brain's surface or the image's edge."""
    size_mm = np.linalg.norm(affine[:3, :3], axis=0)
    to_air_mm = distance_transform_edt(np.pad(brain, 1), sampling=tuple(size_mm))[1:-1, 1:-1, 1:-1]
    # The surface lies half-way to the first voxel of air.
    return np.asarray(to_air_mm - size_mm.mean() / 2 > RIM_MM)


def thinned(affine: Floats) -> tuple[tuple[slice, ...], Floats]:
    """Choose voxels that are no further apart than `AFFINE_SPACING_MM`, and say where they lie."""
    steps = np.maximum(AFFINE_SPACING_MM // np.linalg.norm(affine[:3, :3], axis=0), 1).astype(int)
    return tuple(slice(None, None, step) for step in steps), affine @ np.diag([*steps, 1.0])


def _laid(template: Floats, grid: Floats, linear: Floats, affine: Floats, shape: tuple[int, ...]) -> Floats:
    """Lay the template over the subject by the affine alone."""
    at = np.linalg.inv(grid) @ linear @ affine
    return np.asarray(affine_transform(template, at[:3, :3], at[:3, 3], output_shape=shape, order=1))


def _padded(image: NDArray[Any], affine: Floats) -> tuple[NDArray[Any], tuple[slice, ...], Floats]:
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
def quiet() -> Iterator[None]:
    """Keep DIPY's running commentary out of stdout, where results go."""
    log = logging.getLogger("dipy")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def turn_and_scale(linear: Floats) -> tuple[float, float]:
    """Give the angle of an affine's rotation in degrees, and how much more volume its origin has."""
    determinant = float(np.linalg.det(linear[:3, :3]))
    if determinant <= 0:
        return 180.0, 1 / abs(determinant) if determinant else 0.0
    rotation, _ = polar(linear[:3, :3])
    return float(np.degrees(Rotation.from_matrix(rotation).magnitude())), 1 / determinant


def volumes_mm3(labels: NDArray[np.int64], atlas: Atlas, affine: Floats) -> Floats:
    """Give the (R,) volumes of the regions."""
    counts = np.bincount(labels.ravel(), minlength=max(region.index for region in atlas.regions) + 1)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    return np.array([counts[region.index] * voxel_mm3 for region in atlas.regions], dtype=np.float64)


def misplaced_fraction(labels: NDArray[np.int64], atlas: Atlas, affine: Floats) -> float:
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
