"""Tests of provenance: what makes a connectome stale, and what does not."""

import ast
import json
import shutil
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from esn_client.imaging import pipeline, provenance
from esn_client.imaging.bids.derivatives import MEASURES, Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.stages import Stages
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError
from esn_core.formats import DERIVATIVE
from esn_core.protocol.imaging_recipe import ImagingRecipe

GOLDEN = Path(__file__).parents[2] / "golden" / "derivative"
SETTINGS = tomllib.loads(
    files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text()
)
RECIPE = ImagingRecipe(**(SETTINGS | {"seeds": 1500}))


@pytest.fixture
def all_of_version_1(monkeypatch):
    """Steps as they were when they got versions."""
    for known in (provenance.STAGE_VERSIONS, provenance.STEP_VERSIONS):
        for step in known:
            monkeypatch.setitem(known, step, 1)


@pytest.fixture
def earlier(tmp_path, all_of_version_1):
    """A connectome that was prepared before stages had versions."""
    shutil.copytree(GOLDEN, tmp_path / "out")
    return Derivative(tmp_path / "out", Visit("sub-001", None), RECIPE)


def sources_of(derivative):
    return json.loads(derivative.record.read_text())["Sources"]


def rewrite(derivative, **changes):
    record = json.loads(derivative.record.read_text())
    kept = {name: value for name, value in (record | changes).items() if value is not None}
    derivative.record.write_text(json.dumps(kept))


def test_each_stage_of_the_pipeline_has_a_version_and_none_is_left_over():
    used = set()
    for path in Path(pipeline.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "stages.run":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                used.add(node.args[0].value)
    assert used == set(provenance.STAGE_VERSIONS)
    assert not used & set(provenance.STEP_VERSIONS)


def test_a_stage_without_a_version_is_refused(tmp_path):
    with pytest.raises(KeyError, match="stage 'guess' has no version"):
        Stages(tmp_path).run("guess", dict, inputs=[], parameters={})
    assert not list(tmp_path.iterdir())


def stage_is_found_again(folder):
    stages = Stages(folder)
    stages.run("tensor", lambda: {"fa": np.ones(2)}, inputs=["scan"], parameters={})
    return stages.log[0]["FromDisk"]


def test_a_stage_is_made_again_after_its_version_was_raised_and_not_after_a_release(tmp_path, monkeypatch):
    assert not stage_is_found_again(tmp_path)
    assert "esn-federated" not in provenance.versions_of_software()
    monkeypatch.setitem(provenance.STAGE_VERSIONS, "fodf", 7)
    assert stage_is_found_again(tmp_path)
    monkeypatch.setitem(provenance.STAGE_VERSIONS, "tensor", provenance.version_of("tensor") + 1)
    assert not stage_is_found_again(tmp_path)


def test_a_connectome_from_before_the_versions_is_current(earlier):
    assert "StepVersions" not in json.loads(earlier.record.read_text())
    assert earlier.is_current(sources_of(earlier))
    assert earlier.read_connectome().counts.sum() > 0


@pytest.mark.parametrize("step", ["tracking", "scan"])
def test_a_connectome_from_before_is_stale_once_a_step_of_it_gives_another_result(earlier, monkeypatch, step):
    known = provenance.STAGE_VERSIONS if step in provenance.STAGE_VERSIONS else provenance.STEP_VERSIONS
    monkeypatch.setitem(known, step, 2)
    assert not earlier.is_current(sources_of(earlier))


def test_a_step_that_a_connectome_did_not_need_leaves_it_current(earlier, monkeypatch):
    monkeypatch.setitem(provenance.STAGE_VERSIONS, "denoise", 2)
    assert earlier.is_current(sources_of(earlier))


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_a_connectome_of_unknown_code_is_stale(earlier, digest):
    rewrite(earlier, CodeSha256=digest)
    assert not earlier.is_current(sources_of(earlier))


def test_a_connectome_of_a_newer_format_is_refused_and_not_replaced(earlier):
    rewrite(earlier, Format=DERIVATIVE.version + 1)
    words = (
        f"sub-001: {earlier.record.name} cannot be read: written by a newer esn-federated: "
        f"derivative format {DERIVATIVE.version + 1}, this one reads {DERIVATIVE.version}"
    )
    for read in (earlier.read_record, lambda: earlier.is_current({})):
        with pytest.raises(DataError, match=words):
            read()


def with_edges_missing(tmp_path, region=2):
    counts = np.ones((28, 28))
    counts[region], counts[:, region] = np.nan, np.nan
    derivative = Derivative(tmp_path / "out", Visit("sub-001", None), RECIPE)
    derivative.write(dict.fromkeys(MEASURES, counts), sources={}, details={})
    return derivative


def test_a_region_without_tissue_is_named_and_its_edges_are_missing_not_0(tmp_path):
    derivative = with_edges_missing(tmp_path)
    name = load_atlas(RECIPE.atlas).names[2]
    assert derivative.read_record()["RegionsWithoutTissue"] == [name]
    connectome = derivative.read_connectome()
    assert connectome.without_tissue == (name,)
    assert not connectome.counts[2].any()
    assert not connectome.has_tissue[2]
    assert connectome.has_tissue.sum() == 27
    # Each region has 27 edges.
    assert (~connectome.known_edges).sum() == 27
    assert derivative.matrix("count").read_text().split("\n")[2].split("\t") == ["nan"] * 28


def test_a_record_that_hides_a_region_without_tissue_is_refused(tmp_path):
    derivative = with_edges_missing(tmp_path)
    rewrite(derivative, RegionsWithoutTissue=[])
    with pytest.raises(DataError, match="name different regions without tissue; prepare it again"):
        derivative.read_connectome()


def test_a_connectome_of_an_earlier_format_knows_of_no_region_without_tissue(earlier):
    assert earlier.read_connectome().without_tissue == ()
    assert earlier.read_connectome().known_edges.all()
