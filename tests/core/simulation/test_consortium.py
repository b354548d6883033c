"""Simulated consortia of connectomes."""

import dataclasses
import math

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ConfigError
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.consortium import (
    CLINICAL,
    NON_ADDITIVE,
    SOBER,
    ConsortiumRules,
    draw_consortium,
    public_template,
)
from esn_core.simulation.scanner import ScannerRules
from esn_core.simulation.world import World, WorldRules

ATLAS = load_atlas("desikan-killiany-83")
CALM = ScannerRules(0.0, 0.0, 0.0)


def drawn(seed=0, shrinkage_controls=None, **settings):
    rules, rng = ConsortiumRules(**settings), np.random.default_rng(seed)
    return draw_consortium(ATLAS, rules, rng=rng, shrinkage_controls=shrinkage_controls)


def pooled(consortium, split="held_out"):
    parts = [getattr(site, split) for site in consortium.sites]
    return np.concatenate([p.scores for p in parts]), np.concatenate([p.gase for p in parts])


def test_one_seed_gives_one_consortium():
    first, second, other = drawn(), drawn(), drawn(1)
    for a, b in zip(first.sites, second.sites, strict=True):
        assert np.array_equal(a.training.scores, b.training.scores)
        assert np.array_equal(a.held_out.gase, b.held_out.gase)
    assert not np.array_equal(first.world.severity_edges, other.world.severity_edges)


def test_sites_have_the_sizes_that_were_asked_for():
    found = drawn(sites=4, unseen_sites=2, children=(25, 30), held_out=12, controls=(9, 11))
    assert len(found.sites) == 6
    training = [site for site in found.sites if len(site.training.gase)]
    assert len(training) == 4
    for site in training:
        assert 25 <= len(site.training.gase) <= 30
    for site in found.sites:
        assert len(site.held_out.gase) == 12
        assert 9 <= site.controls <= 11
        assert set(site.held_out.gase) <= set(range(1, 8))
        assert site.held_out.scores.shape == (12, 3403)
    assert [len(site.training.gase) for site in found.sites[4:]] == [0, 0]


def test_the_severity_network_goes_with_severity_and_the_other_edges_do_not():
    found = drawn(2, held_out=100, sites=6, scanner=CALM)
    scores, _ = pooled(found)
    severity = np.concatenate([site.held_out.severity for site in found.sites])
    measurable = found.template.present
    network = np.isin(np.arange(len(measurable)), found.world.severity_edges)
    r = np.array(
        [np.corrcoef(scores[:, e], severity)[0, 1] if measurable[e] else 0.0 for e in range(scores.shape[1])]
    )
    signs = np.sign(found.world.severity_slope)
    assert (r * signs)[network & measurable].mean() > 0.2
    # 600 children: the standard error of one r is .04, of the mean of about a thousand less than .01;
    # edges share streamlines, so that others gain a little what the network loses.
    assert abs(r[measurable & ~network].mean()) < 0.05


def test_own_controls_remove_what_the_scanner_adds():
    loud = ScannerRules(1.3, 0.25, 0.0)
    spread = {}
    # A template worth infinitely many controls sets no offset off.
    for name, shrinkage in (("many", None), ("none", math.inf)):
        found = drawn(3, scanner=loud, held_out=60, controls=(200, 200), shrinkage_controls=shrinkage)
        means = np.array([site.held_out.scores.mean(axis=0) for site in found.sites])
        spread[name] = means[:, found.template.present].std(axis=0).mean()
    assert spread["many"] < 0.4 * spread["none"]


def test_the_public_template_is_another_population_than_the_study():
    found = drawn(4, world=WorldRules(template_shift_sd=0.3), scanner=CALM)
    mean = anatomy(ATLAS).mean
    strong = mean > 4
    # Sd .3 over some 500 edges: its standard error is .01.
    assert (found.world.mean - mean)[strong].std() == pytest.approx(0.3, abs=0.04)
    assert (found.template.present <= anatomy(ATLAS).present).all()
    assert 0.2 < found.template.present.mean() < 0.4


def test_a_template_finds_the_age_slope_of_its_population():
    rng = np.random.default_rng(5)
    template = public_template(ATLAS, rng=rng, controls=600)
    strong = template.present & (anatomy(ATLAS).mean > 5)
    # Shares of all streamlines: the common slope .03 of all edges falls out, their spread .015 stays.
    assert template.age_slope[strong].mean() == pytest.approx(0.0, abs=0.01)
    assert 0.008 < template.age_slope[strong].std() < 0.022


