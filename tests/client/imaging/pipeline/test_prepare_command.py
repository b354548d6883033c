"""Tests of ``esn-client prepare``: bad input is one clear line, reruns do what is missing."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from esn_client.cli import main as cli
from esn_client.imaging import stages
from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.derivatives import load_connectome
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_client.simulation.scans import write_site
from esn_core.identity.roster import RosterEntry
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_server.protocol.drafting import draft

SETTINGS = tomllib.loads(
    files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text()
)
RECIPE = ImagingRecipe(**(SETTINGS | {"seeds": 1500}))
GOOD, BAD = "sub-001", "sub-002"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A site of two children, drawn once."""
    directory = tmp_path_factory.mktemp("site") / "bids"
    write_site(directory, site="north", seed=9, children=2, controls=0, truth=None)
    return directory


@pytest.fixture
def bids(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "bids")


@pytest.fixture
def protocol(tmp_path, roster):
    """A protocol with few seeds."""
    text = draft(
        study="test",
        roster=[RosterEntry.model_validate(entry) for entry in roster],
        simulated=True,
        trust="secure-sum",
        colluding_sites=1,
        noise="gaussian",
        epsilon=8.0,
        delta=1e-3,
        split_salt="x",
        training_rounds=2,
        deadline_s=5.0,
        analyses=Analyses(),
    )
    path = tmp_path / "protocol.toml"
    path.write_text(text.replace("seeds = 20000", "seeds = 1500"))
    return path


