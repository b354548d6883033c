"""Planes through a head: slices of a volume in the patient's own directions, however it is stored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

PIXEL_MM = 1.0
MARGIN_MM = 8.0
FOOT_MM = 14.0
"""Room below each plane for its name."""
AXIAL, CORONAL, SAGITTAL = 6, 3, 3
"""How many planes of each kind are shown."""
MORE = (12, 6, 6)
"""The same, where details matter."""
COLUMNS = 6


@dataclass(frozen=True)
class Planes:
    """Planes of equal size, in rows: all axial ones, then coronal and sagittal ones.

    Left of the patient is on the left of axial and coronal planes; sagittal planes look to the left, with the
    face on the left.

    Attributes
    ----------
    voxels : (rows, columns, H, W, 3) float64
        Voxel coordinates of each pixel.
    names : (rows, columns) nested tuple of str
        What each plane is, such as ``axial, z = 12 mm``.

    """

    voxels: NDArray[np.float64]
    names: tuple[tuple[str, ...], ...]

    @classmethod
    def through(
        cls,
        mask: NDArray[np.bool_],
        affine: NDArray[np.float64],
        *,
        counts: tuple[int, int, int] = (AXIAL, CORONAL, SAGITTAL),
    ) -> "Planes":
        """Lay planes through the brain.

        Parameters
        ----------
        mask : (X, Y, Z) bool
            Not empty.
        affine : (4, 4) float64
            Voxels to RAS+ mm.
        counts : tuple of int
            Of axial, coronal and sagittal planes; `COLUMNS` of them fill a row.

        """
        places_mm = apply_affine(affine, np.argwhere(mask))
        low, high = places_mm.min(axis=0) - MARGIN_MM, places_mm.max(axis=0) + MARGIN_MM
        middle, half = (low + high) / 2, float((high - low).max()) / 2
        offsets = np.arange(-half, half + PIXEL_MM / 2, PIXEL_MM)
        lower = np.arange(half + PIXEL_MM, half + FOOT_MM, PIXEL_MM)
        across, down = np.meshgrid(offsets, -np.concatenate([offsets, lower]))
        inverse = np.linalg.inv(affine)
        kinds = zip((2, 1, 0), counts, strict=True)
        planes, names = [], []
        for axis, count in kinds:
            for place in np.linspace(low[axis] + MARGIN_MM, high[axis] - MARGIN_MM, count + 2)[1:-1]:
                first, second = ((0, 1), (0, 2), (1, 2))[2 - axis]
                point_mm = np.empty((*across.shape, 3))
                point_mm[..., axis] = place
                # Seen from the left, the face is on the left: y runs backwards.
                point_mm[..., first] = middle[first] + (-across if axis == 0 else across)
                point_mm[..., second] = middle[second] + down
                planes.append(apply_affine(inverse, point_mm))
                kind = ("sagittal, x", "coronal, y", "axial, z")[axis]
                names.append(f"{kind} = {round(float(place))} mm")
        rows = np.array(planes).reshape(-1, COLUMNS, *across.shape, 3)
        return cls(rows, tuple(tuple(names[k : k + COLUMNS]) for k in range(0, len(names), COLUMNS)))

    def image(self, volume: NDArray[Any], *, order: Literal[0, 1]) -> NDArray[np.float64]:
        """Cut a volume, and lay the planes side by side.

        Parameters
        ----------
        volume : (X, Y, Z) or (X, Y, Z, 3)
        order : 0 or 1
            Nearest voxel (labels), or linear.

        Returns
        -------
        (rows * H, columns * W) or (rows * H, columns * W, 3) float64
            0 outside the volume.

        """
        if volume.ndim == 4:
            channels = [self.image(volume[..., c], order=order) for c in range(volume.shape[3])]
            return np.stack(channels, axis=-1)
        values, places = volume.astype(np.float64), np.moveaxis(self.voxels, -1, 0)
        cut = map_coordinates(values, places, order=order, mode="constant", cval=0.0)
        rows, columns, height, width = cut.shape
        return np.asarray(cut.transpose(0, 2, 1, 3).reshape(rows * height, columns * width))

    def each(self, tell: Callable[[int, int, str], None]) -> None:
        """Call a function with left, top (pixels) and name of each plane."""
        _, _, height, width = self.voxels.shape[:4]
        for row, names in enumerate(self.names):
            for column, name in enumerate(names):
                tell(column * width, row * height, name)
