"""Votes about candidates: what a site votes for, what is read of the sum, and how little is in it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.errors import DataError
from esn_core.privacy.fixed_point import add_up, leave_grid, sum_rows
from esn_core.privacy.release import clip_rows
from esn_core.severity_network.votes import Votes, votes_release, votes_rows

EDGES = 40


def strengths(n, seed=0, *, lacking=0.1):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((n, EDGES)) < lacking * rng.random(EDGES), 0.0, rng.uniform(1, 8, (n, EDGES)))


@given(n=st.integers(1, 60), seed=st.integers(0, 10**6), wild=st.booleans())
def test_no_row_is_longer_than_the_bound_and_none_is_clipped(n, seed, wild):
    given_ = strengths(n, seed)
    if wild:
        given_[0] = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 1e300], EDGES)
    rows, bound = votes_rows(given_), votes_release(EDGES).l2_bound
    assert (np.linalg.norm(rows, axis=1) <= bound + 1e-12).all()
    assert np.array_equal(clip_rows(rows, bound), rows)


def test_the_longest_row_is_that_of_a_single_control_with_all_edges():
    (row,) = votes_rows(np.ones((1, EDGES)))
    assert np.linalg.norm(row) == pytest.approx(votes_release(EDGES).l2_bound, rel=1e-12)


def test_the_sum_on_the_grid_is_how_many_sites_voted_for_an_edge():
    kind, sites = votes_release(EDGES), [strengths(n, seed) for n, seed in ((3, 1), (7, 2), (25, 3), (41, 4))]
    total = add_up([sum_rows(votes_rows(s), kind) for s in sites], kind)
    votes = Votes.from_total(np.asarray(total))
    mine = np.array([(s > 0).mean(axis=0) >= 0.95 for s in sites])
    assert votes.sites == 4
    assert votes.for_edge.tolist() == mine.sum(axis=0).tolist()
    assert votes.chosen.tolist() == (mine.sum(axis=0) > 2).tolist()
    assert 0 < votes.chosen.sum() < EDGES
    assert leave_grid(sum_rows(votes_rows(sites[0]), kind), kind)[:-1].tolist() == mine[0].tolist()


def test_the_sum_tells_nothing_of_how_many_controls_voted():
    """Were a vote shared out among controls, what rounding takes would be another for each number of them."""
    kind = votes_release(EDGES)
    sums = {sum_rows(votes_rows(np.ones((n, EDGES))), kind).tobytes() for n in range(1, 40)}
    assert len(sums) == 1


def test_half_of_the_sites_are_not_most_of_them():
    total = np.append(np.full(EDGES, 2.0), 4.0)
    assert not Votes.from_total(total).chosen.any()
    total[3] = 3.0
    assert np.flatnonzero(Votes.from_total(total).chosen).tolist() == [3]


def test_one_of_nineteen_controls_turns_a_vote_and_one_of_twenty_does_not():
    for n, turned in ((19, True), (20, False)):
        full = np.ones((n, EDGES))
        lacking = full.copy()
        lacking[0, 5] = 0.0
        assert (votes_rows(full).sum(axis=0)[5] != votes_rows(lacking).sum(axis=0)[5]) == turned


def test_a_control_without_tissue_for_an_edge_does_not_vote_on_it():
    given_ = np.ones((5, EDGES))
    given_[0, :3] = np.nan
    assert votes_rows(given_).sum(axis=0) == pytest.approx(np.ones(EDGES + 1))


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [(0, 1.5, "whole numbers"), (0, np.nan, "whole numbers"), (0, 4.0, "more sites"), (1, -1.0, "no site")],
)
def test_what_is_no_sum_of_votes_is_refused(at, value, words):
    total = np.append(np.ones(EDGES), 3.0)
    total[at] = value
    with pytest.raises(DataError, match=words):
        Votes.from_total(total)
