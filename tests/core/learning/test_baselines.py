"""Predictors to compare with: each learns what is there, and none learns what is not."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from esn_core.connectome.atlas import load_atlas
from esn_core.learning.baselines import published
from esn_core.learning.baselines.predictors import (
    Cpm,
    EdgeRidge,
    MeanPredictor,
    PublishedDcnnRn,
    all_baselines,
    compare,
    permuted_r,
    rate,
)
from esn_core.learning.baselines.published import PublishedNetwork, learning_rate, published_epochs
from esn_core.severity_network.candidates import candidates_of
from esn_core.simulation.consortium import CLINICAL, draw_consortium

ATLAS = load_atlas("desikan-killiany-83")


def easy_world(atlas, **rules):
    """Four sites where severity is plain: (scores, gase) of training and of held-out children, candidates."""
    rules = replace(
        CLINICAL,
        world=replace(CLINICAL.world, effect_sd=1.2, **rules),
        sites=4,
        children=(30, 35),
        held_out=15,
    )
    drawn = draw_consortium(atlas, rules, rng=np.random.default_rng(5))

    def pooled(split):
        parts = [getattr(site, split) for site in drawn.sites]
        return np.concatenate([p.scores for p in parts]), np.concatenate([p.gase for p in parts])

    return pooled("training"), pooled("held_out"), candidates_of("template", atlas, drawn.template.present)


@pytest.fixture(scope="module")
def world():
    """An easy world on the human brain."""
    return easy_world(ATLAS)


@pytest.mark.parametrize(
    ("atlas", "rules"),
    [
        (load_atlas("phantom-28"), {"severity_edges": 24}),
        pytest.param(ATLAS, {}, marks=[pytest.mark.long, pytest.mark.science]),
    ],
    ids=["phantom", "human"],
)
def test_every_predictor_but_the_mean_follows_gase_where_the_truth_is_clear(atlas, rules):
    torch.set_num_threads(1)
    training, held_out, candidates = easy_world(atlas, **rules)
    everybody = [
        p for p in all_baselines(atlas, candidates, weights="compact-3") if not isinstance(p, PublishedDcnnRn)
    ]
    mean, *others = compare(everybody, training, held_out, rng=np.random.default_rng(0))
    assert (mean.r, mean.r_interval) == (None, None)
    # Phantom, seed 5: r .77 to .85.
    for rated in others:
        assert rated.r > 0.5, rated
        assert rated.mae < mean.mae, rated


@pytest.mark.long
@pytest.mark.science
@pytest.mark.timeout(1800)
def test_the_published_network_learns_too(world):
    training, held_out, _ = world
    (rated,) = compare([PublishedDcnnRn(ATLAS)], training, held_out, rng=np.random.default_rng(0))
    assert rated.r > 0.3


def test_on_permuted_scores_nothing_is_learnt(world):
    training, held_out, _ = world
    r = permuted_r(Cpm(), training, held_out, times=200, rng=np.random.default_rng(1))
    # Severity is the largest common axis of these scores: one permutation gives r an sd of .27.
    assert abs(r.mean()) < 4 * 0.27 / np.sqrt(200)
    low, high = np.quantile(r, [0.025, 0.975])
    assert low < 0 < high


class Copyist:
    """Knows the held-out children's scores: what a leak would look like."""

    name = "copyist"

    def __init__(self, held_out):
        self.held_out = held_out

    def fit(self, _scores, _gase, *, rng):
        return lambda _rows: self.held_out


def test_a_leak_of_held_out_scores_would_show_under_permutation(world):
    training, held_out, _ = world
    r = permuted_r(Copyist(held_out[1]), training, held_out, times=3, rng=np.random.default_rng(1))
    assert r == pytest.approx(1.0)


