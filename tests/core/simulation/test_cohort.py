"""Tests of simulated cohorts."""

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ConfigError
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.cohort import OUTCOMES, draw_site, subject_counts
from esn_core.simulation.scanner import ScannerRules
from esn_core.simulation.world import CONTROL_SEVERITY_Z, World, WorldRules

ATLAS = load_atlas("phantom-28")


def world(seed=1, **settings):
    return World.draw(ATLAS, WorldRules(**settings), rng=np.random.default_rng(seed))


def site(children=200, controls=50, seed=2, of=None, **settings):
    chosen = of or world()
    return draw_site(
        chosen, children=children, controls=controls, rng=np.random.default_rng(seed), **settings
    )


def test_one_seed_gives_one_world_and_one_site():
    first, second = site(5, 3), site(5, 3)
    assert [(s.participant, s.age_years, s.gase, s.outcomes) for s in first] == [
        (s.participant, s.age_years, s.gase, s.outcomes) for s in second
    ]
    assert np.array_equal([s.log_weights for s in first], [s.log_weights for s in second])
    assert not np.array_equal(first[0].log_weights, site(5, 3, seed=3)[0].log_weights)


def test_children_come_first_and_have_a_gase():
    subjects = site()
    assert [s.participant for s in subjects[:2]] == ["sub-001", "sub-002"]
    assert [s.group for s in subjects] == ["dre"] * 200 + ["control"] * 50
    assert all(isinstance(s.gase, int) and 1 <= s.gase <= 7 for s in subjects[:200])
    assert len({s.gase for s in subjects[:200]}) == 7
    assert all(s.gase is None for s in subjects[200:])


def test_controls_match_children_in_age_and_sex():
    subjects = site(40, 40)
    children, controls = subjects[:40], subjects[40:]
    # Each child has exactly one twin: the sexes are equal and the sorted ages differ by the jitter, whose
    # sd is half a year; 2.5 years are five of them.
    assert sorted(s.sex for s in children) == sorted(s.sex for s in controls)
    ages = [sorted(s.age_years for s in group) for group in (children, controls)]
    assert np.abs(np.subtract(*ages)).max() < 2.5


def test_gase_follows_the_hidden_severity():
    children = site(2000, 0)[:2000]
    r = np.corrcoef([s.severity for s in children], [s.gase for s in children])[0, 1]
    # Severity sd 1.35, rater's sd .45 and rounding sd .29: sqrt(1.35^2 / (1.35^2 + .45^2 + .29^2)) = .93;
    # clipping to 1..7 moves it by less than .02, and the sampling error is .003.
    assert r == pytest.approx(0.93, abs=0.03)


def test_outcomes_fall_with_severity_and_controls_are_about_average():
    subjects = site(2000, 2000)
    for outcome in OUTCOMES:
        scores = np.array([s.outcomes[outcome] for s in subjects])
        assert np.corrcoef([s.severity for s in subjects[:2000]], scores[:2000])[0, 1] < -0.3
        # Mean 102 in controls, sd 12: the standard error is .3.
        assert scores[2000:].mean() == pytest.approx(102, abs=1.5)


def test_the_severity_network_lies_among_the_bundles_and_is_clustered():
    modules = np.array([region.module for region in ATLAS.regions])
    for seed in range(20):
        drawn = world(seed)
        network = drawn.severity_edges
        assert len(network) == 24
        assert drawn.present[network].all()
        pairs = [tuple(sorted(pair)) for pair in modules[ATLAS.edges[network]].tolist()]
        counts = sorted((pairs.count(pair) for pair in set(pairs)), reverse=True)
        # 70 % of 24 edges were put into blocks of four to nine bundles: five blocks hold them at most.
        assert sum(counts[:5]) >= 16


def test_severity_mostly_weakens():
    slopes = np.concatenate([w.severity_slope[w.severity_edges] for w in map(world, range(40))])
    # 960 edges, 85 % negative: the standard error is .012.
    assert (slopes < 0).mean() == pytest.approx(0.85, abs=0.05)


def test_weights_move_with_severity_by_the_true_slope():
    drawn = world()
    calm = drawn.scanner(ScannerRules(0, 0, 0), rng=np.random.default_rng(0))
    n, rng = 20_000, np.random.default_rng(5)
    severity = rng.normal(size=n)
    weights = drawn.log_weights(np.full(n, 10.0), np.zeros(n), severity, scanner=calm, rng=rng)
    slope = (severity - severity.mean()) @ weights / (n * severity.var())
    # An edge's sd is at most .6 with all nuisance: standard error .6 / sqrt(20000) = .004.
    assert slope == pytest.approx(drawn.severity_slope, abs=0.02)


