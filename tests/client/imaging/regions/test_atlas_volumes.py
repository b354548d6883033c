"""Tests of the label volumes that ship with the atlases."""

from importlib.resources import files

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from esn_core.connectome.atlas import load_atlas

SHIPPED = ("desikan-killiany-83", "aal-116")


def load(name):
    image = nib.load(str(files("esn_core.connectome").joinpath("atlases", f"{name}.nii.gz")))
    return image.get_fdata(), image.affine


@pytest.mark.parametrize("name", SHIPPED)
def test_table_and_volume_tell_the_same_regions_in_the_same_places(name):
    labels, affine = load(name)
    regions = load_atlas(name).regions
    assert set(np.unique(labels)) == {0, *(region.index for region in regions)}
    for region in regions:
        centroid = affine[:3, :3] @ np.argwhere(labels == region.index).mean(axis=0) + affine[:3, 3]
        # The table is rounded to 0.1 mm.
        assert centroid == pytest.approx((region.x_mm, region.y_mm, region.z_mm), abs=0.051)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_caudate_lies_between_ventricle_and_capsule_of_the_fa_template(name):
    fa, grid = load("mni-fa-2mm")
    labels, affine = load(name)
    there = np.linalg.inv(affine) @ grid
    caudate = np.isin(labels, [r.index for r in load_atlas(name).regions if r.stem.lower() == "caudate"])

    def mean_fa(shift_mm):
        offset = there[:3, 3] - np.asarray(shift_mm)
        shifted = affine_transform(caudate * 1.0, there[:3, :3], offset, output_shape=fa.shape, order=1)
        return fa[shifted > 0.5].mean()

    # Whichever way it is moved by three voxels, the slender nucleus takes in white matter.
    here = mean_fa((0, 0, 0))
    for axis in np.eye(3):
        assert mean_fa(6 * axis) > here + 0.01, axis
        assert mean_fa(-6 * axis) > here + 0.01, axis
