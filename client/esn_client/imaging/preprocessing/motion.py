"""Motion: where the head was in each volume, and the scan as if it had not moved."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from esn_client.imaging.preprocessing.displacement import Displacement, framewise_displacement
from esn_client.imaging.preprocessing.eddy import without_eddy
from esn_client.imaging.preprocessing.gradient_table import Gradients, shells_of
from esn_client.imaging.preprocessing.rigid import Place, movement_of, numbers_of, register
from esn_client.imaging.preprocessing.sampling import resample_lines, resample_splines
from esn_core.errors import DataError

MOST_ROUNDS = 5
"""How often the weighted volumes are registered to what the others predict, at most."""
STILL_MM = 0.1
"""A round that moved the volumes by less, on average over them, was the last. On a real head, rounds 2 to 5
moved them by .23, .14, .10 and .07 mm."""
COARSE_MM = 4.5
"""Volumes are registered on a grid of about this spacing."""
NEAR_MM = 1.0
"""A volume that was moved by less in the round before starts near enough for the narrow smoothing alone."""
RIM_MM = 10.0
"""Registration looks this far beyond the brain."""
LEAST_SIGNAL = 1e-3
"""Of the brightest voxel; what is darker counts as this bright where a logarithm is taken."""
LEAST_VOXELS = 200
"""Of the brain on the coarse grid."""
NEAR_VOLUMES = 3
"""A b0 is joined to so many weighted volumes on either side: the middle one of three is no single jerk."""


@dataclass(frozen=True)
class Motion:
    """A scan put where its head was in the first b0, and how the head moved.

    Attributes
    ----------
    signal : (X, Y, Z, V) float32
        Resampled by cubic splines, not negative.
    gradients : Gradients
        Turned with the head.
    transforms : (V, 4, 4) float64
        Each takes a point of the still head to where it was in the volume, in mm, RAS+: moved by the head and
        by eddy currents.
    displacement : Displacement
    radius_mm : float
        The mean distance of the brain's voxels from their centre, 50 mm in Power's adults.

    """

    signal: NDArray[np.float32]
    gradients: Gradients
    transforms: NDArray[np.float64]
    displacement: Displacement
    radius_mm: float


def correct_motion(
    signal: NDArray[np.float32],
    gradients: Gradients,
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> Motion:
    """Find the head in every volume and put all volumes where it was in the first b0.

    Volumes are registered on a coarse grid. The b0s go to the first of them, then to their mean. Each
    weighted volume starts where the nearest b0 is and goes to what a tensor fitted to the others predicts
    for its direction (in the manner of Andersson & Sotiropoulos 2016, NeuroImage 125:1063, without eddy
    currents). A mean of all directions would be no target: a volume looks moved where its fibres are dark.
    b0s and weighted volumes have different contrasts, through which a registration is off by millimetres;
    the two are joined in time instead: at a b0, the head is where it is in the weighted volumes before and
    after, in the median over all such b0s, once the part of their movement that is linear in the gradient is
    taken out. That part is the eddy currents'; a volume beside a b0 may be shifted by a millimetre of it.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
        Denoised or not.
    gradients : Gradients
        b0s, and one shell or more, in any order.
    affine : (4, 4) float64
        Voxels to mm, RAS+.
    mask : (X, Y, Z) bool
        The brain.

    Returns
    -------
    Motion

    Raises
    ------
    DataError
        Shapes differ, there is no b0, or the brain is too small to be followed.

    """
    if signal.ndim != 4 or signal.shape[:3] != mask.shape or signal.shape[3] != len(gradients.is_b0):
        raise DataError(
            f"signal {signal.shape}, mask {mask.shape} and {len(gradients.is_b0)} gradients do not fit"
        )
    if not gradients.is_b0.any():
        raise DataError("motion is measured from the first b0; there is none")
    coarse, brain, place = _shrink(signal, affine, mask)
    transforms, head = _follow(coarse, gradients, brain, place)
    corrected, to_voxel = np.empty_like(signal), np.linalg.inv(affine)
    for v, transform in enumerate(transforms):
        still = np.array_equal(transform, np.eye(4))
        moved = signal[..., v] if still else resample_splines(signal[..., v], to_voxel @ transform @ affine)
        corrected[..., v] = np.maximum(moved, 0)

    def displacement(path: NDArray[np.float64]) -> NDArray[np.float64]:
        return framewise_displacement(path, centre_mm=place.centre_mm, radius_mm=place.radius_mm)

    eddy = [displacement(np.stack(pair))[1] for pair in zip(head, transforms, strict=True)]
    return Motion(
        corrected,
        turn_gradients(gradients, head, affine),
        transforms,
        Displacement(
            displacement(head),
            np.array(eddy),
            displacement(head[gradients.is_b0])[1:],
        ),
        place.radius_mm,
    )


def turn_gradients(
    gradients: Gradients, transforms: NDArray[np.float64], affine: NDArray[np.float64]
) -> Gradients:
    """Turn gradient directions back by as much as the head turned (Leemans & Jones 2009, MRM 61:1336).

    Parameters
    ----------
    gradients : Gradients
    transforms : (V, 4, 4) float64
        As in `Motion`.
    affine : (4, 4) float64
        Of the image along whose axes the directions are.

    Returns
    -------
    Gradients

    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    in_world = gradients.directions @ axes.T
    turned = np.einsum("vji,vj->vi", transforms[:, :3, :3], in_world)
    return replace(gradients, directions=np.linalg.solve(axes, turned.T).T)


