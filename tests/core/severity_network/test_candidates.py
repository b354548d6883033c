"""Candidates of the severity network: what is released about them, and what is made of the sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.connectome.atlas import load_atlas, module_pairs
from esn_core.connectome.template import load_template
from esn_core.errors import ConfigError, DataError
from esn_core.privacy.fixed_point import sum_rows
from esn_core.severity_network.association import association_release, association_rows
from esn_core.severity_network.candidates import BLOCK_SCALE, Candidates, candidates_of
from esn_core.severity_network.selection import select

ATLAS, TEMPLATE = load_atlas("phantom-28"), load_template("phantom-28", simulated=True)
PRESENT = np.flatnonzero(TEMPLATE.present)
PAIRS = [(ATLAS.names[a], ATLAS.names[b]) for a, b in ATLAS.edges[PRESENT[::3]]]


def scores_of(seed, n=12):
    return np.random.default_rng(seed).standard_t(3, (n, len(ATLAS.edges)))


def test_the_template_offers_each_edge_that_it_has():
    found = candidates_of("template", ATLAS, TEMPLATE.present)
    assert np.array_equal(found.edges, PRESENT)
    assert found.released == len(PRESENT)
    scores = scores_of(1)
    assert np.array_equal(found.features(scores), np.clip(scores[:, PRESENT], -4, 4))


def test_a_list_offers_its_own_pairs_in_any_order():
    turned = [pair[::-1] for pair in reversed(PAIRS)]
    for pairs in (PAIRS, turned):
        assert np.array_equal(candidates_of("list", ATLAS, TEMPLATE.present, pairs=pairs).edges, PRESENT[::3])


def test_a_listed_pair_that_cannot_be_measured_is_left_out():
    a, b = ATLAS.edges[np.flatnonzero(~TEMPLATE.present)[0]]
    more = [*PAIRS, (ATLAS.names[a], ATLAS.names[b])]
    assert np.array_equal(candidates_of("list", ATLAS, TEMPLATE.present, pairs=more).edges, PRESENT[::3])
    with pytest.raises(ConfigError, match="none of the 1 listed pairs of regions is present"):
        candidates_of("list", ATLAS, TEMPLATE.present, pairs=more[-1:])


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("nowhere", ATLAS.names[1])], "the atlas phantom-28 has no region 'nowhere'"),
        ([(ATLAS.names[1], ATLAS.names[1])], "joins two regions, not .* with itself"),
        ([PAIRS[0], PAIRS[0][::-1]], "is listed twice"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(pairs, words):
    with pytest.raises(ConfigError, match=words):
        candidates_of("list", ATLAS, TEMPLATE.present, pairs=pairs)


@given(st.integers(0, 10**6))
def test_a_blocks_number_is_its_edges_sum_over_the_root_of_their_number(seed):
    found = candidates_of("modules", ATLAS, TEMPLATE.present)
    scores = scores_of(seed, n=3)
    features = found.features(scores)
    codes = module_pairs(ATLAS)
    blocks = sorted(set(codes[PRESENT].tolist()))
    assert features.shape == (3, len(blocks))
    for child in range(3):
        for k, code in enumerate(blocks):
            mine = [min(max(scores[child, e], -4), 4) for e in PRESENT if codes[e] == code]
            # Only the order of the additions differs.
            assert features[child, k] == pytest.approx(sum(mine) / len(mine) ** 0.5 / BLOCK_SCALE, rel=1e-12)


@given(st.integers(0, 10**6), st.sampled_from(["template", "modules"]))
def test_a_childs_features_do_not_depend_on_the_other_children(seed, source):
    found = candidates_of(source, ATLAS, TEMPLATE.present)
    scores = scores_of(seed)
    other = np.vstack([scores_of(seed + 1)[:5], scores[5:6], scores_of(seed + 2)[:3]])
    # Equal to rounding: the gate clips and rounds each row by itself, whatever it is given.
    assert found.features(other)[5] == pytest.approx(found.features(scores)[5], rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("source", ["template", "modules"])
def test_the_rows_respect_the_bound_of_their_release(source):
    found = candidates_of(source, ATLAS, TEMPLATE.present)
    kind = association_release(found.released)
    gase = np.tile([1.0, 7.0], 50)
    rows = association_rows(found.features(5 * scores_of(3, 100)), gase, mean_severity=0.0)
    assert rows.shape[1] == kind.dimension
    # The clip's own rounding: a few parts in 2^52.
    assert np.linalg.norm(rows, axis=1).max() <= kind.l2_bound * (1 + 1e-12)
    assert sum_rows(rows, kind).shape == (kind.dimension,)


def test_the_edges_of_a_block_share_what_was_found_about_it():
    found = candidates_of("modules", ATLAS, TEMPLATE.present)
    rng = np.random.default_rng(2)
    gase = rng.integers(1, 8, 200).astype(float)
    scores = rng.normal(size=(200, len(ATLAS.edges)))
    affected = found.edges[found.blocks == np.bincount(found.blocks).argmax()]
    scores[:, affected] -= 0.6 * (gase - 4)[:, None] / 1.5
    rows = association_rows(found.features(scores), gase, mean_severity=0.0)
    network = found.network(rows.sum(axis=0), children=200.0, noise_sd=0.0)
    inside = np.isin(network.edges, affected)
    assert len(set(network.weight[inside].tolist())) == 1
    assert (network.weight[inside] < 0).all()
    assert network.retained[inside].all()
    # A block of m edges has a number 1 / sqrt(m) of each: weighted so, the edges add up to it again.
    sizes = np.bincount(found.blocks)
    whole = select(
        rows.sum(axis=0),
        edges=np.arange(len(sizes)),
        blocks=np.zeros(len(sizes), dtype=np.int64),
        children=200.0,
        noise_sd=0.0,
    )
    for edge, block in enumerate(found.blocks):
        assert network.weight[edge] * sizes[block] ** 0.5 == pytest.approx(whole.weight[block], rel=1e-12)
        assert network.inclusion[edge] == whole.inclusion[block]
    assert np.abs(network.weight[~inside]).max() < 0.5 * np.abs(network.weight[inside]).min()


def test_no_candidates_are_refused():
    nothing = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="one edge or more and a block for each"):
        Candidates(nothing, nothing, grouped=False)
