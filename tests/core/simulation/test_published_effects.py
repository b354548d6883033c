"""Networks that prefer regions which epilepsy is known to reduce, and worlds that do not."""

from dataclasses import replace

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ConfigError
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.consortium import CLINICAL, EPILEPSY, WORLDS
from esn_core.simulation.published_effects import SMALLEST_DAMAGE, damage, published_effects
from esn_core.simulation.true_network import MEASURABLE_LOG_WEIGHT, _shuffled
from esn_core.simulation.world import World, WorldRules

ATLAS = load_atlas("desikan-killiany-83")


def involvement(rules, seeds):
    """Which share of each region's measurable bundles is in the network, and the regions that have any."""
    shared = anatomy(ATLAS)
    bundles = np.flatnonzero(shared.present & (shared.mean > MEASURABLE_LOG_WEIGHT))
    of_region = np.bincount(ATLAS.edges[bundles].ravel(), minlength=len(ATLAS.regions))
    found = []
    for seed in seeds:
        network = World.draw(ATLAS, rules, rng=np.random.default_rng(seed), shared=shared).severity_edges
        assert np.isin(network, bundles).all()
        assert len(network) == rules.severity_edges
        held = np.bincount(ATLAS.edges[network].ravel(), minlength=len(ATLAS.regions))
        found.append(held[of_region > 0] / of_region[of_region > 0])
    return np.array(found), of_region > 0


def test_every_region_but_the_brainstem_has_a_published_effect():
    assert set(ATLAS.names) - set(published_effects()) == {"brainstem"}
    assert set(published_effects()) < set(ATLAS.names)
    # Whelan et al. 2018: the largest effects of all epilepsies are in precentral gyri and thalami.
    largest = sorted(published_effects(), key=published_effects().get)[:6]
    assert {"L_precentral", "R_precentral", "R_thalamusproper", "L_thalamusproper"} < set(largest)
    assert published_effects()["L_hippocampus"] == pytest.approx(-0.353)


def test_damage_is_the_reduction_and_never_nothing():
    found = dict(zip(ATLAS.names, damage(ATLAS), strict=True))
    assert found["L_precentral"] == pytest.approx(0.384)
    assert found["L_amygdala"] == SMALLEST_DAMAGE  # larger in epilepsy
    others = [value for name, value in found.items() if name != "brainstem"]
    assert found["brainstem"] == pytest.approx(np.mean(others))


def test_the_network_prefers_damaged_regions_where_that_is_asked():
    preferring, there = involvement(EPILEPSY.world, range(20))
    indifferent, _ = involvement(CLINICAL.world, range(20))
    affected = damage(ATLAS)[there]
    with_it, without = (
        np.array([np.corrcoef(share, affected)[0, 1] for share in shares])
        for shares in (preferring, indifferent)
    )
    # Over 100 worlds .51 (sd .09) and .02 (sd .12); standard errors of twenty: .02 and .03.
    assert with_it.mean() == pytest.approx(0.51, abs=0.08)
    assert without.mean() == pytest.approx(0.02, abs=0.1)


def test_a_world_without_preference_is_what_it_was():
    # World.draw of CLINICAL, seed 7, at commit 894d237, which knew no published effects (2026-11-25).
    world = World.draw(ATLAS, CLINICAL.world, rng=np.random.default_rng(7))
    assert world.severity_edges[:6].tolist() == [8, 36, 38, 194, 246, 248]
    assert int(world.severity_edges.sum()) == 198374
    # Only the order of additions may differ between builds of numpy.
    assert world.severity_slope.sum() == pytest.approx(-19.987668239079234, rel=1e-12)
    assert world.factors.sum() == pytest.approx(-8.813533490745037, rel=1e-9)


def test_a_weighted_shuffle_draws_one_by_one_in_proportion():
    rng = np.random.default_rng(3)
    weight = np.array([1.0, 2.0, 4.0, 8.0])
    positions = np.array([3, 1, 0])
    drawn = np.array([_shuffled(positions, weight, rng) for _ in range(20_000)])
    assert sorted(drawn[0]) == [0, 1, 3]
    # First by 8 : 2 : 1, then by what is left. Standard error .003.
    first = [np.mean(drawn[:, 0] == p) for p in (3, 1, 0)]
    assert first == pytest.approx([8 / 11, 2 / 11, 1 / 11], abs=0.012)
    after_three = drawn[drawn[:, 0] == 3]
    assert np.mean(after_three[:, 1] == 1) == pytest.approx(2 / 3, abs=0.012)


def test_another_atlas_has_no_published_effects():
    with pytest.raises(ConfigError, match="of the regions of desikan-killiany-83, not of phantom-28"):
        World.draw(load_atlas("phantom-28"), WorldRules(published_regions=1.0), rng=np.random.default_rng(0))


def test_a_negative_preference_is_refused():
    with pytest.raises(ConfigError, match="preference for regions is 0 or more, not -1"):
        replace(CLINICAL.world, published_regions=-1.0)


def test_the_named_worlds_differ_from_the_clinical_one_in_their_world_alone():
    assert list(WORLDS) == ["clinical", "sober", "counts", "weak", "non-additive", "epilepsy"]
    for rules in WORLDS.values():
        assert replace(rules, world=CLINICAL.world) == CLINICAL
    assert replace(EPILEPSY.world, published_regions=0.0) == CLINICAL.world
