"""Tests of BIDS datasets: which files a connectome is made from, and what is refused in words."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from esn_client.imaging.bids import duplicates
from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.scan_files import sha256_of
from esn_client.imaging.bids.visits import Visit
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON: Expecting value"),
        ("[]", "a JSON object, in braces, is needed; found list"),
        ("{", "not JSON: Expecting property name"),
        ("{}", "says nothing"),
        ("[" * 100_000, "not JSON: maximum recursion depth"),
    ],
)
def test_a_damaged_description_is_no_dataset(bids, content, words):
    (bids / "dataset_description.json").write_text(content)
    with pytest.raises(DataError, match=rf"no BIDS dataset; dataset_description\.json:? {words}"):
        Dataset(bids)


def test_a_description_that_was_not_fetched_is_told_apart(bids):
    (bids / "dataset_description.json").unlink()
    (bids / "dataset_description.json").symlink_to(".git/annex/objects/zz/gone")
    with pytest.raises(DataError, match=r"its files were not fetched; run 'datalad get \.' in it first"):
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
        match=r"2 series with 6 .* each \(sub-001_acq-b_dwi\.nii\.gz, sub-001_dwi\.nii\.gz\); keep one$",
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


def sidecar(folder, name, **content):
    (folder / f"{name}.json").write_text(json.dumps(content))


def two_runs(bids, first, second, *, volumes=(7, 7)):
    """Write two runs, each with what its sidecar says."""
    folder = bids / "sub-001" / "dwi"
    for path in folder.iterdir():
        path.unlink()
    for run, said, size in zip((1, 2), (first, second), volumes, strict=True):
        scan(folder, f"sub-001_run-{run}_dwi", volumes=size)
        sidecar(folder, f"sub-001_run-{run}_dwi", **said)
    return chosen(bids)


AP = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}


@pytest.mark.parametrize("other", [AP, AP | {"TotalReadoutTime": 0.0501}, {"PhaseEncodingDirection": "j-"}])
def test_runs_that_are_warped_alike_are_joined(bids, other):
    files = two_runs(bids, AP, other)
    assert names(files) == ["sub-001_run-1_dwi.nii.gz", "sub-001_run-2_dwi.nii.gz"]
    assert files.warnings == ()


@pytest.mark.parametrize(
    "other",
    [
        AP | {"PhaseEncodingDirection": "j"},
        AP | {"PhaseEncodingDirection": "i-"},
        AP | {"TotalReadoutTime": 0.1},
    ],
)
def test_runs_that_are_warped_differently_are_never_joined(bids, other):
    files = two_runs(bids, AP, other, volumes=(7, 5))
    assert names(files) == ["sub-001_run-1_dwi.nii.gz"]
    assert [path.name for path in files.left_out] == ["sub-001_run-2_dwi.nii.gz"]
    (warning,) = files.warnings
    assert warning.startswith(
        "sub-001_run-2_dwi.nii.gz was left out: it is warped differently (phase encoding "
    )
    with pytest.raises(DataError, match=r"; they are warped differently: let FSL's topup or QSIPrep join"):
        two_runs(bids, AP, other)


def test_what_holds_for_all_runs_is_inherited_from_above(bids):
    files = two_runs(bids, AP, {"PhaseEncodingDirection": "j"}, volumes=(7, 5))
    (bids / "dwi.json").write_text(json.dumps({"SliceEncodingDirection": "i", "PhaseEncodingDirection": "k"}))
    (run,) = chosen(bids).runs
    assert (run.slice_axis, run.phase_encoding, run.readout_s) == (0, "j-", 0.05)
    assert [path.name for path in run.sidecars] == ["sub-001_run-1_dwi.json", "dwi.json"]
    assert set(chosen(bids).sha256s(bids)) - set(files.sha256s(bids)) == {"dwi.json"}


@pytest.mark.parametrize("unknown", [{}, {"PhaseEncodingAxis": "j"}, {"PhaseEncodingDirection": "AP"}])
def test_runs_of_unknown_phase_encoding_are_joined_with_a_warning(bids, unknown):
    files = two_runs(bids, AP, unknown)
    assert len(files.runs) == 2
    assert "no sidecar says in which direction sub-001_run-2_dwi.nii.gz was phase" in files.warnings[0]


def test_a_run_of_b0s_alone_that_may_be_reversed_is_left_out(bids):
    """It adds no direction, and a brain that is warped the other way."""
    two_runs(bids, AP, {}, volumes=(7, 2))
    (bids / "sub-001" / "dwi" / "sub-001_run-2_dwi.bval").write_text("0 0")
    files = chosen(bids)
    assert names(files) == ["sub-001_run-1_dwi.nii.gz"]
    assert [path.name for path in files.left_out] == ["sub-001_run-2_dwi.nii.gz"]
    assert "it has b0s alone, and no sidecar says in which direction they were phase" in files.remarks[0]
    assert files.warnings == ()


def test_the_only_b0s_are_kept_whatever_their_phase_encoding(bids):
    two_runs(bids, AP, {}, volumes=(7, 2))
    (bids / "sub-001" / "dwi" / "sub-001_run-1_dwi.bval").write_text(" ".join(["1000"] * 7))
    (bids / "sub-001" / "dwi" / "sub-001_run-2_dwi.bval").write_text("0 0")
    assert len(chosen(bids).runs) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("SliceEncodingDirection", "up"), ("PhaseEncodingDirection", ["j"]), ("PhaseEncodingDirection", "PA")],
)
def test_an_axis_that_bids_does_not_have_is_named(bids, key, value):
    sidecar(bids / "sub-001" / "dwi", "sub-001_dwi", **{key: value})
    (warning,) = chosen(bids).warnings
    assert f"{key} is {value!r} in its sidecar, which names no axis (i, i-, j, j-, k, k-)" in warning


@pytest.mark.parametrize("readout", [float("inf"), float("nan"), -1, 0, "0.05", None])
def test_a_readout_time_that_is_none_is_not_said(bids, readout):
    sidecar(bids / "sub-001" / "dwi", "sub-001_dwi", TotalReadoutTime=readout)
    assert chosen(bids).runs[0].readout_s is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_sidecar_is_read_however_a_converter_spelt_it(bids, encoding):
    text = '{"InstitutionName": "Zürich", "SliceEncodingDirection": "i"}'
    (bids / "sub-001" / "dwi" / "sub-001_dwi.json").write_bytes(text.encode(encoding))
    assert chosen(bids).runs[0].slice_axis == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1,', "not JSON: "),
        ("[1]", "a JSON object, in braces, is needed; found list"),
        ("", "not JSON"),
    ],
)
def test_a_damaged_sidecar_is_refused_by_name(bids, content, words):
    """Slices and warps would be unknown without a word."""
    (bids / "sub-001" / "dwi" / "sub-001_dwi.json").write_text(content)
    with pytest.raises(DataError, match=rf"^sub-001: sub-001_dwi\.json: {words}.*; correct the file"):
        chosen(bids)


def test_two_directions_of_phase_encoding_are_not_to_be_joined_as_runs(bids):
    for direction in ("AP", "PA"):
        scan(bids / "sub-001" / "dwi", f"sub-001_dir-{direction}_dwi", volumes=9)
    with pytest.raises(DataError, match=r"dir-PA_dwi\.nii\.gz\); they are warped differently") as caught:
        chosen(bids)
    assert "as runs" not in str(caught.value)


def test_another_pipelines_runs_are_warped_no_more(bids, preprocessed):
    folder = preprocessed / "sub-001" / "dwi"
    for path in folder.iterdir():
        path.unlink()
    for run, direction in ((1, "j"), (2, "j-")):
        name = f"sub-001_run-{run}_space-ACPC_desc-preproc_dwi"
        scan(folder, name)
        sidecar(folder, name, PhaseEncodingDirection=direction)
    assert len(chosen(bids).runs) == 2


def b0_series(folder, name, volumes):
    scan(folder, name, volumes=volumes)
    for suffix in (".bval", ".bvec"):
        (folder / f"{name}{suffix}").unlink()


@pytest.mark.parametrize("name", ["sub-001_dir-PA_dwi", "sub-001_run-2_dwi"])
@pytest.mark.parametrize("volumes", [1, 3])
def test_b0s_without_a_table_are_left_out_and_named(bids, name, volumes):
    b0_series(bids / "sub-001" / "dwi", name, volumes)
    files = chosen(bids)
    assert names(files) == ["sub-001_dwi.nii.gz"]
    assert [path.name for path in files.left_out] == [f"{name}.nii.gz"]
    assert files.remarks == (f"{name}.nii.gz was left out: it has no gradient table, as a b0 series",)


def test_b0s_beside_a_series_whose_table_is_its_own_are_left_out(bids):
    """As a pair is named: nothing of dir-AP holds for dir-PA."""
    folder = bids / "sub-001" / "dwi"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("_dwi", "_dir-AP_dwi"))
    b0_series(folder, "sub-001_dir-PA_dwi", 2)
    assert names(chosen(bids)) == ["sub-001_dir-AP_dwi.nii.gz"]


def test_b0s_with_b_values_and_without_vectors_are_left_out_too(bids):
    scan(bids / "sub-001" / "dwi", "sub-001_dir-PA_dwi", volumes=2)
    (bids / "sub-001" / "dwi" / "sub-001_dir-PA_dwi.bvec").unlink()
    (bids / "sub-001" / "dwi" / "sub-001_dir-PA_dwi.bval").write_text("0 5")
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]


def test_a_series_that_lost_its_table_is_no_b0_series(bids):
    folder = bids / "sub-001" / "dwi"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("_dwi", "_acq-short_dwi"))
    b0_series(folder, "sub-001_acq-main_dwi", 64)
    with pytest.raises(
        DataError, match=r"acq-main_dwi\.bval is missing .* its 64 volumes are too many for b0s"
    ):
        chosen(bids)


def test_names_in_capitals_are_read(bids):
    folder = bids / "sub-001" / "dwi"
    for path in list(folder.iterdir()):
        stem, _, extension = path.name.partition(".")
        path.rename(folder / f"{stem}.{extension.upper()}")
    (run,) = chosen(bids).runs
    assert [path.name for path in (run.dwi, run.bval, run.bvec)] == [
        f"sub-001_dwi.{extension}" for extension in ("NII.GZ", "BVAL", "BVEC")
    ]
    assert run.count_weighted() == 6


@pytest.mark.parametrize(
    ("generated_by", "convention"),
    [
        ([{"Name": "QSIPrep", "Version": "0.20.0"}], "image"),
        ([{"Name": "qsiprep"}, {"Name": "datalad"}], "image"),
        ([{"Name": "datalad"}, {"Name": "QSIPrep", "Version": "1.0.1"}], "image"),
        ([{"Name": "pennlinc/qsiprep", "Version": "1.0.1"}], "image"),
        ([{"Name": "QSIRecon"}], "image"),
        ({"Name": "QSIPrep", "Version": "0.16.1"}, "image"),
        ([{"Name": "FSL eddy", "Version": "6.0.7"}], "fsl"),
        ([], "fsl"),
        ("QSIPrep", "fsl"),
        ([{"Name": 3}, "x"], "fsl"),
    ],
)
def test_the_pipeline_says_which_axes_its_vectors_follow(preprocessed, generated_by, convention):
    dataset = preprocessed.rename(preprocessed.with_name("corrected"))
    describe(dataset, DatasetType="derivative", GeneratedBy=generated_by)
    assert chosen(dataset).runs[0].convention == convention


def test_a_pipeline_may_describe_itself_as_before_bids_1_4(preprocessed):
    dataset = preprocessed.rename(preprocessed.with_name("corrected"))
    describe(dataset, PipelineDescription={"Name": "qsiprep", "Version": "0.8.0"})
    files = chosen(dataset)
    assert (files.preprocessed_by, files.runs[0].convention) == ("qsiprep 0.8.0", "image")


def test_a_derivative_whose_description_was_not_fetched_is_not_passed_over(bids, preprocessed):
    """Its scan would be left aside for the raw one, or its table read by the wrong rule."""
    (preprocessed / "dataset_description.json").unlink()
    (preprocessed / "dataset_description.json").symlink_to("../../.git/annex/objects/zz/gone")
    with pytest.raises(DataError, match=r"datalad get derivatives/qsiprep/dataset_description\.json' in the"):
        chosen(bids)


def test_a_derivative_whose_description_is_damaged_is_not_read_by_a_guess(bids, preprocessed):
    (preprocessed / "dataset_description.json").write_text("{")
    with pytest.raises(DataError, match=r"sub-001: in derivatives/qsiprep: dataset_description\.json: not"):
        chosen(bids)


def test_a_directory_is_named_like_the_pipeline_that_does_not_say_so(preprocessed):
    describe(preprocessed, DatasetType="derivative")
    files = chosen(preprocessed)
    assert (files.preprocessed_by, files.runs[0].convention) == ("qsiprep", "image")


def test_a_table_in_scanner_coordinates_is_taken_from_a_derivative_alone(bids, preprocessed):
    touch(bids / "sub-001" / "dwi" / "sub-001_dwi.b")
    table = touch(preprocessed / "sub-001" / "dwi" / "sub-001_space-ACPC_desc-preproc_dwi.b")
    assert chosen(bids).runs[0].scanner == table
    shutil.rmtree(preprocessed)
    assert chosen(bids).runs[0].scanner is None


def counting(monkeypatch):
    """List which files are read whole."""
    whole = []
    monkeypatch.setattr(duplicates, "sha256_of", lambda path: whole.append(path.name) or sha256_of(path))
    return whole


def test_scans_of_equal_size_are_not_read_whole_unless_a_sample_is_equal(tmp_path, monkeypatch):
    """Uncompressed scans of one grid all have one size."""
    describe(tmp_path)
    rng, whole = np.random.default_rng(0), counting(monkeypatch)
    for number in range(4):
        name = f"sub-00{number}"
        folder = tmp_path / name / "dwi"
        folder.mkdir(parents=True)
        voxels = rng.integers(0, 1000, (20, 20, 20, 7), dtype=np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{name}_dwi.nii")
    assert all_same_scans(tmp_path) == {}
    assert whole == []
    shutil.copy(tmp_path / "sub-001/dwi/sub-001_dwi.nii", tmp_path / "sub-003/dwi/sub-003_dwi.nii")
    assert Dataset(tmp_path).same_scans([Visit("sub-002", None)]) == {}
    assert whole == []
    assert Dataset(tmp_path).same_scans([Visit("sub-003", None)]) == {"sub-003": "sub-001"}
    assert sorted(whole) == ["sub-001_dwi.nii", "sub-003_dwi.nii"]


def test_scans_that_differ_in_one_byte_between_the_samples_are_two(tmp_path):
    describe(tmp_path)
    content = np.random.default_rng(0).bytes(200_000)
    for name, last in (("sub-001", b"a"), ("sub-002", b"b")):
        path = tmp_path / name / "dwi" / f"{name}_dwi.nii"
        path.parent.mkdir(parents=True)
        path.write_bytes(content[:50_000] + last + content[50_001:])
    assert all_same_scans(tmp_path) == {}


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


def all_same_scans(bids):
    dataset = Dataset(bids)
    return dataset.same_scans(dataset.visits(None, None))


def test_a_scan_under_two_sessions_of_a_child_is_seen(bids):
    dataset = Dataset(bids)
    visits = dataset.visits(None, None)
    assert dataset.scans_of_two_visits(visits) == {}
    first, second = (f"sub-002/ses-{n}/dwi/sub-002_ses-{n}_dwi.nii.gz" for n in (1, 2))
    shutil.copy(bids / first, bids / second)
    assert all_same_scans(bids) == {}
    assert dataset.scans_of_two_visits(visits) == {
        "sub-002_ses-1": "sub-002_ses-2",
        "sub-002_ses-2": "sub-002_ses-1",
    }
    assert dataset.scans_of_two_visits([Visit("sub-002", "ses-2")]) == {"sub-002_ses-2": "sub-002_ses-1"}


def test_a_scan_under_two_labels_is_seen(bids):
    assert all_same_scans(bids) == {}
    shutil.copytree(bids / "sub-001", bids / "sub-009")
    folder = bids / "sub-009" / "dwi"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("001", "009"))
    assert all_same_scans(bids) == {"sub-001": "sub-009", "sub-009": "sub-001"}
    assert Dataset(bids).same_scans([ONE]) == {"sub-001": "sub-009"}
    assert Dataset(bids).same_scans([Visit("sub-002", "ses-1")]) == {}


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
    with pytest.raises(DataError, match=UNFETCHED + r"sub-001/dwi/sub-001_dwi\.nii\.gz' in the dataset"):
        chosen(bids)
    assert all_same_scans(bids) == {}


UNFETCHED = r"sub-001: the content of \S+ is not here, only a link to it; run 'datalad get "
POINTER = b"/annex/objects/MD5E-s3--a.nii.gz\n"


@pytest.mark.parametrize("name", ["sub-001_dwi.bval", "sub-001_dwi.bvec", "sub-001_dwi.json", "dseg"])
@pytest.mark.parametrize("unlocked", [False, True])
def test_tables_sidecars_and_labels_that_were_not_fetched_are_named(bids, name, unlocked):
    own = labels(bids, "sub-001", "dwi", name="sub-001_seg-pair_dseg.nii.gz")
    path = own if name == "dseg" else bids / "sub-001" / "dwi" / name
    path.unlink(missing_ok=True)
    if unlocked:
        path.write_bytes(POINTER)
    else:
        path.symlink_to("../../.git/annex/objects/zz/gone")
    with pytest.raises(DataError, match=f"{UNFETCHED}{path.relative_to(bids).as_posix()}' in the dataset"):
        chosen(bids)


def test_a_series_that_is_not_used_need_not_be_fetched(bids):
    """Its table alone decides that."""
    scan(bids / "sub-001" / "dwi", "sub-001_acq-b_dwi", volumes=3)
    path = bids / "sub-001" / "dwi" / "sub-001_acq-b_dwi.nii.gz"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/zz/gone")
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]


def test_derivatives_of_derivatives_are_not_looked_at(bids, preprocessed):
    shutil.copytree(preprocessed, preprocessed / "derivatives" / "inner")
    assert chosen(bids).preprocessed_by == "QSIPrep 1.0.1"


def test_a_derivative_directory_without_a_description_is_passed_over(bids, preprocessed):
    (preprocessed / "dataset_description.json").unlink()
    assert names(chosen(bids)) == ["sub-001_dwi.nii.gz"]
    (warning,) = chosen(bids).warnings
    assert warning == (
        "derivatives/qsiprep/sub-001/dwi/sub-001_space-ACPC_desc-preproc_dwi.nii.gz is not used: "
        "derivatives/qsiprep has no dataset_description.json"
    )


@pytest.mark.parametrize("name", ["sub-001_label-resection_mask.nii.gz", "sub-001_seg-pair_dseg.nii"])
def test_labels_and_masks_in_a_directory_without_a_description_are_named(bids, name):
    touch(bids / "derivatives" / "drawn" / "sub-001" / "dwi" / name)
    (warning,) = chosen(bids).warnings
    assert warning == (
        f"derivatives/drawn/sub-001/dwi/{name} is not used: derivatives/drawn has no dataset_description.json"
    )
    assert chosen(bids, Visit("sub-002", "ses-1")).warnings == ()


@pytest.mark.parametrize(
    "name", ["sub-001_label-lesion_roi", "sub-001_desc-lesion_mask", "sub-001_T1w_label-Resection_roi"]
)
def test_a_mask_by_another_name_is_named_and_not_used(bids, name):
    describe(bids / "derivatives" / "masks")
    touch(bids / "derivatives" / "masks" / "sub-001" / "dwi" / f"{name}.nii.gz")
    files = chosen(bids)
    assert files.lesion is None
    (warning,) = files.warnings
    assert "is not used: a mask of what is lost is named …_label-lesion_mask.nii.gz or" in warning


def test_an_image_that_names_an_operation_is_no_mask(bids):
    touch(bids / "sub-001" / "anat" / "sub-001_acq-postresection_T1w.nii.gz")
    assert chosen(bids).warnings == ()


def test_a_masks_label_may_have_capitals(bids):
    describe(bids / "derivatives" / "masks")
    drawn = touch(bids / "derivatives" / "masks" / "sub-001" / "dwi" / "sub-001_label-Lesion_mask.nii.gz")
    assert chosen(bids).lesion == drawn


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


def image(folder, name, *, shape=(3, 3, 3), kind=nib.Nifti1Image):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(kind(np.ones(shape, dtype=np.float32), np.eye(4)), folder / name)


def test_a_lesion_mask_of_the_visit_is_taken(bids):
    masks = bids / "derivatives" / "masks"
    describe(masks, DatasetType="derivative")
    image(masks / "sub-001" / "dwi", "sub-001_label-resection_mask.nii.gz")
    image(masks / "sub-001" / "dwi", "sub-001_desc-brain_mask.nii.gz")
    files = chosen(bids)
    assert files.lesion.name == "sub-001_label-resection_mask.nii.gz"
    assert "derivatives/masks/sub-001/dwi/sub-001_label-resection_mask.nii.gz" in files.sha256s(bids)
    image(masks / "sub-001" / "dwi", "sub-001_label-lesion_mask.nii.gz")
    with pytest.raises(DataError, match="one lesion mask is needed; found"):
        chosen(bids)


def test_a_mask_that_names_no_session_does_not_hold_before_the_operation(bids):
    masks = bids / "derivatives" / "masks"
    describe(masks, DatasetType="derivative")
    image(masks / "sub-002" / "dwi", "sub-002_label-lesion_mask.nii.gz")
    with pytest.raises(DataError, match="a lesion mask of sub-002 names no session"):
        chosen(bids, Visit("sub-002", "ses-1"))
    folder = masks / "sub-002" / "ses-2" / "dwi"
    (masks / "sub-002" / "dwi" / "sub-002_label-lesion_mask.nii.gz").unlink()
    image(folder, "sub-002_ses-2_label-lesion_mask.nii.gz")
    assert chosen(bids, Visit("sub-002", "ses-1")).lesion is None
    assert chosen(bids, Visit("sub-002", "ses-2")).lesion is not None


def test_freesurfers_labels_are_found_where_freesurfer_leaves_them(bids):
    mri = bids / "derivatives" / "freesurfer" / "sub-002_ses-1" / "mri"
    image(mri, "aparc+aseg.mgz", kind=nib.MGHImage)
    with pytest.raises(DataError, match=r"aparc\+aseg.mgz needs brain.mgz or"):
        chosen(bids, Visit("sub-002", "ses-1"))
    for name in ("T1.mgz", "brain.mgz"):
        image(mri, name, kind=nib.MGHImage)
    found = chosen(bids, Visit("sub-002", "ses-1")).anatomy
    assert (found.t1w.name, found.labels.name, found.freesurfer) == ("brain.mgz", "aparc+aseg.mgz", True)
    assert chosen(bids, Visit("sub-002", "ses-2")).anatomy is None
    assert chosen(bids).anatomy is None


def test_labels_in_t1_space_yield_to_those_on_the_scan_and_the_atlas_own_win(bids):
    prep = bids / "derivatives" / "prep"
    describe(prep, DatasetType="derivative")
    anat = prep / "sub-001" / "anat"
    image(anat, "sub-001_desc-aparcaseg_dseg.nii.gz")
    with pytest.raises(DataError, match="needs one T1w image beside it, on whose grid it lies; found 0"):
        chosen(bids)
    image(anat, "sub-001_desc-preproc_T1w.nii.gz")
    image(anat, "sub-001_space-MNI152NLin6Asym_desc-preproc_T1w.nii.gz")
    image(anat, "sub-001_space-MNI152NLin6Asym_desc-aparcaseg_dseg.nii.gz")
    image(anat, "sub-001_acq-other_T1w.nii.gz")
    assert chosen(bids).anatomy.freesurfer
    assert chosen(bids).anatomy.t1w.name == "sub-001_desc-preproc_T1w.nii.gz"
    image(anat, "sub-001_seg-pair_dseg.nii.gz")
    found = chosen(bids)
    assert (found.labels, found.anatomy.labels.name) == (None, "sub-001_seg-pair_dseg.nii.gz")
    assert not found.anatomy.freesurfer
    image(prep / "sub-001" / "dwi", "sub-001_seg-pair_dseg.nii.gz")
    assert chosen(bids).anatomy is None
    assert chosen(bids).labels is not None


def beside(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_raw_scan_is_not_corrected_for_susceptibility_and_what_could_help_is_named(bids):
    assert chosen(bids).susceptibility.state == "not corrected"
    beside(bids / "sub-001" / "dwi" / "sub-001_dwi.json", PhaseEncodingDirection="j-")
    fmap = bids / "sub-001" / "fmap"
    image(fmap, "sub-001_dir-PA_epi.nii.gz")
    beside(fmap / "sub-001_dir-PA_epi.json", PhaseEncodingDirection="j")
    image(fmap, "sub-001_dir-LR_epi.nii.gz")
    beside(fmap / "sub-001_dir-LR_epi.json", PhaseEncodingDirection="i")
    found = chosen(bids).susceptibility
    assert [path.name for path in found.unused] == ["sub-001_dir-PA_epi.nii.gz"]
    assert "along the image's axis j" in found.words
    assert "sub-001_dir-PA_epi.nii.gz lies there unused" in found.words


@pytest.mark.parametrize(
    ("made_by", "said", "state"),
    [
        ([{"Name": "QSIPrep", "Version": "0.21"}], {}, "not said"),
        ([{"Name": "QSIPrep", "Version": "0.21"}], {"SusceptibilityCorrected": True}, "corrected"),
        ([{"Name": "QSIPrep", "Version": "0.21"}], {"SusceptibilityCorrected": False}, "not corrected"),
        ([{"Name": "FSL eddy"}, {"Name": "FSL topup"}], {}, "corrected"),
        ([{"Name": "FSL eddy"}], {}, "not said"),
    ],
)
def test_a_preprocessed_scan_is_corrected_where_it_says_so(bids, made_by, said, state):
    prep = bids / "derivatives" / "prep"
    describe(prep, DatasetType="derivative", GeneratedBy=made_by)
    scan(prep / "sub-001" / "dwi", "sub-001_desc-preproc_dwi")
    beside(prep / "sub-001" / "dwi" / "sub-001_desc-preproc_dwi.json", **said)
    found = chosen(bids).susceptibility
    assert found.state == state
    assert made_by[0]["Name"] in found.words