def test_heavy_tails_keep_the_sd():
    normal, heavy = (
        World.draw(ATLAS, WorldRules(tail_freedom=f, nuisance_sd=0.0), rng=np.random.default_rng(1))
        for f in (None, 5.0)
    )
    assert np.array_equal(normal.sd, heavy.sd)
    n, ages = 4000, np.full(4000, 10.0)
    drawn_of = [
        w.log_weights(
            ages,
            np.zeros(n),
            np.zeros(n),
            scanner=w.scanner(CALM, rng=np.random.default_rng(0)),
            rng=np.random.default_rng(2),
        )[:, :200]
        for w in (normal, heavy)
    ]
    sds = [x.std(axis=0).mean() for x in drawn_of]
    assert sds[0] == pytest.approx(sds[1], rel=0.02)
    kurtosis = [np.mean(((x - x.mean(axis=0)) / x.std(axis=0)) ** 4) for x in drawn_of]
    # Kurtosis is 3 for a normal and 9 for five degrees of freedom; the head's gain, sd .15, lowers it.
    assert kurtosis[0] < 3.2 < 5 < kurtosis[1]


def test_in_the_non_additive_world_the_difference_of_the_hemispheres_matters():
    """Two networks and the size of their difference say more than any sum of them."""
    rules = dataclasses.replace(NON_ADDITIVE, held_out=150, scanner=CALM)
    found = draw_consortium(ATLAS, rules, rng=np.random.default_rng(1))
    scores, gase = pooled(found)
    side = np.array([region.hemisphere for region in ATLAS.regions])[ATLAS.edges]
    sums = []
    for hemisphere in "LR":
        edges = np.isin(np.arange(len(side)), found.world.severity_edges) & (side == hemisphere).all(axis=1)
        edges &= found.template.present
        total = scores[:, edges] @ np.sign(found.world.severity_slope[edges])
        sums.append((total - total.mean()) / total.std())
    added, apart = sums[0] + sums[1], np.abs(sums[0] - sums[1])
    linear = np.column_stack([np.ones(len(gase)), *sums])
    with_it = np.column_stack([linear, apart])
    r = [np.corrcoef(x @ np.linalg.lstsq(x, gase, rcond=None)[0], gase)[0, 1] for x in (linear, with_it)]
    # 900 children: the standard error of either is .02; .10 was found.
    assert r[1] - r[0] > 0.05
    assert np.corrcoef(added, gase)[0, 1] == pytest.approx(r[0], abs=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"children": (5, 4)}, "children need a range of sizes, not 5 to 4"),
        ({"sites": 0}, "one training site or more, not 0"),
    ],
)
def test_an_impossible_consortium_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ConsortiumRules(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tail_freedom": 2.0}, "tails of 2.0 degrees of freedom have no sd"),
        ({"edge_sd": (0.5, 0.3)}, "range of positive numbers"),
        ({"mirror_correlation": 1.5}, "correlate by 0 to 1, not 1.5"),
        ({"count_shape": (0.0, 4.0)}, "two positive numbers"),
    ],
)
def test_an_impossible_world_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(WorldRules(), **settings)


def own_variation(rules, *, subjects=400):
    """Log weights of alike children on one scanner, less what their whole scans gain; and the world."""
    world = World.draw(ATLAS, rules, rng=np.random.default_rng(1))
    drawn = world.log_weights(
        np.full(subjects, 10.0),
        np.zeros(subjects),
        np.zeros(subjects),
        scanner=world.scanner(CALM, rng=np.random.default_rng(0)),
        rng=np.random.default_rng(2),
    )
    return drawn - np.median(drawn, axis=1, keepdims=True), world


@pytest.mark.parametrize(("rules", "expected"), [(CLINICAL.world, 0.0), (SOBER.world, 0.2)])
def test_mirror_edges_go_together_in_the_sober_world(rules, expected):
    drawn, world = own_variation(rules)
    z = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
    second = np.flatnonzero(world.mirror != np.arange(len(world.mirror)))
    # A mean over 1,500 pairs of correlations, each of standard error .05; factors move edges as well.
    assert (z[:, second] * z[:, world.mirror[second]]).mean() == pytest.approx(expected, abs=0.03)
    own = drawn.std(axis=0)
    assert own.mean() == pytest.approx(own_variation(CLINICAL.world)[0].std(axis=0).mean(), rel=0.02)


def test_the_mirror_image_of_an_edge_joins_the_opposite_regions():
    world = World.draw(ATLAS, rng=np.random.default_rng(1))
    names = {(r.stem, r.hemisphere): r.name for r in ATLAS.regions}
    other = {"L": "R", "R": "L", "M": "M"}
    for edge, first in enumerate(world.mirror):
        ends = [ATLAS.regions[i] for i in ATLAS.edges[edge]]
        image = {names[r.stem, other[r.hemisphere]] for r in ends}
        assert {ATLAS.names[i] for i in ATLAS.edges[first]} in ({r.name for r in ends}, image)


def test_counts_spread_as_their_shape_says():
    rules = dataclasses.replace(CLINICAL.world, count_shape=(0.5, 4.0))
    plain, world = own_variation(CLINICAL.world, subjects=1500)
    spread, _ = own_variation(rules, subjects=1500)
    few, many = world.present & (world.mean < np.log(15)), world.mean > np.log(1500)
    added = spread.var(axis=0) - plain.var(axis=0)
    # The variance of the logarithm of a gamma variable: the trigamma function of its shape, 4.93 and .284.
    assert added[few].mean() == pytest.approx(4.93, rel=0.1)
    assert added[many].mean() == pytest.approx(0.284, rel=0.2)
