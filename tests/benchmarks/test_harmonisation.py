"""Two worlds of the benchmark of harmonisations: what its table says on average holds there as well."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from esn_core.simulation.consortium import CLINICAL

OWN, COMBAT = "template and own controls, shrunk", "ComBat on patients"
TOLD = "ComBat that is told the training children's GASE"
SEEDS = (8600, 8601)


def module(name):
    """Load a file of this directory, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def harmonisation():
    """The benchmark, as a module."""
    yield module("harmonisation")
    del sys.modules["harmonisation"]


@pytest.fixture(scope="module")
def confounded(harmonisation):
    """Worlds whose sites differ in mean severity by a whole step of GASE."""
    rules = replace(CLINICAL, severity_shift_sd=1.0)
    known = {**harmonisation.WAYS, **harmonisation.ABLATIONS}
    ways = {way: known[way] for way in (OWN, COMBAT, TOLD)}
    return [harmonisation.one_world(rules, seed, ways=ways, predictors=("ridge",)) for seed in SEEDS]


def test_combat_takes_what_sites_differ_by_in_severity_away_and_nothing_else(confounded):
    for world in confounded:
        own, combat, told = (world[way, "ridge"] for way in (OWN, COMBAT, TOLD))
        assert combat.r < own.r - 0.05
        assert told.r > combat.r + 0.05
        # Within sites all three agree: between worlds their differences move by .01.
        assert combat.r_within == pytest.approx(own.r_within, abs=0.03)
        assert told.r_within == pytest.approx(own.r_within, abs=0.03)


def test_own_controls_hold_against_a_scanner_that_the_template_does_not(harmonisation):
    rules = replace(CLINICAL, scanner=harmonisation.SCANNERS["(1.3, .3)"])
    ways = {name: harmonisation.WAYS[name] for name in ("public template", OWN)}
    for seed in SEEDS:
        found = harmonisation.one_world(rules, seed, ways=ways, predictors=("DCNN+RN",))
        # Means over 24 worlds: .605 and .842; between worlds the first moves by .14.
        assert found[OWN, "DCNN+RN"].r > found["public template", "DCNN+RN"].r + 0.02


def test_the_demos_children_are_those_of_its_report(harmonisation):
    sites = module("harmonisation_demo").demo_sites()
    assert [len(s.gase) for s in sites] == [40, 44, 48, 52, 56, 60]
    assert {len(s.control_scores) for s in sites} == {15}
    scores = harmonisation.WAYS[OWN](sites)
    assert harmonisation.judged([s.gase for s in sites], [s.gase for s in sites]).r == pytest.approx(1)
    assert [x.shape for x in scores] == [s.scores.shape for s in sites]


def test_an_interval_of_one_world_is_all_that_r_can_be(harmonisation):
    assert harmonisation.interval([0.8]) == (0.8, -1.0, 1.0)
    mean, low, high = harmonisation.interval([0.5, 0.6, 0.7])
    # t of 2 degrees of freedom: 4.303 sd / sqrt(3).
    assert (mean, high - low) == (pytest.approx(0.6), pytest.approx(2 * 4.3027 * 0.1 / 3**0.5, rel=1e-4))
