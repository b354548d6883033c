"""An atlas of the study's own is laid over a scan from the volume that came with the protocol."""

import gzip
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from esn_client.imaging.pipeline import reconstruction
from esn_client.imaging.stages import Stages
from esn_core.connectome.atlas import SHIPPED
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

TABLE = "\n".join((SHIPPED / "phantom-28.tsv").read_text(encoding="utf-8").splitlines()[:3]).encode()


def labels(*, last):
    values = np.array([[[0, 1], [2, last]]], dtype=np.uint8)
    return gzip.compress(nib.Nifti1Image(values, np.eye(4)).to_bytes())


def recipe(volume):
    settings = recipe_settings("own-2", own=True)
    return ImagingRecipe.model_validate(settings, context={"own-2.tsv": TABLE, "own-2.nii.gz": volume})


def test_the_labels_are_of_the_volume_that_came_along_and_another_one_is_laid_again(monkeypatch, tmp_path):
    laid = []

    def register(*_, atlas, volume, **__):
        laid.append((atlas.name, volume))
        return SimpleNamespace(
            missing=(),
            volume_ratio=np.ones(2),
            labels=np.ones((2, 2, 2)),
            template_fa=np.zeros((2, 2, 2)),
            correlation=1.0,
            rotation_deg=0.0,
            misplaced_fraction=0.0,
        )

    monkeypatch.setattr(reconstruction, "register_atlas", register)
    scan = SimpleNamespace(labels=None, anatomy=None, affine=np.eye(4), lesion=None)
    maps = SimpleNamespace(fa=np.zeros((2, 2, 2)), mask=np.ones((2, 2, 2), dtype=bool))
    one, other = labels(last=1), labels(last=2)
    for volume in (one, one, other):
        reconstruction._find_labels(scan, maps, recipe(volume), Stages(tmp_path), inputs=["scan"])
    assert laid == [("own-2", one), ("own-2", other)]
    assert recipe(one).sha256 != recipe(other).sha256
    with pytest.raises(ValueError, match=r"own-2\.nii\.gz: is not a whole gzip file"):
        recipe(b"no volume")
