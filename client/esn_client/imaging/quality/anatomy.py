"""What a quality page shows of a visit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.displacement import Displacement
from esn_client.imaging.quality.residuals import PlainTensor
from esn_core.arrays import Floats


@dataclass(frozen=True)
class Anatomy:
    """What a page shows of a visit.

    Attributes
    ----------
    affine : (4, 4) float64
    is_b0 : (V,) bool
    plain : PlainTensor
    mask : (X, Y, Z) bool
    b0, fa : (X, Y, Z) float64
    regions : (X, Y, Z) int64
        Position in the atlas, or -1.
    lost : (X, Y, Z) bool
        Fluid, what gives no signal, and what is marked as lost.
    density : (X, Y, Z)
        Streamlines through each voxel.
    displacement : Displacement or None
        None if the scan was not aligned here.
    counts : (R, R) float64
    absent : (R,) bool
        Regions without tissue.
    scanned_directions, turned_directions : (V, 3) float64
        Along the voxel axes, before and after they were turned with the head; 0 where there is no weighting.
    transforms : (V, 4, 4) float64 or None
        Of the alignment; None if the scan was not aligned here.
    weighted_before, weighted_after : (X, Y, Z) float64
        The mean weighted volume as it was scanned, and as it was used.
    template : (X, Y, Z) or None
        The FA of the template, bent to the subject; None where regions came from elsewhere.

    """

    affine: Floats
    is_b0: NDArray[np.bool_]
    plain: PlainTensor
    mask: NDArray[np.bool_]
    b0: Floats
    fa: Floats
    regions: NDArray[np.int64]
    lost: NDArray[np.bool_]
    density: NDArray[Any]
    displacement: Displacement | None
    counts: Floats
    absent: NDArray[np.bool_]
    scanned_directions: Floats
    turned_directions: Floats
    transforms: Floats | None
    weighted_before: Floats
    weighted_after: Floats
    template: NDArray[Any] | None