@pytest.fixture
def esn_prepare(run_command, protocol):
    """A function that runs prepare; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-client", cli.main, "prepare", "--protocol", protocol)


def dwi(bids, participant):
    return bids / participant / "dwi" / f"{participant}_dwi.nii.gz"


def voxels(change):
    """Make a function that changes the voxels of a scan."""

    def apply(path):
        image = nib.load(path)
        data = change(np.asarray(image.dataobj).copy())
        kind = np.int16 if data.dtype == np.int64 else data.dtype
        nib.save(nib.Nifti1Image(data.astype(kind), image.affine), path)

    return apply


def with_value(value, *, kind=np.float32):
    def change(data):
        data = data.astype(kind)
        data[10:18, 14:20, 12, 5] = value
        return data

    return voxels(change)


def truncate(path):
    path.write_bytes(path.read_bytes()[:50_000])


def table(suffix, change):
    """Make a function that changes a gradient table."""

    def apply(path):
        text = path.with_name(path.name.replace("nii.gz", suffix))
        np.savetxt(text, change(np.loadtxt(text, ndmin=2)), fmt="%g")

    return apply


def keep_few(path):
    voxels(lambda data: data[..., :24])(path)
    table("bval", lambda b: b[:, :24])(path)
    table("bvec", lambda v: v[:, :24])(path)


def without(suffix):
    return lambda path: path.with_name(path.name.replace("nii.gz", suffix)).unlink()


def cut(path):
    """Show the lower half of the head only, in the scan and in its labels."""
    voxels(lambda data: data[:, :, : data.shape[2] // 2])(path)
    (labels,) = path.parents[2].glob(f"derivatives/labels/{path.parents[1].name}/dwi/*.nii.gz")

    def keep_names(data):
        lower = data[:, :, : data.shape[2] // 2].copy()
        lost = sorted(set(np.unique(data)) - set(np.unique(lower)))
        lower[: len(lost), 0, 0] = lost
        return lower

    voxels(keep_names)(labels)


def face(path):
    """A T1w image of nothing but a face; the diffusion scan is sound."""
    anat = path.parents[1] / "anat"
    anat.mkdir()
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), dtype=np.int16), np.eye(4)), anat / "sub-face_T1w.nii.gz")


BAD_INPUT = {
    "truncated": (truncate, "truncated_dwi.nii.gz: not a whole NIfTI image"),
    "novectors": (without("bvec"), "novectors_dwi.bvec is missing beside sub-novectors_dwi.nii.gz"),
    "novalues": (without("bval"), "novalues_dwi.bval is missing beside sub-novalues_dwi.nii.gz"),
    "zerovectors": (
        table("bvec", lambda v: v * 0),
        "volume 4 has b = 1000 and a vector of length 0; 1 is needed",
    ),
    "nob0": (table("bval", lambda b: b + 1000), "no b0; one volume of b <= 50 s/mm2 or more is needed"),
    "fewdirections": (keep_few, "20 distinct directions; order 6 needs 28 or more"),
    "empty": (voxels(lambda d: d * 0), "all voxels have the value 0"),
    "dark": (voxels(lambda d: np.where(np.arange(d.shape[3]) == 7, 0, d)), "volume 7 is empty"),
    "nan": (with_value(np.nan), "voxels are NaN or infinite, the first at"),
    "infinite": (with_value(np.inf), "voxels are NaN or infinite, the first at"),
    "negative": (voxels(lambda d: d - 300), "% of the voxels are negative"),
    "overflow": (voxels(lambda d: (d.astype(int) * 40).astype(np.int16)), "as after an overflow of integers"),
    "ceiling": (
        voxels(lambda d: np.clip(d.astype(int) * 40, 0, 32767).astype(np.int16)),
        "have the largest value that the file can hold, 32767",
    ),
    "cutoff": (cut, "the brain is cut off above"),
}


@pytest.fixture(scope="module")
def spoilt(clean, tmp_path_factory):
    """One good subject, one with a useless T1w image, and one of each kind of bad input; prepared."""
    folder = tmp_path_factory.mktemp("spoilt")
    bids, labels = folder / "bids", "derivatives/labels"
    shutil.copytree(clean, bids)
    shutil.rmtree(bids / BAD)
    for count, (kind, (spoil, _)) in enumerate({**BAD_INPUT, "face": (face, "")}.items()):
        name = f"sub-{kind}"
        for where in (bids, bids / labels):
            target = shutil.copytree(where / GOOD, where / name)
            for path in list(target.rglob("*.*")):
                path.rename(path.with_name(path.name.replace(GOOD, name)))
        # No two scans may be the same, byte for byte.
        voxels(
            lambda data, count=count: np.where(np.arange(data.size).reshape(data.shape) == count, 1, data)
        )(dwi(bids, name))
        spoil(dwi(bids, name))
    return folder


def lines_of(err):
    return {line.split(": ")[1]: line for line in err.splitlines() if line.startswith("not prepared: ")}


def test_bad_input_is_one_clear_line_each_and_the_rest_goes_on(spoilt, protocol, run_command):
    status, out, err = run_command(
        *("esn-client", cli.main, "prepare", "--protocol", protocol),
        *(spoilt / "bids", spoilt / "out", "participant", "--skip-pages", "--n-procs", "2"),
    )
    assert (status, out) == (17, "")
    lines = lines_of(err)
    assert set(lines) == {f"sub-{kind}" for kind in BAD_INPUT}
    for kind, (_, words) in BAD_INPUT.items():
        assert "DataError: " in lines[f"sub-{kind}"]
        assert words in lines[f"sub-{kind}"]
        assert not list((spoilt / "out").rglob(f"sub-{kind}_*relmat*"))
    assert err.splitlines()[-1] == (
        f"esn-client: {len(BAD_INPUT)} visits could not be prepared; the others are done"
    )
    for name in (GOOD, "sub-face"):
        assert load_connectome(spoilt / "out", name, RECIPE).counts.any()


def test_one_patient_under_two_labels_is_refused(bids, tmp_path, esn_prepare):
    shutil.copy(dwi(bids, GOOD), dwi(bids, BAD))
    status, _, err = esn_prepare(bids, tmp_path / "out", "participant")
    assert status == 17
    words = {
        GOOD: "its scan is sub-002's too, byte for byte",
        BAD: "its scan is sub-001's too, byte for byte",
    }
    assert all(words[name] in line for name, line in lines_of(err).items())
    assert len(lines_of(err)) == 2


def test_a_subject_that_needs_more_memory_than_there_may_be_is_refused(bids, tmp_path, esn_prepare):
    status, _, err = esn_prepare(bids, tmp_path / "out", "participant", "--mem-gb", "0.5")
    assert status == 17
    assert "needs about 0.8 GB of memory; --mem-gb allows 0.5" in lines_of(err)[GOOD]


def test_subjects_wait_for_memory(clean, tmp_path, monkeypatch):
    """With room for one, two workers never work at once."""
    from esn_client.imaging.pipeline import dataset_run as pipeline

    running, most = set(), 0
    submit = pipeline.ProcessPoolExecutor.submit

    def watch(pool, task, files, making):
        nonlocal most
        future = submit(pool, task, files, making)
        running.add(future)
        most = max(most, len(running))
        future.add_done_callback(running.discard)
        return future

    monkeypatch.setattr(pipeline.ProcessPoolExecutor, "submit", watch)
    done = prepare(clean, tmp_path, RECIPE, participants=None, n_procs=2, mem_gb=1.0, pages=False)
    assert (done, most) == ([], 1)


def test_a_disk_that_fills_up_midway_is_one_line_and_the_rerun_finishes(bids, tmp_path, monkeypatch):
    """The disk is full once two stages are stored; what was stored is used when there is room again."""
    files_ = Dataset(bids).files(Visit(GOOD, None), segmentation="phantom28")
    making = Making(bids, tmp_path / "out", RECIPE, tmp_path / "out" / "work", keep_work=False, pages=False)
    whole_file, stored = stages.whole_file, []

    def filling(path):
        if len(stored) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stored.append(path)
        return whole_file(path)

    monkeypatch.setattr(stages, "whole_file", filling)
    from esn_client.imaging.pipeline.dataset_run import _attempt

    failure = _attempt(files_, making)
    assert failure.error_class == "OSError"
    assert failure.message.startswith("no space left on the disk of ")
    assert failure.message.endswith("free some and run this again")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted(
        p.name for p in stored
    )
    monkeypatch.undo()
    assert prepare_subject(files_, making)
    record = json.loads(next((tmp_path / "out").rglob("*count_relmat.json")).read_text())
    assert [stage["FromDisk"] for stage in record["Stages"]] == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert not making.work.joinpath(GOOD).exists()


STAGES = ["tensor", "gradients", "response", "fodf", "labels", "parcellation", "tracking"]
"""Of a phantom: nothing to repair, labels ready."""
KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from esn_client.imaging import stages
from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_core.protocol.imaging_recipe import ImagingRecipe

bids, out, recipe, count = sys.argv[1:]
run, done = stages.Stages.run, []

def run_and_die(self, name, *args, **kwargs):
    if len(done) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(name)
    return run(self, name, *args, **kwargs)

stages.Stages.run = run_and_die
files = Dataset(Path(bids)).files(Visit("sub-001", None), segmentation="phantom28")
settings = ImagingRecipe.model_validate_json(recipe)
making = Making(Path(bids), Path(out), settings, Path(out, "work"), keep_work=False, pages=False)
prepare_subject(files, making)
"""


