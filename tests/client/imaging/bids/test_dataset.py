"""Tests of BIDS datasets: which files a connectome is made from, and what is refused in words."""

import json
import os
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


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_a_table_above_holds_for_the_images_that_it_does_not_contradict(bids):
    """The nearest wins, and of one directory the one that says most."""
    folder = bids / "sub-001"
    (folder / "dwi" / "sub-001_dwi.nii.gz").rename(folder / "dwi" / "sub-001_acq-b_run-01_dwi.nii.gz")
    for path in (folder / "dwi").glob("*.bv*"):
        path.unlink()
    touch(bids / "dwi.bvec")
    touch(bids / "acq-b_dwi.bvec")
    touch(bids / "acq-c_run-1_dwi.bvec")
    touch(bids / "sub-002" / "acq-b_run-01_dwi.bvec")
    (bids / "run-1_dwi.bval").write_text("0 1000")
    run = chosen(bids).runs[0]
    assert (run.bval, run.bvec) == (bids / "run-1_dwi.bval", bids / "acq-b_dwi.bvec")
    near = touch(folder / "sub-001_dwi.bvec")
    assert chosen(bids).runs[0].bvec == near


def test_a_preprocessed_scan_inherits_no_table_of_the_raw_dataset(bids, preprocessed):
    """The raw table knows nothing of the rotations that the other pipeline made."""
    (bids / "dwi.bvec").write_text("1")
    (preprocessed / "sub-001" / "dwi" / "sub-001_space-ACPC_desc-preproc_dwi.bvec").unlink()
    with pytest.raises(DataError, match=r"desc-preproc_dwi\.bvec is missing"):
        chosen(bids)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sub-001_dwi.nii.gz", "sub-001_dwi.nii"),
        ("sub-001_run-1_dwi.nii.gz", "sub-001_run-01_dwi.nii.gz"),
        ("sub-001_dwi.nii.gz", "again/sub-001_dwi.nii.gz"),
    ],
)
def test_a_series_that_is_there_twice_is_refused(bids, first, second):
    folder = bids / "sub-001" / "dwi"
    (folder / "sub-001_dwi.nii.gz").unlink()
    touch(folder / first)
    touch(folder / second)
    with pytest.raises(
        DataError, match=r"sub-001: sub-001/dwi/\S+ and sub-001/dwi/\S+ are named as the same"
    ):
        chosen(bids)


@pytest.mark.parametrize("entity", ["echo-1", "part-mag", "acq-a-b", "acq-1", "foo-2", "chunk-1"])
def test_series_that_differ_in_more_than_the_run_are_not_joined(bids, entity):
    """Not even where BIDS knows no such entity."""
    scan(bids / "sub-001" / "dwi", f"sub-001_{entity}_dwi", volumes=9)
    files = chosen(bids)
    assert names(files) == [f"sub-001_{entity}_dwi.nii.gz"]
    assert [path.name for path in files.left_out] == ["sub-001_dwi.nii.gz"]


@pytest.mark.parametrize(
    "name",
    [
        "scan.nii.gz",
        "dwi.txt",
        "sub-001_dwi_old.nii.gz",
        "sub-001_dwi.nii.gz.bak",
        "sub-001_acq-b.1_dwi.nii.gz",
        "sub-001_DWI.nii.gz",
        "._sub-001_dwi.nii.gz",
        "sub-001_sbref.nii.gz",
        "sub-001_desc-other_dwi.nii.gz",
        "sub-001_part-real_dwi.nii.gz",
    ],
)
def test_files_with_other_names_are_passed_over(bids, name):
    touch(bids / "sub-001" / "dwi" / name)
    files = chosen(bids)
    assert (names(files), files.left_out) == (["sub-001_dwi.nii.gz"], ())


@pytest.mark.parametrize("said", ["", "sub-001_ses-2_"])
def test_the_directories_say_whose_scan_it_is(bids, said):
    """A name may leave out participant and session, and does not win over its place."""
    folder = bids / "sub-002" / "ses-1" / "dwi"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("sub-002_ses-1_", said))
    assert names(chosen(bids, Visit("sub-002", "ses-1"))) == [f"{said}dwi.nii.gz"]
    assert [visit.label for visit in Dataset(bids).visits(["002"], None)] == [
        "sub-002_ses-1",
        "sub-002_ses-2",
    ]