def _shrink(
    signal: NDArray[np.float32], affine: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], Place]:
    """Average blocks of voxels of signal and mask to about `COARSE_MM`, and choose where to compare."""
    size_mm = np.linalg.norm(affine[:3, :3], axis=0)
    factor = np.maximum(np.rint(COARSE_MM / size_mm).astype(int), 1)
    shape = np.array(mask.shape) // factor
    whole = tuple(slice(0, n) for n in shape * factor)
    blocks = tuple(np.stack([shape, factor], axis=1).ravel())
    coarse = signal[whole].reshape(*blocks, -1).mean(axis=(1, 3, 5), dtype=np.float32)
    share = mask[whole].reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)
    brain = share >= 0.5
    if brain.sum() < LEAST_VOXELS:
        raise DataError(
            f"the brain has {brain.sum()} voxels of {'x'.join(f'{v:.3g}' for v in size_mm * factor)} mm; "
            f"{LEAST_VOXELS} or more are needed to follow it"
        )
    grid = affine.copy()
    grid[:3, :3] = affine[:3, :3] * factor
    grid[:3, 3] = affine[:3, :3] @ ((factor - 1) / 2) + affine[:3, 3]
    points = np.argwhere(brain) @ grid[:3, :3].T + grid[:3, 3]
    centre = points.mean(axis=0)
    radius = float(np.linalg.norm(points - centre, axis=1).mean())
    rim = binary_dilation(brain, iterations=max(round(RIM_MM / float((size_mm * factor).min())), 1))
    return coarse, share, Place(grid, np.argwhere(rim), centre, radius)