def test_the_ridge_equals_the_textbooks_with_the_penalty_of_smallest_leave_one_out_error():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 60))
    y = np.clip(4 + x[:, :5].sum(axis=1) + rng.normal(size=40), 1, 7)
    fitted = EdgeRidge().fit(x, y, rng=rng)
    new = rng.normal(size=(7, 60))

    def ridge(x, y, penalty):
        mean, middle = x.mean(axis=0), y.mean()
        a = (x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1])
        weight = np.linalg.solve(a, (x - mean).T @ (y - middle))
        return lambda rows: middle + (rows - mean) @ weight

    errors = {
        penalty: np.mean(
            [
                (y[i] - ridge(np.delete(x, i, 0), np.delete(y, i), penalty)(x[i : i + 1])[0]) ** 2
                for i in range(40)
            ]
        )
        for penalty in np.logspace(0, 5, 26)
    }
    best = min(errors, key=errors.get)
    # The mean is left out too in the textbook's way: the two errors differ a little, so a neighbour may win.
    candidates = [p for p in errors if 0.5 < p / best < 2.0]
    assert any(np.allclose(fitted(new), ridge(x, y, p)(new), rtol=1e-9) for p in candidates)


def test_ratings_equal_their_definitions():
    said, truth = np.array([1.0, 2.0, 4.0, 9.0]), np.array([1.0, 3.0, 4.0, 7.0])
    rated = rate("x", said, truth)
    assert rated.r == pytest.approx(np.corrcoef(said, truth)[0, 1])
    # A prediction beyond the scale is reported as its end.
    assert_allclose([rated.mae, rated.rmse], [0.25, 0.5])


def test_the_mean_predictor_says_the_mean():
    fitted = MeanPredictor().fit(np.zeros((3, 2)), np.array([1.0, 2.0, 6.0]), rng=np.random.default_rng())
    assert fitted(np.zeros((2, 2))).tolist() == [3.0, 3.0]


def test_the_published_network_has_the_published_layers():
    """METHOD: 115 -> 56 -> 27 -> 11 -> 3, nine objects of 32; g four of 512, f 512, 512, 256 and 1."""
    model = PublishedNetwork()
    objects = model.objects(torch.zeros(2, 1, 115, 115))
    assert objects.shape == (2, 32, 3, 3)
    convolutions = (9 * 1 + 1) * 32 + 3 * (9 * 32 + 1) * 32 + 4 * 2 * 32
    g = (64 + 1) * 512 + 3 * (512 + 1) * 512
    f = (512 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 256 + (256 + 1)
    assert sum(p.numel() for p in model.parameters()) == convolutions + g + f
    assert model(torch.zeros(2, 1, 115, 115)).shape == (2,)
    slopes = [part.negative_slope for part in model.modules() if isinstance(part, torch.nn.LeakyReLU)]
    assert slopes == [0.2] * (4 + 4 + 3)


@pytest.mark.parametrize(("atlas", "objects"), [("desikan-killiany-83", 1), ("aal-116", 9)])
def test_the_published_pooling_leaves_pairs_of_objects_on_the_larger_atlas_alone(atlas, objects):
    regions = len(load_atlas(atlas).regions)
    assert (
        PublishedNetwork().eval().objects(torch.zeros(1, 1, regions, regions)).flatten(2).shape[2] == objects
    )


def test_the_published_training_shows_1500_children_an_epoch_in_batches_of_128(monkeypatch):
    shown = []

    class Recording(torch.nn.Linear):
        def forward(self, x):
            shown.append(x.detach().flatten(1))
            return super().forward(shown[-1])[:, 0]

    monkeypatch.setattr(published, "PublishedNetwork", lambda: Recording(4, 1))
    children = torch.arange(20.0).reshape(5, 1, 2, 2) + 1
    course = published_epochs(children, np.linspace(0, 1, 5), rng=np.random.default_rng(0))
    assert [model.training for model in islice(course, 2)] == [False, False]
    assert [len(batch) for batch in shown] == ([128] * 11 + [92]) * 2
    seen = torch.cat(shown[:12])
    as_they_are = sum((seen == child.flatten()).all(dim=1).sum().item() for child in children)
    assert as_they_are == 5  # and 1,495 copies with noise


def test_the_published_rate_is_halved_at_every_tenth_epoch():
    assert [learning_rate(epoch) for epoch in (0, 8, 9, 19)] == [1e-4, 1e-4, 5e-5, 2.5e-5]
