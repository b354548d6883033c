"""The severity network: what the spike and slab makes of a noisy sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.errors import DataError
from esn_core.severity_network import SeverityNetwork, select


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
    assert (np.abs(found.weight) <= np.abs(total / about["children"])).all()  # shrunk, never stretched
    assert (found.weight * total >= 0).all()
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


def test_the_posterior_equals_its_definition_by_integration():
    total, about = draw(3)
    found = select(total, **about)
    variance = (3.0**2 + 0.8 * 60) / 60**2
    i = int(np.argmax(np.abs(total)))
    # Its inclusion and shrinkage give the moments of a mixture of a spike at 0 and a normal.
    shrink = found.weight[i] / found.inclusion[i] / (total[i] / 60)
    rng = np.random.default_rng(0)
    inside = rng.random(400_000) < found.inclusion[i]
    draws = np.where(inside, rng.normal(shrink * total[i] / 60, np.sqrt(shrink * variance), 400_000), 0.0)
    # Monte Carlo error of 400,000 draws: below 1 %.
    assert draws.mean() == pytest.approx(found.weight[i], rel=0.01)
    assert draws.std() == pytest.approx(found.posterior_sd[i], rel=0.01)


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