def _follow(
    coarse: NDArray[np.float32], gradients: Gradients, brain: NDArray[np.float32], place: Place
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the (V, 4, 4) movements of the image, and those of the head alone."""
    transforms = np.broadcast_to(np.eye(4), (coarse.shape[3], 4, 4)).copy()
    b0s, weighted = np.flatnonzero(gradients.is_b0), np.flatnonzero(~gradients.is_b0)
    to_voxel = np.linalg.inv(place.affine)

    def aligned(volumes: NDArray[np.int64]) -> NDArray[np.float32]:
        at = to_voxel @ transforms @ place.affine
        return np.stack([resample_lines(coarse[..., v], at[v]) for v in volumes], axis=-1)

    if len(b0s) > 1:
        target = coarse[..., b0s[0]]
        for near in (False, True):
            for v in b0s:
                transforms[v] = register(target, coarse[..., v], place, start=transforms[v], near=near)
            target = aligned(b0s).mean(axis=3)
        transforms[b0s] = transforms[b0s] @ np.linalg.inv(transforms[b0s[0]])
        transforms[b0s[0]] = np.eye(4)
    # A head that has moved by the next b0 has moved in between: begin at the b0 that is nearest in time.
    for v in weighted:
        transforms[v] = transforms[b0s[np.abs(b0s - v).argmin()]]
    head = transforms
    if not len(weighted):
        return transforms, head
    moved_mm = np.full(len(transforms), np.inf)
    for _ in range(MOST_ROUNDS):
        before = transforms.copy()
        turned = turn_gradients(gradients, head, place.affine)
        targets = _predict(aligned(weighted), turned[~gradients.is_b0], brain)
        for k, v in enumerate(weighted):
            near = bool(moved_mm[v] < NEAR_MM)
            transforms[v] = register(targets[..., k], coarse[..., v], place, start=transforms[v], near=near)
        head = without_eddy(transforms, gradients, place)
        join = _join(head, gradients.is_b0, place)
        transforms[weighted], head[weighted] = transforms[weighted] @ join, head[weighted] @ join
        moved_mm = _moved_mm(before, transforms, place)
        if moved_mm[weighted].mean() < STILL_MM:
            break
    return transforms, head


def _moved_mm(before: NDArray[np.float64], after: NDArray[np.float64], place: Place) -> NDArray[np.float64]:
    """Give how far each volume was moved: shifts, and turns times the radius of the head."""
    pairs = (np.stack(pair) for pair in zip(before, after, strict=True))
    return np.array(
        [
            framewise_displacement(pair, centre_mm=place.centre_mm, radius_mm=place.radius_mm)[1]
            for pair in pairs
        ]
    )


def _join(head: NDArray[np.float64], is_b0: NDArray[np.bool_], place: Place) -> NDArray[np.float64]:
    """Find the one movement of all weighted volumes that makes the head's path through the b0s smooth."""
    weighted = np.flatnonzero(~is_b0)
    gaps = []
    for k in np.flatnonzero(is_b0):
        sides = (weighted[weighted < k][-NEAR_VOLUMES:], weighted[weighted > k][:NEAR_VOLUMES])
        beside = [
            np.median([numbers_of(np.linalg.inv(head[v]) @ head[k], place) for v in side], axis=0)
            for side in sides
            if len(side)
        ]
        gaps.append(np.mean(beside, axis=0))
    middle = np.median(gaps, axis=0)
    return movement_of(middle[:3], middle[3:], place.centre_mm)


def _predict(
    volumes: NDArray[np.float32], gradients: Gradients, brain: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Predict each volume from the others: a tensor in the brain, the mean of its shell around it.

    Shifts that depend on the direction as a tensor does would be taken for anisotropy, and stay; around the
    brain there is none, so the outline shows them. Each further shell fades by an amount of its own.
    """
    x, y, z = gradients.directions.T
    b = gradients.b_values_s_per_mm2 / gradients.b_values_s_per_mm2.max()
    shells = shells_of(gradients)[1][:, None] == np.unique(shells_of(gradients)[1])
    quadratic = np.column_stack([x * x, y * y, z * z, x * y, y * z, x * z]) * b[:, None]
    basis, _ = np.linalg.qr(np.column_stack([quadratic, shells[:, 1:]]))
    hat = basis @ basis.T
    # Leaving volume k out changes its prediction to (p - h s) / (1 - h), with the leverage h = hat[k, k].
    leverage = np.minimum(np.diag(hat), 0.9)
    logs = np.log(np.maximum(volumes, LEAST_SIGNAL * volumes.max()))
    tensor = np.exp((logs @ hat - logs * leverage) / (1 - leverage))
    means = np.exp(logs @ (shells / shells.sum(axis=0))) @ shells.T
    inside = brain[..., None]
    return np.asarray(inside * tensor + (1 - inside) * means, dtype=np.float32)
