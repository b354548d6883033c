"""One real brain, from its raw scan to connectomes and pages, with each atlas that ships."""

import importlib.util
import json
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.imaging.quality.site_table import write_site
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.quality_limits import overall

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def script(name):
    """A script of the benchmarks, as a module; one may import another."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


real_subject = script("real_subject")
few_directions = script("few_directions")

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]
SEEDS = 50_000


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    directory = tmp_path_factory.mktemp("real") / "bids"
    try:
        real_subject.fetch(directory)
    except real_subject.UnavailableError as error:
        pytest.skip(f"the real subject cannot be fetched here: {error}")
    return directory


@pytest.fixture(scope="module")
def prepared(bids):
    """A function that prepares the subject with an atlas; what atlases share is made once."""
    done = {}

    def make(atlas):
        if atlas not in done:
            text = (files("esn_core.connectome") / "atlases" / f"{atlas}.recipe.toml").read_text()
            recipe = ImagingRecipe(**(tomllib.loads(text) | {"seeds": SEEDS}))
            out, work = bids.parent / "out", bids.parent / "work"
            failures = prepare(bids, out, recipe, participants=None, n_procs=1, work_dir=work)
            assert failures == []
            done[atlas] = (Derivative(out, Visit(real_subject.SUBJECT, None), recipe), recipe)
        return done[atlas]

    return make


@pytest.mark.parametrize(("atlas", "regions"), [("desikan-killiany-83", 83), ("aal-116", 116)])
def test_a_real_brain_ends_in_a_connectome_and_a_page(prepared, atlas, regions):
    derivative, recipe = prepared(atlas)
    counts = derivative.read_connectome().counts
    assert counts.shape == (regions, regions)
    record = derivative.read_record()
    quality = record["Quality"]
    # Measured at 1 M seeds with Desikan-Killiany: .840, 12 degrees, 77.7 % (2026-11-25).
    assert quality["registration_correlation"] > 0.75
    assert quality["registration_rotation_deg"] < 25
    assert quality["assigned_percent"] > 60
    assert overall(recipe.quality.judge(quality)) != "fail"
    assert derivative.page.read_text().count("data:image/png;base64,") == 16
    rows = write_site(derivative.out, recipe, exclude_failed=True)
    assert [row.excluded for row in rows] == [False]


def test_hemispheres_hang_together_and_are_joined(prepared):
    """What every healthy brain shows: far more streamlines within a hemisphere than across."""
    derivative, _ = prepared("desikan-killiany-83")
    connectome = derivative.read_connectome()
    sides = np.array([name[0] for name in connectome.regions])
    within = sum(connectome.counts[np.ix_(sides == s, sides == s)].sum() for s in "LR")
    across = 2 * connectome.counts[np.ix_(sides == "L", sides == "R")].sum()
    # Measured at 1 M seeds: 3.7 (2026-11-25).
    assert within > 2.5 * across
    assert across > 0


def test_the_second_atlas_starts_from_what_the_first_one_made(prepared):
    prepared("desikan-killiany-83")
    derivative, _ = prepared("aal-116")
    stages = json.loads(derivative.record.read_text())["Stages"]
    again = [stage["Name"] for stage in stages if not stage["FromDisk"]]
    assert again == ["labels", "parcellation", "tracking"]


@pytest.mark.parametrize(
    ("scan", "directions", "least"), [("few-directions", 15, 0.65), ("uneven-coil", 64, 0.8)]
)
def test_a_named_recipe_finds_about_the_connectome_of_the_usual_one(bids, prepared, scan, directions, least):
    """Loosely: at 200,000 seeds r is .80 with 15 directions, .95 of two runs alike (docs/benchmarks.md)."""
    usual, _ = prepared("desikan-killiany-83")
    counts = usual.read_connectome().counts
    work = bids.parent / scan
    subset = few_directions.write_subset(few_directions.real_subject.fetch(bids), work / "bids", directions)
    found = few_directions.strengths(subset, work, scan=scan, seeds=SEEDS, random_seed=54321)
    r = np.corrcoef(np.log1p(counts[np.triu_indices(len(counts), k=1)]), found)[0, 1]
    assert least < r < 0.999, r