@pytest.fixture(scope="module")
def undisturbed_counts(clean, tmp_path_factory):
    """The connectome of a job that nobody killed."""
    out = tmp_path_factory.mktemp("whole")
    files_ = Dataset(clean).files(Visit(GOOD, None), segmentation="phantom28")
    prepare_subject(files_, Making(clean, out, RECIPE, out / "work", keep_work=False, pages=False))
    return load_connectome(out, GOOD, RECIPE).counts


@pytest.mark.slow
@pytest.mark.parametrize("finished", range(len(STAGES)))
def test_a_job_killed_at_any_stage_goes_on_where_it_was(clean, undisturbed_counts, tmp_path, finished):
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED_AFTER, clean, out, RECIPE.model_dump_json(), str(finished)]
    assert subprocess.run(command, capture_output=True).returncode == -9
    files_ = Dataset(clean).files(Visit(GOOD, None), segmentation="phantom28")
    assert prepare_subject(files_, Making(clean, out, RECIPE, out / "work", keep_work=False, pages=False))
    record = json.loads(next(out.rglob("*count_relmat.json")).read_text())
    assert [stage["FromDisk"] for stage in record["Stages"]] == [True] * finished + [False] * (
        len(STAGES) - finished
    )
    assert np.array_equal(load_connectome(out, GOOD, RECIPE).counts, undisturbed_counts)


