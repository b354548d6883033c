"""What a hospital has by itself: the best of three ways, by folds inside the hospital."""

import numpy as np
import pytest

from esn_core.learning.baselines import strongest_alone as module
from esn_core.learning.baselines.predictors import Cpm, EdgeRidge
from esn_core.learning.baselines.strongest_alone import strongest_alone
from esn_core.learning.personal_model import fit
from esn_core.severity_network.candidates import Candidates

EDGES = 80
CANDIDATES = Candidates(np.arange(10, 70), np.repeat(np.arange(6), 10), grouped=False)


def children(rng, n, effect):
    """GASE and scores of n children; only the candidates' effects are seen."""
    gase = np.clip(np.rint(rng.normal(4, 1.4, n)), 1, 7)
    scores = rng.normal(size=(n, EDGES))
    scores[:, 10:70] += np.outer((gase - 4) / 1.5, effect)
    return scores, gase


def best(effect, n=30, seed=3):
    rng = np.random.default_rng(seed)
    scores, gase = children(rng, n, effect)
    controls = rng.normal(size=(12, EDGES))
    found = strongest_alone(scores, gase, controls, candidates=CANDIDATES, reader=None)
    return found, (scores, gase, controls), children(rng, 300, effect)


MANY = np.where(np.arange(60) < 20, -0.35, 0.0)


def test_the_hospitals_own_network_is_used_where_its_folds_prefer_it():
    found, (scores, gase, controls), (new, truth) = best(MANY)
    assert found.name == "own severity network"
    own = fit(
        scores[:, 10:70], gase, controls[:, 10:70], blocks=CANDIDATES.blocks, others=None, reader=None
    ).predict(new[:, 10:70], None)
    assert found.fitted(new) == pytest.approx(own, rel=1e-12)
    assert np.corrcoef(own, truth)[0, 1] > 0.6


@pytest.mark.parametrize("way", [EdgeRidge(name="ridge"), Cpm()], ids=["ridge", "CPM"])
def test_another_way_is_used_where_it_predicts_the_hospitals_own_children_better(monkeypatch, way):
    said = module._out_of_fold

    def clairvoyant(which, own, gase):
        return gase if which.name == way.name else said(which, own, gase)

    monkeypatch.setattr(module, "_out_of_fold", clairvoyant)
    found, (scores, gase, _), (new, _) = best(MANY)
    assert found.name == way.name
    expected = way.fit(scores[:, 10:70], gase, rng=np.random.default_rng(0))(new[:, 10:70])
    assert found.fitted(new) == pytest.approx(expected, rel=1e-12)


def test_a_childs_own_score_is_not_in_what_judges_the_ways():
    """Where nothing goes with severity, ridge explains its own children and none that it left out."""
    rng = np.random.default_rng(5)
    scores, gase = children(rng, 200, np.zeros(60))
    ridge = EdgeRidge(name="ridge")
    out = module._out_of_fold(ridge, scores, gase)
    inside = ridge.fit(scores, gase, rng=rng)(scores)
    assert np.corrcoef(inside, gase)[0, 1] > 0.3
    assert abs(np.corrcoef(out, gase)[0, 1]) < 0.25  # 3.5 standard errors


def test_few_children_have_no_network_of_their_own():
    assert best(MANY, n=9)[0].name in {"ridge", "CPM"}


def test_a_prediction_that_does_not_vary_is_never_preferred():
    assert module._r(np.full(5, 4.0), np.arange(5.0)) == -np.inf
