"""What r to expect: the curves follow what was measured, and say how far they are off."""

import itertools

import numpy as np
import pytest

from esn_core.analyses import expected_r as module
from esn_core.analyses.expected_r import children_of, expected_r, measured, worth
from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.protocol import Protocol

NAMES = load_atlas("desikan-killiany-83").names
PAIRS = [[a, b] for a, b in itertools.combinations(NAMES[:45], 2)]  # 990, about as many as were measured


def of(content, sites, children, epsilon, colluding=1):
    privacy = {**content["privacy"], "trust": "secure-sum", "epsilon": epsilon, "colluding_sites": colluding}
    shares = {"centre": 0.03, "association": 0.87, "calibration": 0.1, "evaluation": 1.0}
    asked = {
        "severity_network": {**content["severity_network"], "pairs": PAIRS},
        "training": {**content["training"], "rounds": 0},
        "roster": sites,
        "rounds": {**content["rounds"], "quorum": len(sites)},
        "privacy": {**privacy, "shares": shares},
    }
    protocol = Protocol.model_validate({**content, **asked})
    return {each.world: each for each in expected_r(protocol, training_children=children)}


def test_a_roster_is_read_as_it_is_written():
    assert children_of("3 x 60") == (60, 60, 60)
    assert children_of("100 + 5 x 15") == (100, 15, 15, 15, 15, 15)


def test_noise_makes_of_many_children_few():
    assert worth(250, 0.0) == 250
    assert worth(250, 20.0) < worth(250, 10.0) < 250
    # The definition: the variance of an edge's mean is that of so many children without noise.
    assert 0.6 / worth(250, 20.0) == pytest.approx((20.0**2 + 0.6 * 250) / 250**2)


@pytest.mark.parametrize("world", sorted({each.world for each in measured()}))
def test_the_curves_follow_what_was_measured_and_say_how_far_they_are_off(world):
    consortium, personal = module._curves(world)
    here = [each for each in measured() if each.world == world]
    off, own = [], []
    for e in here:
        total = sum(e.children)
        off.append(consortium.at(worth(total, e.noise_sd)) - e.consortium)
        others = [n + personal.others * worth(total - n, e.noise_sd) for n in e.children]
        own.append(np.mean([personal.at(n) for n in e.children]) - e.alone)
        own.append(np.mean([personal.at(n) for n in others]) - e.personal)
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(consortium.error, rel=1e-6)
    assert np.sqrt(np.mean(np.square(own))) == pytest.approx(personal.error, rel=1e-6)
    assert consortium.error < 0.05
    assert personal.error < 0.02
    # Children of other hospitals are worth less to a hospital's own network than its own, and something.
    assert 0.2 < personal.others < 1


def test_more_children_and_less_noise_reach_more_and_a_merge_is_never_less_than_alone(
    patients_content, more_sites
):
    six = more_sites[0]
    usual, strict = of(patients_content, six, 252, 8.0), of(patients_content, six, 252, 1.0)
    fewer, guess = of(patients_content, six, 120, 8.0), of(patients_content, six, 6000, 8.0)
    for world, found in usual.items():
        assert found.consortium > strict[world].consortium
        assert found.personal >= strict[world].personal >= strict[world].alone == found.alone
        assert found.consortium > fewer[world].consortium
        assert found.alone > fewer[world].alone
        assert found.measured
        assert not guess[world].measured
    assert usual["clinical"].consortium > usual["sober"].consortium


def test_hospitals_of_few_children_have_no_personal_model(patients_content, more_sites):
    found = of(patients_content, more_sites[0], 54, 8.0)
    assert {each.personal for each in found.values()} == {None}
    assert all(each.gain == each.consortium - each.alone for each in found.values())


def test_what_is_told_of_a_federation_is_what_was_measured_of_it():
    """Within four times what a curve is wrong by, as two are subtracted; where it is little, that is said."""
    for each in measured():
        _, curve = module._curves(each.world)
        others = [worth(sum(each.children) - own, each.noise_sd) for own in each.children]
        merged = np.mean(
            [curve.at(own + curve.others * x) for own, x in zip(each.children, others, strict=True)]
        )
        alone = float(np.mean([curve.at(own) for own in each.children]))
        told = module.Expected(each.world, alone, 0.0, float(merged), curve.error, 0.0, measured=True)
        assert abs(told.gain - (each.personal - each.alone)) < 4 * curve.error, each
        assert told.buys_little or each.personal - each.alone > 0.01 - curve.error, each
