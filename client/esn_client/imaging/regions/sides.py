"""Sides: whether a T1w image of the same child, by a header of its own, has left where the scan has it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.regions.registration import quiet, thinned
from esn_core.arrays import Floats


@dataclass(frozen=True)
class SidesEvidence:
    """How well the T1w image fits the scan as it is, and as its mirror image.

    A brain is nearly symmetric, but nobody else's mirror image: folds and ventricles of one child differ from
    side to side by millimetres.

    Attributes
    ----------
    as_it_is, mirrored : float
        Mutual information of T1w image and b0 in the brain, each after a rigid registration of its own.
    linear : (4, 4) float64
        From mm in the scan to mm in the T1w image as it is.

    """

    as_it_is: float
    mirrored: float
    linear: Floats

    @property
    def margin_percent(self) -> float:
        """By how much more the image fits as it is than mirrored; negative where the mirror image fits."""
        return 100.0 * (self.as_it_is - self.mirrored) / max(self.as_it_is, self.mirrored, 1e-12)


def compare_sides(
    image: Floats,
    image_affine: Floats,
    b0: Floats,
    mask: NDArray[np.bool_],
    affine: Floats,
    *,
    lesion: NDArray[np.bool_] | None = None,
) -> SidesEvidence:
    """Register a T1w image to a scan's b0 twice: as it is, and mirrored at the middle of the scan's brain.

    Both by mutual information (Mattes et al. 2003, IEEE TMI 22:120; DIPY), six degrees of freedom.

    Parameters
    ----------
    image : (X, Y, Z) float64
        The T1w image, 0 outside of the brain.
    image_affine : (4, 4) float64
        Voxels to mm, RAS+.
    b0 : (X, Y, Z) float64
    mask : (X, Y, Z) bool
        The brain in the scan.
    affine : (4, 4) float64
        Of the scan.
    lesion : (X, Y, Z) bool, optional
        What is marked as lost; it has no say.

    Returns
    -------
    SidesEvidence

    """
    middle = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * middle[0]
    static = np.where(mask, b0, 0.0)
    where = None if lesion is None else (~lesion).astype(np.int32)
    linear, best = _register(image, image_affine, static, affine, where)
    _, other = _register(image, mirror @ image_affine, static, affine, where)
    return SidesEvidence(best, other, linear)


def _register(
    image: Floats, image_affine: Floats, static: Floats, affine: Floats, where: NDArray[np.int32] | None
) -> tuple[Floats, float]:
    """Give the rigid movement, and the mutual information that it reaches."""
    from dipy.align import affine_registration

    thin, thin_affine = thinned(affine)
    with quiet():
        _, linear, _, lost = affine_registration(
            image,
            static[thin],
            moving_affine=image_affine,
            static_affine=thin_affine,
            pipeline=["center_of_mass", "translation", "rigid"],
            level_iters=[1000, 100],
            sigmas=[1.5, 0],
            factors=[2, 1],
            static_mask=None if where is None else where[thin],
            ret_metric=True,
        )
    return linear, -float(lost)