@pytest.mark.parametrize(
    ("directory", "visit"),
    [("sub-a.b", Visit("sub-a.b", None)), ("sub-003/ses-2020-01", Visit("sub-003", "ses-2020-01"))],
)
def test_a_label_that_bids_does_not_allow_is_refused_by_name(bids, directory, visit):
    scan(bids / directory / "dwi", f"{visit.label}_dwi")
    assert visit in Dataset(bids).visits(None, None)
    with pytest.raises(DataError, match=f"{visit.label}: a label has letters, digits and"):
        chosen(bids, visit)


def test_a_scan_behind_a_link_is_found(bids, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (bids / "sub-001").rename(elsewhere / "sub-001")
    (bids / "sub-001").symlink_to(elsewhere / "sub-001")
    (elsewhere / "sub-001" / "dwi" / "round").symlink_to(elsewhere / "sub-001")
    (bids / "circle").symlink_to("circle")
    (bids / "all").symlink_to(bids)
    files = chosen(bids)
    assert (names(files), files.left_out) == (["sub-001_dwi.nii.gz"], ())
    assert files.runs[0].dwi.is_relative_to(bids)


def test_a_scan_whose_content_was_not_fetched_is_not_passed_over(bids):
    """git-annex leaves a link that leads nowhere; the visit must fail, not become one of fewer runs."""
    path = bids / "sub-001" / "dwi" / "sub-001_dwi.nii.gz"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/zz/sub-001_dwi.nii.gz")
    dataset = Dataset(bids)
    assert names(dataset.files(ONE, segmentation="pair")) == ["sub-001_dwi.nii.gz"]
    assert dataset.same_scans() == {}


def test_derivatives_of_derivatives_are_not_looked_at(bids, preprocessed):
    shutil.copytree(preprocessed, preprocessed / "derivatives" / "inner")
    assert chosen(bids).preprocessed_by == "QSIPrep 1.0.1"


def test_a_derivative_directory_without_a_description_is_passed_over(bids, preprocessed):
    (preprocessed / "dataset_description.json").unlink()
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]


def test_the_directory_of_derivatives_may_be_one_dataset(bids, preprocessed):
    shutil.move(preprocessed / "dataset_description.json", bids / "derivatives")
    assert chosen(bids).preprocessed_by == "QSIPrep 1.0.1"


def test_a_dataset_may_have_a_dot_in_its_name(bids, preprocessed):
    preprocessed.rename(preprocessed.with_name("qsiprep-1.0.1"))
    moved = bids.rename(bids.with_name("study.v2"))
    assert names(chosen(moved)) == ["sub-001_space-ACPC_desc-preproc_dwi.nii.gz"]


@pytest.mark.parametrize("directory", ["work", "sub-001/sourcedata", "sub-001/dwi/.trash", "code", "stimuli"])
def test_what_is_left_aside_is_left_aside_at_any_depth(bids, preprocessed, directory):
    for root in (bids, preprocessed):
        scan(root / directory / "sub-001" / "dwi", "sub-001_acq-z_dwi", volumes=20)
    assert names(chosen(bids, Visit("sub-001", None))) == ["sub-001_space-ACPC_desc-preproc_dwi.nii.gz"]


def test_a_directory_that_may_not_be_read_stops_nobody_else(bids, monkeypatch):
    scandir = os.scandir

    def refused(directory):
        if os.fspath(directory).endswith("sub-002"):
            raise PermissionError
        return scandir(directory)

    monkeypatch.setattr(os, "scandir", refused)
    visits = Dataset(bids).visits(None, None)
    assert visits == [ONE, Visit("sub-002", None)]


@pytest.mark.parametrize("extension", [".nii.gz", ".nii"])
def test_labels_may_be_packed_or_not(bids, extension):
    path = labels(bids, "sub-001", "anat", name=f"sub-001_seg-pair_dseg{extension}")
    assert chosen(bids).labels == path
