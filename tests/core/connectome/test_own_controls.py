"""A reference of a hospital's own controls: what it is, whom it depends on, and when there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.connectome.own_controls import ControlMoments, ControlReference
from esn_core.errors import DataError

EDGES = 60


def people(n, rng, *, mean=None, sd=0.5):
    mean = np.linspace(1.0, 8.0, EDGES) if mean is None else mean
    return np.maximum(mean + sd * rng.normal(size=(n, EDGES)), 0.01)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_a_reference_is_the_plain_formula(rng):
    """Compared with the formula written out for one edge, as the prototype had it."""
    controls = people(9, rng)
    found = ControlReference.of_controls(controls)
    mean, variance = controls.mean(axis=0), controls.var(axis=0, ddof=1)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    cuts = np.quantile(mean, np.linspace(0, 1, 13))
    bins = np.clip(np.searchsorted(cuts, mean, side="right") - 1, 0, 11)
    at = [mean[bins == k].mean() for k in range(12)]
    prior = np.interp(mean, at, [variance[bins == k].mean() for k in range(12)])
    assert found.sd == pytest.approx(np.sqrt((8 * prior + 8 * variance) / 16), rel=1e-9)


def test_healthy_children_score_about_zero_with_a_spread_of_about_one(rng):
    found = ControlReference.of_controls(people(25, rng))
    scores = np.array([found.scores(child) for child in people(400, rng)])
    # A mean of 25 controls is off by .2 of an sd; 400 children, 60 edges.
    assert abs(scores.mean()) < 0.05
    assert scores.std() == pytest.approx(1.0, abs=0.12)


def test_what_a_scanner_does_to_every_edge_is_gone(rng):
    shift, spread = rng.normal(size=EDGES), rng.uniform(0.7, 1.5)
    controls, child = people(12, rng) + 5, people(1, rng)[0] + 5
    here = ControlReference.of_controls(controls).scores(child)
    elsewhere = ControlReference.of_controls(controls * spread + shift).scores(child * spread + shift)
    # The prior is read at strengths that the shift has moved; the scores barely notice.
    assert np.corrcoef(here, elsewhere)[0, 1] > 0.97


def test_three_controls_are_enough_and_two_are_not(rng):
    controls = people(3, rng)
    assert np.isfinite(ControlReference.of_controls(controls).scores(controls[0])).all()
    for few in (controls[:2], controls[:0]):
        with pytest.raises(DataError, match=f"3 controls with a connectome or more, not {len(few)}"):
            ControlReference.of_controls(few)


def test_three_equal_edges_do_not_make_a_score_infinite(rng):
    controls = people(3, rng)
    controls[:, 5] = 4.0
    child = controls[0].copy()
    child[5] = 4.3
    assert 0 < ControlReference.of_controls(controls).scores(child)[5] < 4


def test_sums_of_two_hospitals_are_the_reference_of_all_their_controls(rng):
    first, second = people(6, rng), people(11, rng)
    sums = [ControlMoments.of_controls(x) for x in (first, second)]
    names = ("people", "total", "squares", "with_streamlines")
    both = ControlMoments(**{n: getattr(sums[0], n) + getattr(sums[1], n) for n in names})
    found = ControlReference.of_moments(both)
    pooled = ControlReference.of_controls(np.concatenate([first, second]))
    assert found.mean == pytest.approx(pooled.mean, rel=1e-12)
    assert found.sd == pytest.approx(pooled.sd, rel=1e-9)


def test_an_edge_that_few_controls_have_is_unknown(rng):
    controls = people(10, rng)
    controls[3:, 0] = 0.0
    found = ControlReference.of_controls(controls)
    assert (found.known[0], found.measured[0]) == (False, False)
    assert found.scores(people(1, rng)[0])[0] == 0


def test_without_an_edge_in_common_there_is_no_reference():
    controls = np.eye(4, EDGES)
    with pytest.raises(DataError, match="no edge has streamlines in nearly all of the 4 controls"):
        ControlReference.of_controls(controls)


@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.5))
def test_edges_without_tissue_are_scored_zero_and_move_no_other_but_by_the_median(seed, share):
    rng = np.random.default_rng(seed)
    reference = ControlReference.of_controls(people(8, rng))
    child = people(1, rng)[0]
    gone = rng.random(EDGES) < share
    scores = reference.scores(np.where(gone, np.nan, child))
    assert (scores[gone] == 0).all()
    difference = (scores - reference.scores(child))[~gone & reference.known]
    assert difference == pytest.approx(difference[0], abs=1e-9)


def test_a_control_without_tissue_for_an_edge_does_not_count_there(rng):
    controls = people(9, rng)
    partly = controls.copy()
    partly[0, :10] = np.nan
    found = ControlReference.of_controls(partly)
    assert found.mean[:10] == pytest.approx(controls[1:, :10].mean(axis=0), rel=1e-12)
    assert found.mean[10:] == pytest.approx(controls[:, 10:].mean(axis=0), rel=1e-12)
    assert found.controls == 9


def test_a_child_without_any_measured_edge_is_refused(rng):
    reference = ControlReference.of_controls(people(5, rng))
    with pytest.raises(DataError, match="tissue for none of the edges"):
        reference.scores(np.full(EDGES, np.nan))
    with pytest.raises(DataError, match="the reference has"):
        reference.scores(np.zeros(EDGES + 1))