def test_severity_follows_the_less_damaged_hemisphere():
    additive, drawn = world(), world(compensated_sd=2.0)
    calm = drawn.scanner(ScannerRules(0, 0, 0), rng=np.random.default_rng(0))
    n = 4000
    severity = np.random.default_rng(5).normal(size=n)
    ages, sexes = np.full(n, 10.0), np.zeros(n)
    # Of equal seeds: what differs is the compensated damage, drawn last but for the size of the scan.
    with_it, without = (
        w.log_weights(ages, sexes, severity, scanner=calm, rng=np.random.default_rng(6))
        for w in (drawn, additive)
    )
    more = with_it - without
    more -= more[:, [np.flatnonzero(drawn.severity_slope == 0)[0]]]  # the size of the scan
    slope = drawn.severity_slope
    network = drawn.severity_edges
    damage = more[:, network] / slope[network]
    side = np.array([region.hemisphere for region in ATLAS.regions])[ATLAS.edges[network]]
    left, right, between = (
        damage[:, (side == pair).all(axis=1)] for pair in (["L", "L"], ["R", "R"], ["L", "R"])
    )
    assert np.allclose(np.minimum(left[:, 0], right[:, 0]), 0, atol=1e-9)
    assert np.allclose(between[:, 0], (left[:, 0] + right[:, 0]) / 2, atol=1e-9)
    # Half-normal: mean 2 sqrt(2 / pi) = 1.60 over both sides, standard error .02.
    assert (left[:, 0] + right[:, 0]).mean() == pytest.approx(1.596, abs=0.08)


def test_healthy_children_have_no_compensated_damage():
    drawn, additive = world(compensated_sd=2.0), world()
    calm = drawn.scanner(ScannerRules(0, 0, 0), rng=np.random.default_rng(0))
    healthy = np.full(50, CONTROL_SEVERITY_Z)
    with_it, without = (
        w.log_weights(np.full(50, 10.0), np.zeros(50), healthy, scanner=calm, rng=np.random.default_rng(6))
        for w in (drawn, additive)
    )
    more = with_it - without
    assert np.allclose(more, more[:, :1], atol=1e-9)  # the size of the scan alone, which is drawn later


def test_damage_without_a_spread_is_refused():
    with pytest.raises(ConfigError, match="sd of compensated damage is 0 or more, not -1"):
        WorldRules(compensated_sd=-1.0)


def test_scanners_move_sites_apart():
    drawn = world()
    first, second = (site(0, 300, seed=s, of=drawn) for s in (7, 8))
    gap = np.subtract(*(np.mean([s.log_weights for s in group], axis=0) for group in (first, second)))
    gap = gap - np.median(gap)
    # Additive sd .25 of an edge sd of .4 at each of two sites: .14; the means' own error is .04.
    assert 0.08 < gap.std() < 0.22


def test_worlds_share_their_anatomy():
    mean, present = anatomy(ATLAS).mean, anatomy(ATLAS).present
    first, second = world(1), world(2)
    assert np.array_equal(first.present, second.present)
    assert not np.array_equal(first.severity_edges, second.severity_edges)
    # The template's shift has sd .15; 76 edges: its standard error is .012.
    assert (first.mean - mean)[present].std() == pytest.approx(0.15, abs=0.05)


def test_homotopic_bundles_are_present_and_near_ones_are_stronger():
    mean, present = anatomy(ATLAS).mean, anatomy(ATLAS).present
    a, b = ATLAS.edges.T
    homotopic = b - a == 14
    distance = np.linalg.norm(ATLAS.centroids_mm[a] - ATLAS.centroids_mm[b], axis=1)
    assert present[homotopic].mean() > 0.5 > present.mean()
    assert np.corrcoef(distance[~homotopic], mean[~homotopic])[0, 1] < -0.5


def test_counts_are_poisson_around_the_weights():
    weights = np.log(np.array([0.5, 20.0, 300.0]))
    counts = subject_counts(np.tile(weights, (20_000, 1)), rng=np.random.default_rng(0))
    # Mean and variance of a Poisson are equal; 20,000 draws give them to 1 % and 2 % (two standard errors).
    assert counts.mean(axis=0) == pytest.approx(np.exp(weights), rel=0.02)
    assert counts.var(axis=0) == pytest.approx(np.exp(weights), rel=0.05)


def test_a_network_larger_than_the_brain_is_refused():
    with pytest.raises(
        ConfigError, match="a severity network of 200 edges needs as many bundles; 76 are there"
    ):
        world(severity_edges=200)


def test_a_negative_site_is_refused():
    with pytest.raises(ConfigError, match="not -1 and 0"):
        site(-1, 0)


@pytest.mark.parametrize("name", ["aal-116", "desikan-killiany-83"])
def test_homotopic_pairs_of_an_anatomical_atlas_are_favoured(name):
    atlas = load_atlas(name)
    mean = anatomy(atlas).mean
    a, b = atlas.edges.T
    stem = np.array([region.stem for region in atlas.regions])
    side = np.array([region.hemisphere for region in atlas.regions])
    homotopic = stem[a] == stem[b]
    assert homotopic.sum() == (side == "L").sum()
    crossing = (side[a] != side[b]) & ~homotopic & (side[a] != "M") & (side[b] != "M")
    assert mean[homotopic].mean() > mean[crossing].mean() + 1
