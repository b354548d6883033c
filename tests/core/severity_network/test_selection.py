"""The severity network: what the spike and slab makes of a noisy sum."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from esn_core.errors import DataError
from esn_core.severity_network.selection import SeverityNetwork, select


def draw(seed, *, d=120, affected=15, children=60, noise_sd=3.0, effect=0.6):
    """A sum with known affected edges: sampling error 0.8 per child, then noise."""
    rng = np.random.default_rng(seed)
    truth = np.where(np.arange(d) < affected, effect, 0.0)
    total = truth * children + rng.normal(0, np.sqrt(0.8 * children + noise_sd**2), d)
    return total, {
        "edges": np.arange(d) * 2,
        "blocks": np.arange(d) // 10,
        "children": float(children),
        "noise_sd": noise_sd,
    }


def test_a_clear_network_is_found():
    total, about = draw(1, noise_sd=0.0)
    found = select(total, **about)
    assert found.retained[:15].sum() >= 14
    assert found.retained[15:].sum() <= 3
    assert found.weight[:15] == pytest.approx(0.6, abs=0.4)


@given(st.integers(0, 10**6))
def test_every_number_is_possible(seed):
    total, about = draw(seed)
    found = select(total, **about)
    assert ((found.inclusion >= 0) & (found.inclusion <= 1)).all()
    # Shrunk towards nothing, or towards the mean effect of the network, which lies among the effects.
    assert np.abs(found.weight).max() <= np.abs(total / about["children"]).max()
    assert (found.posterior_sd >= 0).all()


@given(st.integers(0, 10**6))
def test_more_noise_shrinks_more(seed):
    total, about = draw(seed)
    louder = select(total, **{**about, "noise_sd": 50.0})
    assert np.abs(louder.weight).sum() <= np.abs(select(total, **about).weight).sum() + 1e-9


@given(st.integers(0, 10**6))
def test_turning_severity_round_turns_every_weight_round(seed):
    total, about = draw(seed)
    found, turned = select(total, **about), select(-total, **about)
    assert np.array_equal(turned.weight, -found.weight)
    assert np.array_equal(turned.inclusion, found.inclusion)


@given(st.integers(0, 10**6))
def test_the_order_of_the_edges_does_not_matter(seed):
    total, about = draw(seed)
    order = np.random.default_rng(seed).permutation(len(total))
    shuffled = select(
        total[order], **{**about, "edges": about["edges"][order], "blocks": about["blocks"][order]}
    )
    # 200 steps of sums in another order.
    assert shuffled.weight == pytest.approx(select(total, **about).weight[order], rel=1e-7, abs=1e-9)


def normal(x, mean, sd):
    """The normal density; scipy's takes a hundred times as long for one number, and there are 48,000."""
    return math.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def slow_select(total, *, blocks, children, noise_sd, steps=200):
    """The definition, edge by edge; the moments of each posterior by adding up over a fine grid."""
    effect = total / children
    sd = np.sqrt(noise_sd**2 + 0.6 * children) / children
    share = dict.fromkeys(blocks.tolist(), 0.3)
    slab, centre = max(np.mean(effect**2) - sd**2, sd**2), 0.0
    for _ in range(steps):
        inclusion = []
        for e, b in zip(effect, blocks.tolist(), strict=True):
            inside = share[b] * normal(e, centre, np.sqrt(slab + sd**2))
            outside = (1 - share[b]) * normal(e, 0, sd)
            inclusion.append(inside / (inside + outside))
        inclusion = np.array(inclusion)
        overall = min(max(inclusion.mean(), 0.01), 0.99)
        for b in share:
            mine = inclusion[blocks == b]
            share[b] = (mine.sum() + 3 * overall) / (len(mine) + 3)
        centre = (inclusion * effect).sum() / (inclusion.sum() + 20)
        spread = (inclusion * (effect - centre) ** 2).sum() / inclusion.sum()
        slab = max(spread - sd**2, sd**2 / 4)
    grid = np.linspace(-3, 3, 40_001)
    weight, second = [], []
    for e, p in zip(effect, inclusion, strict=True):
        density = norm.pdf(grid, centre, np.sqrt(slab)) * norm.pdf(e, grid, sd)
        density /= density.sum()
        weight.append(p * (density @ grid))
        second.append(p * (density @ grid**2))
    weight = np.array(weight)
    return weight, np.sqrt(np.array(second) - weight**2), inclusion


@pytest.mark.parametrize(("seed", "effect"), [(3, 0.6), (4, -0.4), (5, 0.0)])
def test_the_posterior_equals_its_definition_by_integration(seed, effect):
    total, about = draw(seed, effect=effect)
    found = select(total, **about)
    rest = {name: about[name] for name in ("blocks", "children", "noise_sd")}
    weight, posterior_sd, inclusion = slow_select(total, **rest)
    # 200 steps in another order of additions; the grid's steps are 0.001 of the narrowest posterior's sd.
    assert found.inclusion == pytest.approx(inclusion, rel=1e-6, abs=1e-9)
    assert found.weight == pytest.approx(weight, rel=1e-5, abs=1e-8)
    assert found.posterior_sd == pytest.approx(posterior_sd, rel=1e-4, abs=1e-7)


def test_an_effect_that_all_network_edges_share_lends_strength_to_the_weak_ones():
    total, about = draw(7, affected=60, noise_sd=20.0, effect=-0.5)
    found = select(total, **about)
    turned = select(np.where(np.arange(120) % 2, total, -total), **about)  # the same sizes, signs at odds
    truth = np.where(np.arange(120) < 60, -0.5, 0.0)
    wrong = np.where(np.arange(120) % 2, truth, -truth)
    assert np.abs(found.weight - truth).mean() < np.abs(turned.weight - wrong).mean()


def test_a_sum_that_says_nothing_is_shrunk_towards_nothing():
    total, about = draw(4, affected=0)
    found = select(total, **about)
    assert np.abs(found.weight).max() < 0.5 * np.abs(total / 60).max()


def test_a_sum_of_another_length_is_refused():
    total, about = draw(5)
    with pytest.raises(DataError, match="120 candidate edges need as many sums"):
        select(total[:-1], **about)


@pytest.mark.parametrize("children", [0.0, -3.0, float("nan")])
def test_no_children_are_refused(children):
    total, about = draw(6)
    with pytest.raises(DataError, match="number of children must be positive"):
        select(total, **{**about, "children": children})


def test_a_network_of_unlike_or_infinite_parts_is_refused():
    edges, numbers = np.arange(3), np.ones(3)
    with pytest.raises(DataError, match="four vectors of one length"):
        SeverityNetwork(edges, numbers[:2], numbers, numbers)
    with pytest.raises(DataError, match="must be finite"):
        SeverityNetwork(edges, numbers * np.nan, numbers, numbers)
