"""Tests of reading scans: what cannot be used is refused in words."""

import gzip
import json
import shutil
import tomllib
from importlib.resources import files

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.images import read_image
from esn_client.imaging.bids.scans import load_scan
from esn_client.imaging.bids.visits import Visit
from esn_client.simulation.scans import write_site
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe

ATLAS = load_atlas("phantom-28")
RECIPE = ImagingRecipe(
    **tomllib.loads(files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text())
)
DWI = "sub-001/dwi/sub-001_dwi"
LABELS = "derivatives/labels/sub-001/dwi/sub-001_seg-phantom28_dseg.nii.gz"


@pytest.fixture(scope="module")
def clean_site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site") / "south"
    write_site(directory, site="south", seed=5, children=1, controls=1, truth=None)
    return directory


@pytest.fixture
def site(clean_site, tmp_path):
    return shutil.copytree(clean_site, tmp_path / "site")


def load(site, order=6):
    found = Dataset(site).files(Visit("sub-001", None), segmentation="phantom28")
    return load_scan(found, atlas=ATLAS, recipe=RECIPE.model_copy(update={"sh_order_max": order}))


def rewrite(path, change):
    image = nib.load(path)
    data, affine = change(np.asarray(image.dataobj), image.affine.copy())
    nib.save(nib.Nifti1Image(data, affine), path)


def with_a_nan(data, affine):
    data = data.astype(np.float32)
    data[3, 4, 5, 6] = np.nan
    return data, affine


def with_a_shift(data, affine):
    affine[0, 3] += 2.5
    return data, affine


def with_label_99(data, affine):
    data = data.copy()
    data[0, 0, 0] = 99
    return data, affine


def test_a_clean_scan_is_read(site):
    scan = load(site)
    assert scan.signal.shape == (28, 34, 24, 36)
    assert scan.labels.shape == scan.signal.shape[:3]
    assert scan.voxel_size_mm == pytest.approx([5, 5, 5])
    assert scan.gradients.is_b0.sum() == 4


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (f"{DWI}.nii.gz", with_a_nan, "sub-001_dwi.nii.gz: 1 voxels are NaN or infinite"),
        (
            f"{DWI}.nii.gz",
            lambda d, a: (d[..., 0], a),
            r"series of volumes \(4-D\) is needed; found shape \(28,",
        ),
        (
            f"{DWI}.nii.gz",
            lambda d, a: (d[..., :-1], a),
            "36 b-values, .* 36 vectors and the image has 35 volumes",
        ),
        (LABELS, with_a_shift, "its affine differs from the scan's by up to 2.5; 0 is needed"),
        (LABELS, lambda d, a: (d[:-1], a), r"its grid is \(27, 34, 24\); the scan has \(28, 34, 24\)"),
        (LABELS, with_label_99, "label 99 is not in atlas phantom-28"),
        (LABELS, lambda d, a: (np.where(d > 20, 0, d), a), "8 of 28 regions of atlas phantom-28 have"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(site, name, change, message):
    rewrite(site / name, change)
    with pytest.raises(DataError, match=message):
        load(site)


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.0])
def test_a_truncated_image_is_refused(site, keep):
    path = site / f"{DWI}.nii.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"sub-001_dwi\.nii\.gz: not a whole NIfTI image"):
        load(site)


def test_an_image_with_a_damaged_body_is_refused(site):
    path = site / f"{DWI}.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:5000]))
    with pytest.raises(DataError, match="not a whole NIfTI image"):
        load(site)


def test_too_few_directions_for_the_order_are_refused(site):
    with pytest.raises(DataError, match="32 distinct directions; order 8 needs 45 or more"):
        load(site, order=8)


def with_codes(sform, qform):
    """Make a function that changes what the header says of the sides, and nothing else."""

    def change(path):
        image = nib.load(path)
        made = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
        made.set_qform(image.affine if qform is None else qform, code=0 if qform is None else 1)
        made.set_sform(image.affine if sform is None else sform, code=0 if sform is None else 1)
        nib.save(made, path)

    return change


@pytest.mark.parametrize("storage", ["RAS", "LAS"])
def test_a_brain_whose_sides_the_header_does_not_name_is_refused_before_its_gradients(site, storage):
    """Stored RAS, its table seems wrong; a table 'repaired' for the reader's guess would mirror the child."""
    path = site / f"{DWI}.nii.gz"
    if storage == "LAS":
        rewrite(path, lambda d, a: (d[::-1], a @ np.array([[-1, 0, 0, 27], *np.eye(4)[1:]])))
    with_codes(None, None)(path)
    vectors = np.loadtxt(site / f"{DWI}.bvec") * [[-1], [1], [1]]
    for table in (vectors, vectors * [[-1], [1], [1]]):
        np.savetxt(site / f"{DWI}.bvec", table)
        with pytest.raises(DataError, match="its header names no orientation"):
            load(site)


