"""Counts drawn as the pipeline would read a scan: the measured line, and nothing but shares."""

import hashlib
import json
import tomllib
from importlib.resources import files

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import strengths_of_counts
from esn_core.errors import ConfigError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.tracking import ATLAS, TABLE, log_shares, tracking

SCANNERS = ("north", "south", "west", "east", "coast")


@pytest.fixture(scope="module")
def healthy():
    return anatomy(load_atlas(ATLAS)).mean


def test_shares_are_parts_of_one_and_know_no_gain():
    weights = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    expected = np.exp(weights[0]) / np.exp(weights[0]).sum()
    np.testing.assert_allclose(np.exp(log_shares(weights)), [expected, expected], rtol=1e-12)


@pytest.mark.parametrize("scanner", SCANNERS)
def test_drawn_strengths_follow_the_measured_line(scanner, healthy):
    measured = tracking(scanner)
    rng = np.random.default_rng(1)
    strong = measured.strength > 3
    assert strong.sum() > 60
    half, double = healthy.copy(), healthy.copy()
    half[strong], double[strong] = half[strong] - 0.2, double[strong] + 0.2
    for weights in (healthy, half, double):
        drawn = strengths_of_counts(measured.counts(np.tile(weights, (2000, 1)), rng=rng))
        line = measured.strength + measured.slope * (log_shares(weights) - measured.log_share)
        differences = (drawn.mean(axis=0) - line)[strong]
        # All strengths of a subject move together when the shares are made to add up to one.
        spread = differences - np.median(differences)
        # Standard errors are sd / sqrt(2000), below .03; counts are whole, and their logs a little curved.
        assert np.abs(spread).max() < 0.1
        np.testing.assert_allclose(drawn.std(axis=0)[strong], measured.sd[strong], rtol=0.25, atol=0.03)


def test_counts_are_whole_and_a_tracker_stops_at_so_many(healthy):
    counts = tracking("north").counts(np.tile(healthy, (20, 1)), rng=np.random.default_rng(2))
    assert np.array_equal(counts, np.rint(counts))
    assert counts.min() >= 0
    # Each of 378 edges is rounded by half a streamline at most.
    assert np.abs(counts.sum(axis=1) - 10_000).max() < 378 / 2


def test_another_scanner_is_refused_with_those_that_there_are():
    with pytest.raises(
        ConfigError, match="no tracking was measured on scanner 'lab'; there are: north, south"
    ):
        tracking("lab")


def test_the_table_is_the_one_that_its_record_describes():
    record = json.loads(TABLE.with_suffix(".json").read_text(encoding="utf-8"))
    recipe = (files("esn_core.connectome") / "atlases" / f"{ATLAS}.recipe.toml").read_text(encoding="utf-8")
    assert record["Sha256"] == hashlib.sha256(TABLE.read_bytes()).hexdigest()
    assert record["AtlasSha256"] == load_atlas(ATLAS).sha256
    assert record["RecipeSha256"] == ImagingRecipe.model_validate(tomllib.loads(recipe)).sha256
    assert tuple(record["Scanners"]) == SCANNERS
