"""Tests of connectomes, edge strengths and scores against a template."""

import hashlib
import json
import math
import statistics
import tomllib
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.connectome import Connectome
from esn_core.connectome.template import Template, edge_scores, edge_strengths, load_template, parse_template
from esn_core.errors import ConfigError, DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe

REGIONS = ("a", "b", "c", "d")
EDGES = 6
ENDS = arrays(np.int64, st.tuples(st.integers(0, 40), st.just(2)), elements=st.integers(-1, 3))
STRENGTHS = arrays(np.float64, EDGES, elements=st.floats(0, 9))


def count_one_by_one(ends):
    counts = np.zeros((4, 4))
    for first, last in ends:
        if first < 0 or last < 0:
            continue
        counts[first, last] += 1
        if first != last:
            counts[last, first] += 1
    return counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:3], r"shape \(4, 4\), not \(3, 4\)"),
        (lambda m: m.astype(np.float32), "must be float64, not float32"),
        (lambda m: m - 1, "must not be negative; the least is -1"),
        (lambda m: m + np.triu(np.ones((4, 4)), 1), "must be symmetric"),
        (lambda m: m * np.nan, "must be finite; 16 of them are not"),
    ],
)
def test_counts_that_are_no_connectome_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        Connectome(change(np.zeros((4, 4))), REGIONS)


@given(ENDS)
def test_strengths_equal_the_definition(ends):
    counts = count_one_by_one(ends)
    upper = [counts[a, b] for a in range(4) for b in range(a + 1, 4)]
    connectome = Connectome(counts, REGIONS)
    if sum(upper) == 0:
        with pytest.raises(DataError, match="no streamline joins two regions"):
            edge_strengths(connectome)
    else:
        expected = [math.log1p(10_000 * count / sum(upper)) for count in upper]
        # The same operations on the same numbers; numpy's log1p may differ from C's in the last bit.
        assert edge_strengths(connectome) == pytest.approx(expected, rel=4e-16, abs=0)


def template(**changes):
    rng = np.random.default_rng(3)
    fields = {
        "atlas": "tiny",
        "mean": rng.normal(4, 1, EDGES),
        "sd": rng.uniform(0.3, 0.6, EDGES),
        "age_slope": rng.normal(0, 0.05, EDGES),
        "sex_slope": rng.normal(0, 0.1, EDGES),
        "present": np.array([True, True, False, True, True, False]),
        "sha256": "0" * 64,
    }
    return Template(**(fields | changes))


@given(STRENGTHS, st.floats(3, 18), st.sampled_from([0.0, 1.0]))
def test_scores_equal_the_definition(strengths, age_years, sex):
    t = template()
    z = [
        (x - (m + a * (age_years - 10) + s * (sex - 0.5))) / sd
        for x, m, a, s, sd in zip(strengths, t.mean, t.age_slope, t.sex_slope, t.sd, strict=True)
    ]
    middle = statistics.median([value for value, there in zip(z, t.present, strict=True) if there])
    expected = [value - middle if there else 0.0 for value, there in zip(z, t.present, strict=True)]
    # Numbers of size 30 at most, a handful of additions: some ulp of 30.
    assert edge_scores(strengths, t, age_years=age_years, sex=sex) == pytest.approx(
        expected, rel=0, abs=1e-13
    )


@given(st.lists(STRENGTHS, min_size=2, max_size=5))
def test_a_subject_scores_the_same_alone_and_among_others(subjects):
    ages, sexes = np.linspace(5, 15, len(subjects)), np.arange(len(subjects)) % 2.0
    together = edge_scores(np.array(subjects), template(), age_years=ages, sex=sexes)
    for k, strengths in enumerate(subjects):
        alone = edge_scores(strengths, template(), age_years=ages[k], sex=sexes[k])
        assert np.array_equal(together[k], alone)


@given(STRENGTHS, st.floats(-2, 2))
def test_the_gain_of_a_scan_is_no_finding(strengths, gain):
    t = template(sd=np.full(EDGES, 0.5))
    plain, louder = (edge_scores(x, t, age_years=8, sex=1) for x in (strengths, strengths + gain))
    # A constant is added and the median taken away: rounding of numbers of size 30.
    assert louder == pytest.approx(plain, rel=0, abs=1e-13)


def test_scores_need_the_template_of_the_same_edges():
    with pytest.raises(DataError, match="strengths have 3 edges; the template has 6"):
        edge_scores(np.zeros(3), template(), age_years=8, sex=1)


def test_scores_need_age_and_sex():
    with pytest.raises(DataError, match="age and sex must be finite, not nan and 1"):
        edge_scores(np.zeros(EDGES), template(), age_years=math.nan, sex=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sd": np.zeros(EDGES)}, "sd must be positive; the least is 0"),
        ({"sd": np.ones(5)}, "template sd must have the shape of its mean"),
        ({"mean": np.full(EDGES, np.inf)}, "numbers must be finite"),
        ({"present": np.zeros(EDGES, dtype=bool)}, "without a present edge"),
    ],
)
def test_a_template_that_cannot_judge_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        template(**changes)


def test_the_shipped_template_is_the_one_its_provenance_names():
    folder = files("esn_core.connectome").joinpath("atlases")
    table = folder.joinpath("phantom-28.simulated-template.tsv").read_bytes()
    provenance = json.loads(folder.joinpath("phantom-28.simulated-template.json").read_text())
    recipe = ImagingRecipe(**tomllib.loads(folder.joinpath("phantom-28.recipe.toml").read_text()))
    shipped = load_template("phantom-28", simulated=True)
    assert shipped.sha256 == provenance["Sha256"] == hashlib.sha256(table).hexdigest()
    assert provenance["RecipeSha256"] == recipe.sha256
    assert provenance["AtlasSha256"] == load_atlas("phantom-28").sha256
    assert provenance["PresentEdges"] == shipped.present.sum()
    assert shipped.mean.shape == (378,)


def test_an_atlas_without_a_template_is_refused():
    with pytest.raises(ConfigError, match="no public template of real children for the atlas 'aal'"):
        load_template("aal")


def test_a_template_in_another_order_is_refused():
    lines = (
        files("esn_core.connectome")
        .joinpath("atlases", "phantom-28.simulated-template.tsv")
        .read_text()
        .splitlines()
    )
    lines[1], lines[2] = lines[2], lines[1]
    with pytest.raises(DataError, match="does not list the 378 edges of its atlas in order"):
        parse_template(load_atlas("phantom-28"), "\n".join(lines))


def test_a_template_with_a_word_for_a_number_is_refused():
    text = files("esn_core.connectome").joinpath("atlases", "phantom-28.simulated-template.tsv").read_text()
    cell = text.splitlines()[1].split("\t")[2]
    with pytest.raises(DataError, match="could not convert string to float: 'many'"):
        parse_template(load_atlas("phantom-28"), text.replace(cell, "many", 1))


def test_a_template_without_its_columns_is_refused():
    text = files("esn_core.connectome").joinpath("atlases", "phantom-28.simulated-template.tsv").read_text()
    with pytest.raises(DataError, match="must have the columns region_a, region_b, mean"):
        parse_template(load_atlas("phantom-28"), text.replace("age_slope", "slope", 1))