def test_a_stage_that_was_damaged_on_the_disk_is_made_again(clean, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    files_ = Dataset(clean).files(Visit(GOOD, None), segmentation="phantom28")
    making = Making(clean, out, RECIPE, work, keep_work=True, pages=False)
    prepare_subject(files_, making)
    before = load_connectome(out, GOOD, RECIPE).counts
    tensor = next(work.rglob("tensor-*.npz"))
    content = bytearray(tensor.read_bytes())
    content[len(content) // 2] ^= 1
    tensor.write_bytes(content)
    shutil.rmtree(out)
    prepare_subject(files_, making)
    record = json.loads(next(out.rglob("*count_relmat.json")).read_text())
    assert [stage["Name"] for stage in record["Stages"] if not stage["FromDisk"]] == ["tensor"]
    assert np.array_equal(load_connectome(out, GOOD, RECIPE).counts, before)


def test_another_seed_count_starts_from_the_fodfs(clean, tmp_path):
    files_ = Dataset(clean).files(Visit(GOOD, None), segmentation="phantom28")
    for seeds in (1500, 2000):
        recipe = RECIPE.model_copy(update={"seeds": seeds})
        prepare_subject(
            files_, Making(clean, tmp_path / "out", recipe, tmp_path / "work", keep_work=True, pages=False)
        )
    record = json.loads(next((tmp_path / "out").rglob("*count_relmat.json")).read_text())
    assert [stage["Name"] for stage in record["Stages"] if not stage["FromDisk"]] == ["tracking"]


def test_participant_and_group_end_in_pages_and_a_table(bids, tmp_path, esn_prepare):
    """The whole way, as a hospital goes it, and what it leaves is a BIDS derivative dataset."""
    out = tmp_path / "out"
    words = ("--n-procs", "2", "--tractograms", "--participant-label", GOOD, "--participant-label", BAD)
    assert esn_prepare(bids, out, "participant", *words)[:2] == (0, f"{out}\n")
    for name in (GOOD, BAD):
        assert (out / f"{name}_seg-phantom28_quality.html").read_text().startswith("<!DOCTYPE html>")
        assert (out / name / "dwi" / f"{name}_tractogram.trx").stat().st_size > 10_000
    assert not (out / "work").exists()
    status, printed, err = esn_prepare(bids, out, "group", "--exclude-failed")
    assert status == 0
    assert [Path(line).name for line in printed.splitlines()] == [
        "seg-phantom28_quality.tsv",
        "seg-phantom28_quality.html",
    ]
    assert "2 visits: 0 not prepared, 0 fail, studies leave 0 out" in err
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    found = json.loads(
        subprocess.run([validator, "--json", out], capture_output=True, text=True, check=True).stdout
    )
    errors = [issue for issue in found["issues"]["issues"] if issue["severity"] == "error"]
    assert errors == []


def test_exclude_failed_belongs_to_the_group(bids, tmp_path, esn_prepare):
    status, _, err = esn_prepare(bids, tmp_path / "out", "participant", "--exclude-failed")
    assert status == 10
    assert "--exclude-failed belongs to the group level" in err


def test_nobody_has_the_session(bids, tmp_path, esn_prepare):
    status, _, err = esn_prepare(bids, tmp_path / "out", "participant", "--session-label", "7")
    assert status == 11
    assert "nobody has a session ses-7" in err


def test_a_session_and_joined_runs_make_one_connectome(bids, tmp_path):
    """A scan cut in two runs, in a session, gives the connectome of the whole."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert prepare(bids, whole, RECIPE, participants=[GOOD], n_procs=1, pages=False) == []
    image = nib.load(dwi(bids, GOOD))
    folder = bids / GOOD / "ses-1" / "dwi"
    folder.mkdir(parents=True)
    for run, part in ((1, slice(0, 18)), (2, slice(18, None))):
        stem = f"{GOOD}_ses-1_run-{run}_dwi"
        nib.save(
            nib.Nifti1Image(np.asarray(image.dataobj)[..., part], image.affine), folder / f"{stem}.nii.gz"
        )
        for suffix in ("bval", "bvec"):
            numbers = np.loadtxt(bids / GOOD / "dwi" / f"{GOOD}_dwi.{suffix}", ndmin=2)
            np.savetxt(folder / f"{stem}.{suffix}", numbers[:, part])
    shutil.rmtree(bids / GOOD / "dwi")
    assert prepare(bids, cut, RECIPE, participants=[GOOD], sessions=["1"], n_procs=1, pages=False) == []
    (matrix,) = cut.rglob("*meas-count_relmat.dense.tsv")
    assert matrix.name == f"{GOOD}_ses-1_seg-phantom28_meas-count_relmat.dense.tsv"
    assert np.array_equal(np.loadtxt(matrix), load_connectome(whole, GOOD, RECIPE).counts)


def test_a_preprocessed_scan_is_used_as_it_is(bids, tmp_path):
    """It is neither denoised nor aligned, whatever the recipe asks, and the record says whose work it was."""
    pipeline = bids / "derivatives" / "eddy"
    folder = pipeline / GOOD / "dwi"
    folder.mkdir(parents=True)
    about = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "FSL eddy", "Version": "6.0"}]}
    (pipeline / "dataset_description.json").write_text(json.dumps(about))
    for suffix in ("nii.gz", "bval", "bvec"):
        shutil.move(
            bids / GOOD / "dwi" / f"{GOOD}_dwi.{suffix}", folder / f"{GOOD}_desc-preproc_dwi.{suffix}"
        )
    recipe = RECIPE.model_copy(update={"denoise": "mppca", "gibbs": True, "motion": "rigid"})
    assert prepare(bids, tmp_path / "out", recipe, participants=[GOOD], n_procs=1, pages=False) == []
    record = json.loads(next((tmp_path / "out").rglob("*count_relmat.json")).read_text())
    assert record["PreprocessedBy"] == "FSL eddy 6.0"
    assert {"denoise", "gibbs", "motion"}.isdisjoint(stage["Name"] for stage in record["Stages"])
    assert "displacement_mm" not in record["Quality"]