def test_labels_without_a_side_are_refused(site):
    with_codes(None, None)(site / LABELS)
    with pytest.raises(DataError, match=r"seg-phantom28_dseg\.nii\.gz: its header names no orientation"):
        load(site)


def test_a_scan_says_where_its_sides_come_from(site):
    affine = nib.load(site / f"{DWI}.nii.gz").affine
    assert load(site).sides.startswith("stored RAS, by the header's sform (code 1) and qform (code 1)")
    shifted = affine.copy()
    shifted[1, 3] += 3
    with_codes(affine, shifted)(site / f"{DWI}.nii.gz")
    assert load(site).warnings == ("sub-001_dwi.nii.gz: sform and qform are 3.0 mm apart; the sform is used",)


def preprocess(site, *, generator, rows, scanner_table=False, orient="LPS"):
    """Store the scan as another pipeline does: on axes of its own, with the rows that its rule asks for."""
    image = nib.load(site / f"{DWI}.nii.gz")
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(orient)))
    folder = site / "derivatives" / generator / "sub-001" / "dwi"
    folder.mkdir(parents=True)
    about = {"Name": "x", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    about["GeneratedBy"] = [{"Name": generator, "Version": "0.20.0"}]
    (folder.parents[1] / "dataset_description.json").write_text(json.dumps(about))
    stem = folder / "sub-001_space-ACPC_desc-preproc_dwi"
    stored = image.as_reoriented(change)
    nib.save(stored, f"{stem}.nii.gz")
    labels = site / LABELS
    nib.save(nib.load(labels).as_reoriented(change), labels)
    b, file_rows = np.loadtxt(site / f"{DWI}.bval"), np.loadtxt(site / f"{DWI}.bvec")
    in_world = (file_rows.T * [-1, 1, 1]) @ (
        image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    ).T
    axes = stored.affine[:3, :3] / np.linalg.norm(stored.affine[:3, :3], axis=0)
    by_axes = in_world @ axes
    flip = [-1 if np.linalg.det(axes) > 0 else 1, 1, 1]
    vectors = {"image": by_axes, "fsl": by_axes * flip}[rows]
    np.savetxt(f"{stem}.bval", b[None], fmt="%d")
    np.savetxt(f"{stem}.bvec", vectors.T, fmt="%.6f")
    if scanner_table:
        np.savetxt(f"{stem}.b", np.column_stack([in_world, b]), fmt="%.6f")
    return by_axes


@pytest.mark.parametrize(
    ("generator", "rows", "scanner_table", "remark"),
    [
        ("QSIPrep", "image", True, "directions are read from sub-001_space-ACPC_desc-preproc_dwi.b, in"),
        ("QSIPrep", "image", False, "sub-001_space-ACPC_desc-preproc_dwi.bvec follows the image's axes"),
        ("FSL eddy", "fsl", False, None),
        ("FSL eddy", "fsl", True, "directions are read from"),
    ],
)
@pytest.mark.parametrize("orient", ["LPS", "LAS", "RAS"])
def test_the_tables_of_other_pipelines_are_read_by_their_own_rule(
    site, generator, rows, scanner_table, remark, orient
):
    """QSIPrep stores LPS and writes vectors along the image's axes; FSL's eddy keeps FSL's rule."""
    right = preprocess(site, generator=generator, rows=rows, scanner_table=scanner_table, orient=orient)
    scan = load(site)
    assert scan.preprocessed
    assert scan.sides.startswith(f"stored {orient}")
    # Six digits were written.
    assert scan.gradients.directions == pytest.approx(right, abs=2e-6)
    assert [words for words in scan.remarks if words.startswith(remark or "nothing")] == (
        list(scan.remarks[:1]) if remark else []
    )


@pytest.mark.parametrize("shape", [(28, 34, 24, 1, 36), (28, 34, 24, 36, 1)])
def test_an_axis_of_length_one_is_none(site, shape):
    plain = load(site).signal
    rewrite(site / f"{DWI}.nii.gz", lambda d, a: (d.reshape(shape), a))
    assert np.array_equal(load(site).signal, plain)


def test_what_was_healed_is_said(site):
    def change(data, affine):
        data = data.astype(np.float32)
        data[:2] = np.nan
        data[2:6, 0, 0] = -5
        return data, affine

    rewrite(site / f"{DWI}.nii.gz", change)
    scan = load(site)
    assert scan.signal.min() == 0
    assert "of the voxels are NaN, outside of the field of view" in scan.remarks[0]
    assert "of the voxels were negative" in scan.remarks[1]
    assert scan.slice_axis == 2


def test_the_sidecar_names_the_axis_of_the_slices(site):
    (site / "dwi.json").write_text('{"SliceEncodingDirection": "j-"}')
    assert load(site).slice_axis == 1


def test_without_a_sidecar_slices_lie_along_the_axis_nearest_to_upright(site):
    preprocess(site, generator="QSIPrep", rows="image", orient="PSR")
    assert load(site).slice_axis == 1


def test_b_values_of_another_order_are_refused_though_each_table_has_the_right_length(site):
    """Only the b-values moved by one: what is then weighted without a vector would pass for a mean."""
    np.savetxt(site / f"{DWI}.bval", np.roll(np.loadtxt(site / f"{DWI}.bval"), 1)[None])
    with pytest.raises(DataError, match="the b-values belong to another scan or order"):
        load(site)


def test_runs_of_another_scale_are_brought_to_one_and_the_page_says_so(site):
    folder = site / "sub-001" / "dwi"
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / path.name.replace("_dwi", "_run-1_dwi"))
        path.rename(folder / path.name.replace("_dwi", "_run-2_dwi"))
    rewrite(folder / "sub-001_run-2_dwi.nii.gz", lambda d, a: (d.astype(np.float32) * 7, a))
    scan = load(site)
    assert "its b0s are 7 times as bright as those of sub-001_run-1_dwi.nii.gz" in scan.warnings[0]
    assert scan.signal[..., 36:] == pytest.approx(scan.signal[..., :36], rel=1e-5)


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (np.zeros((4, 4, 4, 3), dtype=np.complex64), "found complex numbers: give the magnitude"),
        (
            np.zeros((4, 4, 4, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]),
            "found colours: give the scan",
        ),
    ],
)
def test_an_image_without_one_real_number_a_voxel_is_refused(tmp_path, voxels, words):
    """Of complex numbers the real part would be read, and of colours nothing."""
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "s_dwi.nii.gz")
    with pytest.raises(DataError, match=f"s_dwi.nii.gz: one real number for each voxel is needed; {words}"):
        read_image(tmp_path / "s_dwi.nii.gz")


