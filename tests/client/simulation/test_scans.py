"""Tests of simulated hospitals on disk."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.simulation.presets import SITES, scanner_of
from esn_client.simulation.scans import write_site
from esn_core.errors import ConfigError
from esn_core.protocol.imaging_recipe import recipe_settings
from esn_core.protocol.protocol import Protocol


def digests(directory):
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    for site in SITES:
        write_site(folder / site, site=site, seed=3, children=2, controls=1, truth=folder / f"{site}.npz")
    return folder


def test_equal_seeds_give_equal_bytes_whatever_the_number_of_processes(sites, tmp_path):
    write_site(tmp_path / "again", site="north", seed=3, children=2, controls=1, truth=None, n_procs=2)
    assert digests(tmp_path / "again") == digests(sites / "north")


def test_another_seed_gives_other_children(sites, tmp_path):
    write_site(tmp_path / "other", site="north", seed=4, children=2, controls=1, truth=None)
    ours, theirs = digests(sites / "north"), digests(tmp_path / "other")
    scans = [name for name in ours if name.endswith((".nii.gz", "participants.tsv"))]
    assert len(scans) == 7
    assert all(ours[name] != theirs[name] for name in scans)


@pytest.mark.parametrize(
    ("site", "orientation", "volumes", "b_value"),
    [
        ("north", "LAS", 34, 1000),
        ("south", "RAS", 36, 1000),
        ("west", "LAS", 44, 900),
        ("east", "RAS", 39, 1000),
        ("coast", "LAS", 36, 1000),
    ],
)
def test_each_scanner_stores_images_its_own_way(sites, site, orientation, volumes, b_value):
    stem = sites / site / "sub-001" / "dwi" / "sub-001_dwi"
    image = nib.load(stem.with_suffix(".nii.gz"))
    b = np.loadtxt(stem.with_suffix(".bval"))
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    assert image.shape[3] == len(b) == volumes
    assert sorted(set(b.tolist())) == [0, b_value]
    assert (np.flatnonzero(b == 0).tolist() == [0, 1, 2, 3]) == (site not in ("west", "east"))


def test_all_sites_share_one_world(sites):
    truths = [np.load(sites / f"{site}.npz") for site in SITES]
    for name in ("severity_edges", "severity_slope", "present"):
        assert all(np.array_equal(truth[name], truths[0][name]) for truth in truths)
    assert not np.array_equal(truths[0]["log_weights"], truths[1]["log_weights"])


def test_participants_have_every_column_described(sites):
    lines = (sites / "north" / "participants.tsv").read_text().splitlines()
    columns = lines[0].split("\t")
    assert columns[:5] == ["participant_id", "age", "sex", "group", "gase"]
    assert set(json.loads((sites / "north" / "participants.json").read_text())) == set(columns[1:])
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]
    assert [row["group"] for row in rows] == ["dre", "dre", "control"]
    assert [row["gase"] == "n/a" for row in rows] == [False, False, True]


def test_the_truth_is_nowhere_in_the_dataset(sites):
    names = set(digests(sites / "north"))
    per_subject = {
        name.format(s=f"sub-00{k}")
        for k in (1, 2, 3)
        for name in (
            "{s}/dwi/{s}_dwi.nii.gz",
            "{s}/dwi/{s}_dwi.bval",
            "{s}/dwi/{s}_dwi.bvec",
            "{s}/dwi/{s}_dwi.json",
            "derivatives/labels/{s}/dwi/{s}_seg-phantom28_dseg.nii.gz",
        )
    }
    assert names == per_subject | {
        "dataset_description.json",
        "README",
        "participants.tsv",
        "participants.json",
        "derivatives/labels/dataset_description.json",
        "derivatives/labels/seg-phantom28_dseg.tsv",
    }


def test_hospitals_of_any_name_share_a_world_by_its_seed_and_have_children_of_their_own(tmp_path):
    worlds, children = [], []
    for site, seed in (("sankt-anna", 1), ("elsewhere", 2), ("elsewhere", 3)):
        truth = tmp_path / f"{site}-{seed}.npz"
        write_site(
            tmp_path / f"{site}-{seed}",
            site=site,
            seed=seed,
            children=1,
            controls=0,
            truth=truth,
            world_seed=7,
        )
        with np.load(truth) as found:
            worlds.append(found["severity_edges"].tolist())
            children.append(found["log_weights"].tolist())
    assert worlds[0] == worlds[1] == worlds[2]
    assert len({str(child) for child in children}) == 3
    assert {scanner_of(f"site-{i}") for i in range(40)} == set(SITES)
    assert all(scanner_of(site) == site for site in SITES)


def test_raw_scans_on_the_clinical_recipes_atlas_become_connectomes(tmp_path, protocol_content):
    """As in a rehearsal of a consortium's own study: its recipe, its columns; fewer seeds, to be quick."""
    settings = recipe_settings("desikan-killiany-83") | {"seeds": 40_000}
    range_ = {"kind": "number", "unit": "mm", "range": (40.0, 60.0)}
    protocol = Protocol.model_validate(
        protocol_content | {"imaging": settings, "phenotypes": {"head_size": range_}}
    )
    about = {"site": "sankt-anna", "seed": 1, "world_seed": 7, "truth": None, "protocol": protocol}
    write_site(tmp_path / "bids", children=1, controls=0, **about)
    assert "head_size" in (tmp_path / "bids" / "participants.tsv").read_text()
    assert (
        prepare(
            tmp_path / "bids", tmp_path / "out", protocol.imaging, participants=None, n_procs=1, pages=False
        )
        == []
    )
    derivative = Derivative(tmp_path / "out", Visit("sub-001", None), protocol.imaging)
    record = derivative.read_record()
    assert "fail" not in protocol.imaging.quality.judge(dict(record["Quality"])).values()
    counts = derivative.read_connectome().counts
    assert (counts.sum(axis=0) > 0).all()


def test_a_directory_in_use_is_left_alone(sites):
    before = digests(sites / "north")
    with pytest.raises(ConfigError, match="is not empty; a simulated site needs a directory of its own"):
        write_site(sites / "north", site="north", seed=3, children=1, controls=0, truth=None)
    assert digests(sites / "north") == before


def test_the_truth_may_not_lie_inside_the_dataset(tmp_path):
    with pytest.raises(ConfigError, match="lies inside the dataset; the truth must be kept outside"):
        write_site(
            tmp_path / "x", site="north", seed=1, children=1, controls=0, truth=tmp_path / "x" / "t.npz"
        )
    assert not (tmp_path / "x").exists()
