"""Tissue: where fibres can be at all, and which regions of the atlas have none left."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.fibres.tensor import TensorMaps
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError

FLUID_MM2_PER_S = 2.0e-3
"""Mean diffusivity of a voxel that is mostly fluid: tissue has 0.7e-3 to 1.4e-3, free water at body
temperature 3.0e-3
(Mills 1973, J Phys Chem 77:685), of which the noise floor leaves 2.2e-3 and more at b 1000."""
DARK_SHARE = 0.1
"""Of the brain's median b0: what is darker gives no signal (an implant, a clip, air)."""
LEAST_TISSUE_SHARE = 0.5
"""A region of which less than this share is tissue counts as not there. What lies outside of the mask is left
out of account: labels of healthy regions at the surface reach out. In a healthy adult the least was .79.
After a simulated temporal lobectomy of the same head the bend draws labels of what was removed 8 mm into
what is left: regions that had lost .86 or more of themselves were called tissue to .41 at most."""
LEAST_SHARE_OF_ALL = 0.1
"""The same, of all of the region: a cavity may lie outside of the mask altogether. In the one healthy adult
that we measured, no region had less than .56."""


@dataclass(frozen=True)
class Tissue:
    """What each voxel of a scan is, and how much of each region is tissue.

    Attributes
    ----------
    where : (X, Y, Z) bool
        Brain that is neither fluid, nor dark, nor in a lesion mask.
    fluid : (X, Y, Z) bool
        Brain that is mostly fluid or gives no signal: ventricles, sulci, cavities.
    lesion : (X, Y, Z) bool
        What somebody marked as lost; empty where there is no such mask.

    """

    where: NDArray[np.bool_]
    fluid: NDArray[np.bool_]
    lesion: NDArray[np.bool_]


@dataclass(frozen=True)
class RegionTissue:
    """How much of each region is tissue, in the atlas's order.

    Attributes
    ----------
    labelled_mm3 : (R,) float64
    tissue_share, outside_share, fluid_share, lesion_share : (R,) float64
        Of the labelled volume: in tissue, outside of the brain mask, in fluid or without signal, in the
        lesion mask
        (which may be any of the others too). A region without a label has no tissue.

    """

    labelled_mm3: NDArray[np.float64]
    tissue_share: NDArray[np.float64]
    outside_share: NDArray[np.float64]
    fluid_share: NDArray[np.float64]
    lesion_share: NDArray[np.float64]

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Which regions are not there, (R,): too little of them is tissue."""
        inside = 1.0 - self.outside_share
        return np.asarray(
            (self.tissue_share < LEAST_TISSUE_SHARE * inside) | (self.tissue_share < LEAST_SHARE_OF_ALL),
            dtype=np.bool_,
        )

    @property
    def outside_percent(self) -> float:
        """Labelled volume outside of the brain mask, of all regions together."""
        return 100.0 * float(np.average(self.outside_share, weights=self.labelled_mm3))

    @property
    def fluid_percent(self) -> float:
        """Labelled volume in fluid or without signal, of all regions together."""
        return 100.0 * float(np.average(self.fluid_share, weights=self.labelled_mm3))


def find_tissue(maps: TensorMaps, lesion: NDArray[np.bool_] | None) -> Tissue:
    """Tell tissue from fluid, from what gives no signal and from what is marked as lost.

    Parameters
    ----------
    maps : TensorMaps
    lesion : (X, Y, Z) bool or None
        A lesion or resection mask on the scan's grid.

    Returns
    -------
    Tissue

    Raises
    ------
    DataError
        No voxel of the brain is tissue.

    """
    diffusivity = maps.eigenvalues_mm2_per_s.mean(axis=-1)
    dark = maps.b0 < DARK_SHARE * float(np.median(maps.b0[maps.mask]))
    fluid = maps.mask & ((diffusivity > FLUID_MM2_PER_S) | dark)
    lost = np.zeros(maps.mask.shape, dtype=np.bool_) if lesion is None else lesion
    where = maps.mask & ~fluid & ~lost
    if not where.any():
        raise DataError("no voxel of the brain is tissue: all of it is fluid, dark or in the lesion mask")
    return Tissue(where, fluid, lost)


def measure_tissue(
    labels: NDArray[np.int64],
    atlas: Atlas,
    *,
    mask: NDArray[np.bool_],
    tissue: Tissue,
    voxel_size_mm: NDArray[np.float64],
) -> RegionTissue:
    """Measure how much of each region lies in tissue, and where the rest lies.

    Parameters
    ----------
    labels : (X, Y, Z) int64
        Region indices of the atlas, before they grow; 0 elsewhere.
    atlas : Atlas
    mask : (X, Y, Z) bool
        The brain.
    tissue : Tissue
    voxel_size_mm : (3,) float64

    Returns
    -------
    RegionTissue

    """
    indices = [region.index for region in atlas.regions]
    most = max(indices) + 1
    named = np.where((labels > 0) & (labels < most), labels, 0).ravel()

    def count(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        found = np.bincount(named, weights=where.ravel(), minlength=most)[indices]
        return np.asarray(found, dtype=np.float64)

    voxels = count(np.ones(labels.shape, dtype=np.bool_))
    divisor = np.where(voxels > 0, voxels, 1.0)
    return RegionTissue(
        labelled_mm3=voxels * float(np.prod(voxel_size_mm)),
        tissue_share=count(tissue.where) / divisor,
        outside_share=count(~mask) / divisor,
        fluid_share=count(tissue.fluid) / divisor,
        lesion_share=count(tissue.lesion) / divisor,
    )


def keep_tissue(
    labels: NDArray[np.int64], atlas: Atlas, *, tissue: Tissue, absent: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Take labels away where there is no tissue, and those of absent regions altogether.

    Parameters
    ----------
    labels : (X, Y, Z) int64
    atlas : Atlas
    tissue : Tissue
    absent : (R,) bool

    Returns
    -------
    (X, Y, Z) int64

    """
    gone = [region.index for region, away in zip(atlas.regions, absent, strict=True) if away]
    return np.where(tissue.where & ~np.isin(labels, gone), labels, 0)