def test_a_packed_image_whose_sum_is_wrong_is_refused(site):
    """Its bytes may be read to the last voxel without a word; the sum stands behind them."""
    path = site / f"{DWI}.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sub-001_dwi\.nii\.gz: not a whole NIfTI image: CRC check failed"):
        load(site)


def test_the_ceiling_of_a_negative_slope_is_the_least_integer(tmp_path):
    image = nib.Nifti1Image(np.full((3, 3, 3), -5, dtype=np.int16), np.eye(4))
    image.header.set_slope_inter(-1, 2)
    nib.save(image, tmp_path / "s.nii.gz")
    found = read_image(tmp_path / "s.nii.gz")
    assert found.ceiling == 32768 + 2


@pytest.mark.parametrize("behind", [(1,), (1, 1)])
def test_labels_and_masks_with_axes_of_length_one_are_volumes(site, behind):
    plain = load(site).labels
    rewrite(site / LABELS, lambda d, a: (d.reshape(*d.shape, *behind), a))
    assert np.array_equal(load(site).labels, plain)


def test_two_volumes_of_labels_are_refused(site):
    rewrite(site / LABELS, lambda d, a: (np.stack([d, d], axis=-1), a))
    with pytest.raises(DataError, match=r"one 3-D volume is needed; found shape \(28, 34, 24, 2\)"):
        load(site)


def mask(site, values):
    folder = site / "derivatives" / "labels" / "sub-001" / "dwi"
    image = nib.load(site / LABELS)
    nib.save(nib.Nifti1Image(values(image.shape), image.affine), folder / "sub-001_label-lesion_mask.nii.gz")
    return load(site)


def test_an_empty_mask_is_named(site):
    scan = mask(site, lambda shape: np.zeros(shape, dtype=np.uint8))
    assert scan.warnings == ("sub-001_label-lesion_mask.nii.gz is empty: nothing is marked",)
    assert mask(site, lambda shape: np.ones((*shape, 1), dtype=np.uint8)).lesion.all()


@pytest.mark.parametrize("value", [255, 0.7, np.nan])
def test_a_mask_of_anything_but_0_and_1_is_refused_with_what_it_holds(site, value):
    with pytest.raises(DataError, match=f"a lesion mask holds 0 and 1 alone; found {value:g}: write 1"):
        mask(site, lambda shape: np.full(shape, value, dtype=np.float32))


def test_freesurfers_packed_format_is_read_to_its_end_too(tmp_path):
    voxels = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    nib.save(nib.MGHImage(voxels, np.diag([-1.0, 1, 1, 1])), tmp_path / "brain.mgz")
    found = read_image(tmp_path / "brain.mgz")
    assert np.array_equal(found.voxels, voxels)
    assert found.orientation.axes == "LAS"
    content = bytearray((tmp_path / "brain.mgz").read_bytes())
    content[-6] ^= 255
    (tmp_path / "brain.mgz").write_bytes(content)
    with pytest.raises(DataError, match=r"brain\.mgz: not a whole NIfTI image"):
        read_image(tmp_path / "brain.mgz")
