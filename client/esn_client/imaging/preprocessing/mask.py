"""Brain masks: where the brain is, and whether it can be one."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, label, median_filter

from esn_core.errors import DataError

LEAST_BRAIN_VOXELS = 500
BRIDGE_VOXELS = 2
"""What hangs on the brain by a bridge of up to twice this width, such as an eye, is cut off."""
BRAIN_ML = (400.0, 2500.0)
"""No head of a living child or adult holds less or more brain; an eye, or a whole head, does."""
MOST_CUT = 0.25
"""Where a brain ends at the edge of the image, the cut may have this share of its largest section."""


def find_brain(b0: NDArray[np.float64], weighted: NDArray[np.float64] | None = None) -> NDArray[np.bool_]:
    """Separate brain from air, eyes and scalp.

    What is brighter than Otsu's threshold in the smoothed b0 or in the mean weighted volume; what hangs on by
    a thin bridge is cut off, the largest piece kept, its holes filled. The weighted volume adds the
    brainstem, which is dark in the b0 of many scanners.

    Parameters
    ----------
    b0 : (X, Y, Z) float64
    weighted : (X, Y, Z) float64, optional
        The mean of the weighted volumes.

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    DataError
        Fewer than 500 voxels are bright.

    """
    bright = _bright(b0)
    if weighted is not None:
        bright |= _bright(weighted)
    core = _largest(binary_erosion(bright, iterations=BRIDGE_VOXELS))
    around = np.ones((3, 3, 3), dtype=bool)
    brain = binary_dilation(core, around, iterations=BRIDGE_VOXELS, mask=bright)
    if brain.sum() < LEAST_BRAIN_VOXELS:
        raise DataError(
            f"the brain has {brain.sum()} voxels in the b0; {LEAST_BRAIN_VOXELS} or more are needed"
        )
    return np.asarray(binary_fill_holes(brain), dtype=np.bool_)


def check_brain(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> None:
    """Refuse a mask that can be no whole brain.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    affine : (4, 4) float64
        Voxels to mm, RAS+.

    Raises
    ------
    DataError
        The mask is empty, has the volume of no brain, or ends in a large cut at an edge of the image. The
        lower end may be cut: the neck goes on.

    """
    if not mask.any():
        raise DataError("the brain mask is empty")
    volume_ml = float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
    if not BRAIN_ML[0] <= volume_ml <= BRAIN_ML[1]:
        raise DataError(
            f"the brain mask has {volume_ml:.0f} mL; a brain has {BRAIN_ML[0]:g} to {BRAIN_ML[1]:g} mL"
        )
    for side, cut in cut_shares(mask, affine).items():
        if cut > MOST_CUT and side != "below":
            raise DataError(
                f"the brain is cut off {side}: its section at the edge of the image has {cut:.0%} of the "
                f"largest one; {MOST_CUT:.0%} or less is needed"
            )


def cut_shares(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> dict[str, float]:
    """Measure how much brain lies in each outermost plane of an image, over the largest plane beside it.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    affine : (4, 4) float64

    Returns
    -------
    dict of str to float
        By side: ``left``, ``right``, ``behind``, ``in front``, ``below``, ``above``. 0 where the brain ends
        inside the image.

    """
    names = (("left", "right"), ("behind", "in front"), ("below", "above"))
    axes = np.abs(affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
    shares = {name: 0.0 for pair in names for name in pair}
    for axis in range(3):
        world = int(axes[:, axis].argmax())
        areas = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        ends = (areas[0], areas[-1]) if affine[world, axis] > 0 else (areas[-1], areas[0])
        for name, end in zip(names[world], ends, strict=True):
            shares[name] = max(shares[name], float(end / max(areas.max(), 1)))
    return shares


def _bright(image: NDArray[np.float64]) -> NDArray[np.bool_]:
    from dipy.segment.threshold import otsu

    smooth = median_filter(image, size=3)
    if smooth.min() == smooth.max():
        return np.zeros(image.shape, dtype=bool)
    return np.asarray(smooth > otsu(smooth), dtype=np.bool_)


def _largest(voxels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, _ = label(voxels)
    sizes = np.bincount(pieces.ravel())[1:]
    return np.asarray(pieces == 1 + sizes.argmax()) if sizes.size else voxels
