"""Tests of BIDS datasets: which files a connectome is made from, and what is refused in words."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.scans import Visit
from esn_core.errors import DataError

ONE = Visit("sub-001", None)


def describe(directory, **more):
    directory.mkdir(parents=True, exist_ok=True)
    content = {"Name": directory.name, "BIDSVersion": "1.10.0", **more}
    (directory / "dataset_description.json").write_text(json.dumps(content))


def scan(folder, name, *, volumes=7, content=0.0):
    """Write a tiny series of one b0 and weighted volumes."""
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(np.full((3, 3, 3, volumes), content, dtype=np.float32), np.eye(4)),
        folder / f"{name}.nii.gz",
    )
    (folder / f"{name}.bval").write_text(" ".join(["0", *["1000"] * (volumes - 1)]))
    (folder / f"{name}.bvec").write_text("\n".join([" ".join(["1"] * volumes)] * 3))


@pytest.fixture
def bids(tmp_path):
    """Two participants, one of them with two sessions."""
    describe(tmp_path)
    scan(tmp_path / "sub-001" / "dwi", "sub-001_dwi")
    for number in (1, 2):
        folder = tmp_path / "sub-002" / f"ses-{number}" / "dwi"
        scan(folder, f"sub-002_ses-{number}_dwi", content=float(number))
    return tmp_path


def chosen(bids, visit=ONE, segmentation="pair"):
    return Dataset(bids).files(visit, segmentation=segmentation)


def names(files):
    return [run.dwi.name for run in files.runs]


def test_each_session_is_a_visit(bids):
    visits = Dataset(bids).visits(None, None)
    assert [visit.label for visit in visits] == ["sub-001", "sub-002_ses-1", "sub-002_ses-2"]
    assert Dataset(bids).visits(["002", "sub-002"], ["2"]) == [Visit("sub-002", "ses-2")]


def test_who_is_not_there_is_named(bids):
    with pytest.raises(DataError, match="unknown participant sub-009; there are 2, sub-001 to sub-002"):
        Dataset(bids).visits(["001", "009"], None)
    with pytest.raises(DataError, match="nobody has a session ses-7"):
        Dataset(bids).visits(None, ["7"])


def test_a_directory_without_description_is_no_dataset(bids):
    (bids / "dataset_description.json").unlink()
    with pytest.raises(DataError, match=r"no BIDS dataset; dataset_description\.json is missing"):
        Dataset(bids)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_description_is_no_dataset(bids, content):
    (bids / "dataset_description.json").write_text(content)
    with pytest.raises(DataError, match=r"no BIDS dataset; dataset_description\.json says nothing"):
        Dataset(bids)


def test_an_empty_dataset_has_no_participant(tmp_path):
    describe(tmp_path)
    with pytest.raises(DataError, match="no participant; a directory sub-<label> is needed for each"):
        Dataset(tmp_path)


def test_a_participant_without_a_scan_is_told_apart(bids):
    (bids / "sub-003" / "anat").mkdir(parents=True)
    assert Dataset(bids).visits(["003"], None) == [Visit("sub-003", None)]
    with pytest.raises(
        DataError, match=r"sub-003: one scan is needed \(sub-003/dwi/sub-003_\*dwi.nii.gz\); found none"
    ):
        chosen(bids, Visit("sub-003", None))


def test_runs_are_joined_in_order(bids):
    folder = bids / "sub-001" / "dwi"
    for path in folder.iterdir():
        path.unlink()
    for run in (2, 1, 3):
        scan(folder, f"sub-001_run-{run}_dwi")
    assert names(chosen(bids)) == [f"sub-001_run-{run}_dwi.nii.gz" for run in (1, 2, 3)]


def test_of_two_series_the_one_with_more_weighted_volumes_is_taken(bids):
    scan(bids / "sub-001" / "dwi", "sub-001_dir-PA_dwi", volumes=2)
    files = chosen(bids)
    assert names(files) == ["sub-001_dwi.nii.gz"]
    assert [path.name for path in files.left_out] == ["sub-001_dir-PA_dwi.nii.gz"]


def test_two_series_of_equal_weight_are_one_too_many(bids):
    scan(bids / "sub-001" / "dwi", "sub-001_acq-b_dwi")
    with pytest.raises(
        DataError,
        match=r"2 series with 6 diffusion-weighted volumes each \(sub-001_acq-b_dwi.nii.gz, sub-001_dwi",
    ):
        chosen(bids)


def test_phase_images_are_no_scans(bids):
    scan(bids / "sub-001" / "dwi", "sub-001_part-phase_dwi", volumes=9)
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]


@pytest.mark.parametrize("suffix", [".bval", ".bvec"])
def test_a_missing_gradient_file_is_named(bids, suffix):
    (bids / "sub-001" / "dwi" / f"sub-001_dwi{suffix}").unlink()
    with pytest.raises(DataError, match=f"sub-001: sub-001_dwi{suffix} is missing beside sub-001_dwi.nii.gz"):
        chosen(bids)


def test_gradient_files_are_inherited_from_above(bids):
    for suffix in (".bval", ".bvec"):
        (bids / "sub-001" / "dwi" / f"sub-001_dwi{suffix}").rename(bids / f"dwi{suffix}")
    run = chosen(bids).runs[0]
    assert (run.bval, run.bvec) == (bids / "dwi.bval", bids / "dwi.bvec")


def test_gradient_files_of_another_run_are_not_inherited(bids):
    folder = bids / "sub-001" / "dwi"
    for run in (1, 2):
        scan(folder, f"sub-001_run-{run}_dwi")
    (folder / "sub-001_dwi.nii.gz").unlink()
    (folder / "sub-001_dwi.bvec").unlink()
    (folder / "sub-001_run-2_dwi.bvec").unlink()
    with pytest.raises(DataError, match=r"sub-001_run-2_dwi\.bvec is missing"):
        chosen(bids)


@pytest.fixture
def preprocessed(bids):
    """A derivative dataset of another pipeline."""
    directory = bids / "derivatives" / "qsiprep"
    describe(directory, DatasetType="derivative", GeneratedBy=[{"Name": "QSIPrep", "Version": "1.0.1"}])
    scan(directory / "sub-001" / "dwi", "sub-001_space-ACPC_desc-preproc_dwi")
    return directory


def test_a_preprocessed_scan_wins_and_its_pipeline_is_named(bids, preprocessed):
    files = chosen(bids)
    assert names(files) == ["sub-001_space-ACPC_desc-preproc_dwi.nii.gz"]
    assert files.preprocessed_by == "QSIPrep 1.0.1"
    assert chosen(bids, Visit("sub-002", "ses-1")).preprocessed_by is None


def test_a_dataset_of_preprocessed_scans_can_be_given_alone(preprocessed):
    assert chosen(preprocessed).preprocessed_by == "QSIPrep 1.0.1"


def test_two_pipelines_are_one_too_many(bids, preprocessed):
    shutil.copytree(preprocessed, bids / "derivatives" / "other")
    with pytest.raises(
        DataError, match=r"several datasets hold a preprocessed scan \(other, qsiprep\); keep one"
    ):
        chosen(bids)


def labels(bids, *parts, name):
    directory = bids / "derivatives" / "labels"
    describe(directory, DatasetType="derivative", GeneratedBy=[{"Name": "x"}])
    path = directory.joinpath(*parts) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_labels_of_the_visit_win_over_those_of_the_participant(bids):
    visit = Visit("sub-002", "ses-1")
    assert chosen(bids, visit).labels is None
    whole = labels(bids, "sub-002", "anat", name="sub-002_seg-pair_dseg.nii.gz")
    assert chosen(bids, visit).labels == whole
    own = labels(bids, "sub-002", "ses-1", "dwi", name="sub-002_ses-1_seg-pair_dseg.nii.gz")
    assert chosen(bids, visit).labels == own
    assert chosen(bids, Visit("sub-002", "ses-2")).labels == whole
    assert chosen(bids, visit, segmentation="other").labels is None


def test_two_label_volumes_are_one_too_many(bids):
    labels(bids, "sub-001", "dwi", name="sub-001_seg-pair_dseg.nii.gz")
    labels(bids, "sub-001", "anat", name="sub-001_seg-pair_dseg.nii.gz")
    with pytest.raises(DataError, match="one label volume is needed; found derivatives/labels/sub-001/anat"):
        chosen(bids)


def test_a_scan_under_two_labels_is_seen(bids):
    assert Dataset(bids).same_scans() == {}
    shutil.copytree(bids / "sub-001", bids / "sub-009")
    folder = bids / "sub-009" / "dwi"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("001", "009"))
    assert Dataset(bids).same_scans() == {"sub-001": "sub-009", "sub-009": "sub-001"}


def test_a_face_in_a_t1w_image_is_nobodys_business(bids):
    """Structural images are not read: whatever they show does no harm."""
    (bids / "sub-001" / "anat").mkdir()
    (bids / "sub-001" / "anat" / "sub-001_T1w.nii.gz").write_bytes(b"a face")
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]


def test_work_and_source_data_are_not_looked_at(bids):
    for directory in ("work", "sourcedata", ".git"):
        scan(bids / directory / "sub-001" / "dwi", "sub-001_acq-b_dwi", volumes=20)
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]


def test_the_memory_of_a_subject_is_estimated_from_its_header(bids):
    files = chosen(bids)
    assert files.memory_gb() == pytest.approx(0.8 + 27 * 7 * 16 / 1e9)
    files.runs[0].dwi.write_bytes(b"")
    assert files.memory_gb() == 0
