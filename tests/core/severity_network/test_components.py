"""The network-based statistic: components by flooding, and what chance does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.severity_network.components import components, network_based

REGIONS = 7
ENDS = np.array([(a, b) for a in range(REGIONS) for b in range(a + 1, REGIONS)])
THRESHOLD = 2.0


def flooded(t):
    """Components by spreading from edge to edge that share a region."""
    left = [e for e in range(len(t)) if abs(t[e]) > THRESHOLD]
    found = []
    while left:
        reached = {left.pop(0)}
        while True:
            regions = {r for e in reached for r in ENDS[e]}
            more = {e for e in left if set(ENDS[e]) & regions}
            if not more:
                break
            reached |= more
            left = [e for e in left if e not in more]
        found.append(sorted(reached))
    return sorted(found, key=lambda edges: (-len(edges), edges[0]))


@given(arrays(float, len(ENDS), elements=st.floats(-3.4, 3.4)))
def test_components_are_those_found_by_flooding(t):
    found = components(t, ENDS, threshold=THRESHOLD)
    assert [edges.tolist() for edges in found] == flooded(t)


def test_an_edge_that_does_not_vary_joins_nothing():
    t = np.full(len(ENDS), np.nan)
    t[0] = 3.0
    assert [edges.tolist() for edges in components(t, ENDS, threshold=THRESHOLD)] == [[0]]


def test_a_component_is_judged_by_the_largest_of_each_draw():
    t = np.zeros(len(ENDS))
    t[[0, 1, 2]], t[-1] = 3.0, -5.0  # three edges at region 0, and one between the last two regions
    null = [np.zeros(len(ENDS)) for _ in range(9)]
    null[0][[0, 1, 2, 3]] = 4.0
    null[1][0] = 4.0
    found, largest = network_based(t, ENDS, null, threshold=THRESHOLD)
    assert largest.tolist() == [4, 1, 0, 0, 0, 0, 0, 0, 0]
    assert [(c.edges.tolist(), c.regions, c.p) for c in found] == [
        ([0, 1, 2], 4, pytest.approx(2 / 10)),
        ([len(ENDS) - 1], 2, pytest.approx(3 / 10)),
    ]


def test_without_a_null_nothing_is_judged():
    found, largest = network_based(np.full(len(ENDS), 9.0), ENDS, [], threshold=THRESHOLD)
    assert (len(found), found[0].p, len(largest)) == (1, None, 0)


def test_chance_is_found_as_often_as_is_said():
    """Draws that are exchangeable with the observed one: p below .1 in a tenth of the worlds."""
    rng = np.random.default_rng(2)
    said = []
    for _ in range(300):
        shared = rng.normal(size=(40, 1))  # edges that go together
        drawn = 0.8 * shared + rng.normal(size=(40, len(ENDS)))
        found, _ = network_based(drawn[0], ENDS, list(drawn[1:]), threshold=THRESHOLD)
        said.append(found[0].p if found else 1.0)
    # Binomial, 300 worlds: sd .017. Ties of sizes make it rarer, never more frequent.
    assert np.mean(np.array(said) <= 0.1) < 0.1 + 3 * 0.017
    assert np.mean(np.array(said) <= 0.1) > 0.02
