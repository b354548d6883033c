"""Tests of tissue: what is fluid, dark, outside or marked is no tissue, and a region of it has no edges."""

import numpy as np
import pytest

from esn_client.imaging.fibres.tensor import TensorMaps
from esn_client.imaging.regions.parcellation import grow_regions
from esn_client.imaging.regions.tissue import find_tissue, keep_tissue, measure_tissue
from esn_core.connectome.atlas import Atlas, Region
from esn_core.errors import DataError

ATLAS = Atlas(
    "own",
    (
        Region(3, "whole", "L", -1, 0, 0, "m"),
        Region(5, "removed", "R", 1, 0, 0, "n"),
        Region(9, "most", "R", 2, 0, 0, "n"),
    ),
)
SIZE_MM = np.array([2.0, 2.0, 2.5])
TISSUE, FLUID = 0.9e-3, 2.7e-3
SHAPE = (12, 10, 8)


def head(diffusivity=None, b0=None):
    """A box of brain with a rim of air, three regions side by side, and a stripe outside of the brain."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:11, 1:9, 1:7] = True
    speed = np.full(SHAPE, TISSUE) if diffusivity is None else diffusivity
    bright = np.where(mask, 500.0, 10.0) if b0 is None else b0
    labels = np.zeros(SHAPE, dtype=np.int64)
    labels[0:4, 2:8, 2:6] = 3  # a quarter of it in air
    labels[4:7, 2:8, 2:6] = 5
    labels[7:11, 2:8, 2:6] = 9
    eigenvalues = np.repeat(speed[..., None], 3, axis=-1) * mask[..., None]
    return TensorMaps(mask, eigenvalues, np.where(mask, 0.3, 0.0), bright), labels


def removed(what):
    """The head after the second region, and a quarter of the third, were taken out."""
    speed, b0 = np.full(SHAPE, TISSUE), np.full(SHAPE, 500.0)
    where = np.zeros(SHAPE, dtype=bool)
    where[4:8, 1:9, 1:7] = True
    speed[where], b0[where] = {"fluid": (FLUID, 1500.0), "dark": (TISSUE, 20.0), "marked": (TISSUE, 500.0)}[
        what
    ]
    maps, labels = head(speed, b0)
    return maps, labels, where if what == "marked" else None


@pytest.mark.parametrize("what", ["fluid", "dark", "marked"])
def test_a_region_that_was_removed_is_absent_and_its_neighbour_keeps_what_is_left(what):
    maps, labels, lesion = removed(what)
    tissue = find_tissue(maps, lesion)
    found = measure_tissue(labels, ATLAS, mask=maps.mask, tissue=tissue, voxel_size_mm=SIZE_MM)
    assert found.tissue_share == pytest.approx([0.75, 0.0, 0.75])
    assert found.outside_share == pytest.approx([0.25, 0.0, 0.0])
    gone = found.lesion_share if what == "marked" else found.fluid_share
    assert gone == pytest.approx([0.0, 1.0, 0.25])
    assert found.absent.tolist() == [False, True, False]
    assert found.labelled_mm3 == pytest.approx(np.array([96, 72, 96]) * 10.0)
    kept = keep_tissue(labels, ATLAS, tissue=tissue, absent=found.absent)
    assert set(np.unique(kept)) == {0, 3, 9}
    assert not kept[:1].any(), "outside of the mask"
    assert not kept[4:8].any(), "in the cavity"
    assert (kept[8:11, 2:8, 2:6] == 9).all()
    # A streamline's end is looked for in what labels grow into: nowhere does the region come back.
    assert 1 not in grow_regions(kept, ATLAS, voxel_size_mm=SIZE_MM, growth_mm=4.0)


def test_a_healthy_head_loses_what_lies_outside_its_mask_and_nothing_else():
    maps, labels = head()
    tissue = find_tissue(maps, None)
    found = measure_tissue(labels, ATLAS, mask=maps.mask, tissue=tissue, voxel_size_mm=SIZE_MM)
    assert not found.absent.any()
    assert found.outside_percent == pytest.approx(100 * 24 / 264)
    assert found.fluid_percent == 0
    kept = keep_tissue(labels, ATLAS, tissue=tissue, absent=found.absent)
    assert np.array_equal(kept, np.where(maps.mask, labels, 0))


def test_a_region_without_a_label_is_absent():
    maps, labels = head()
    found = measure_tissue(
        np.where(labels == 5, 0, labels),
        ATLAS,
        mask=maps.mask,
        tissue=find_tissue(maps, None),
        voxel_size_mm=SIZE_MM,
    )
    assert found.absent.tolist() == [False, True, False]
    assert found.labelled_mm3[1] == 0


def test_a_little_fluid_beside_a_region_costs_the_region_nothing_but_that():
    speed = np.full(SHAPE, TISSUE)
    speed[7, :, :] = FLUID  # a sulcus through a quarter of the third region
    maps, labels = head(speed)
    found = measure_tissue(
        labels, ATLAS, mask=maps.mask, tissue=find_tissue(maps, None), voxel_size_mm=SIZE_MM
    )
    assert found.tissue_share[2] == pytest.approx(0.75)
    assert not found.absent.any()


def test_a_brain_of_fluid_is_refused():
    maps, _ = head(np.full(SHAPE, FLUID))
    with pytest.raises(DataError, match="no voxel of the brain is tissue"):
        find_tissue(maps, None)
