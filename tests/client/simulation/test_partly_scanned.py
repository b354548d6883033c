"""A simulated hospital of both kinds: some children wait as scans, the others were prepared earlier."""

import json

import numpy as np
import pytest

from esn_client.simulation.connectomes import write_partly_scanned
from esn_client.simulation.scans import write_site
from esn_core.errors import ConfigError

CHILDREN, CONTROLS, SCANS = 5, 2, 2
EVERYBODY = {f"sub-{i:03d}" for i in range(1, CHILDREN + CONTROLS + 1)}
SCANNED = {"sub-001", "sub-002"}


def simulate(directory, **changed):
    settings = {"site": "east", "seed": 4, "children": CHILDREN, "controls": CONTROLS, "scans": SCANS}
    write_partly_scanned(
        directory / "bids",
        directory / "derivatives",
        truth=directory / "truth.npz",
        **(settings | changed),
    )
    return directory


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".npz"
    }


def folders(directory):
    return {path.name for path in directory.glob("sub-*") if path.is_dir()}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("east"))


def test_everybody_is_in_the_table_and_has_either_a_scan_or_a_connectome(hospital):
    table = (hospital / "bids" / "participants.tsv").read_text(encoding="utf-8").splitlines()
    assert {line.split("\t")[0] for line in table[1:]} == EVERYBODY
    assert folders(hospital / "bids") == SCANNED
    assert folders(hospital / "derivatives") == EVERYBODY - SCANNED


def test_a_connectome_says_that_no_scan_stands_behind_it(hospital):
    records = list(hospital.glob("derivatives/sub-*/dwi/*_meas-count_relmat.json"))
    assert len(records) == len(EVERYBODY - SCANNED)
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["Sources"] == {}
        assert "no scan stands behind it" in record["Origin"]


def test_equal_seeds_give_equal_bytes_whatever_the_number_of_processes(hospital, tmp_path):
    ours, theirs = contents(simulate(tmp_path, n_procs=2)), contents(hospital)
    # It names the dataset that it comes from, which lies elsewhere.
    said = "derivatives/dataset_description.json"
    assert ours.pop(said).replace(bytes(tmp_path), b"") == theirs.pop(said).replace(bytes(hospital), b"")
    assert ours == theirs


def test_the_children_and_their_scans_are_those_of_a_hospital_of_scans(hospital, tmp_path):
    write_site(
        tmp_path / "bids",
        site="east",
        seed=4,
        children=CHILDREN,
        controls=CONTROLS,
        truth=tmp_path / "truth.npz",
    )
    ours, all_scanned = contents(hospital / "bids"), contents(tmp_path / "bids")
    # The same people and the same scans; only fewer of them.
    assert ours == {name: all_scanned[name] for name in ours}
    assert all(
        name.startswith(tuple(EVERYBODY - SCANNED)) or "labels/sub-" in name
        for name in set(all_scanned) - set(ours)
    )
    with np.load(hospital / "truth.npz") as one, np.load(tmp_path / "truth.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"scans": 6}, "of 5 children from 1 to 5 can have scans, not 6"),
        ({"scans": 0}, "of 5 children from 1 to 5 can have scans, not 0"),
    ],
)
def test_what_cannot_be_simulated_is_refused_and_nothing_written(tmp_path, changed, words):
    with pytest.raises(ConfigError, match=words):
        simulate(tmp_path, **changed)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_is_left_alone(tmp_path):
    (tmp_path / "derivatives").mkdir()
    (tmp_path / "derivatives" / "kept.txt").touch()
    with pytest.raises(ConfigError, match="derivatives is not empty"):
        simulate(tmp_path)
    assert not (tmp_path / "bids").exists()
