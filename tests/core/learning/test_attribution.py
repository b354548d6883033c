"""Attributions add up to the prediction, and belong to one child each."""

import numpy as np
import pytest
import torch

from esn_core.connectome.atlas import load_atlas
from esn_core.learning.attribution import attributions
from esn_core.learning.releases import attribution_release, attribution_rows
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import pretrained

ATLAS = load_atlas("phantom-28")
EDGES = np.arange(0, len(ATLAS.edges), 5)


@pytest.fixture(scope="module")
def model():
    return pretrained("compact-3")


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(1).normal(size=(4, len(EDGES)))


def of(model, values, **more):
    return attributions(model, values, EDGES, ends=ATLAS.edges, regions=28, **more)


def test_they_add_up_to_the_prediction_less_that_of_the_baseline(model, values):
    inputs = as_matrices(np.vstack([values, np.zeros_like(values[:1])]), EDGES, ends=ATLAS.edges, regions=28)
    *said, baseline = predict(model, inputs)
    # The midpoint rule, on a network with kinks.
    found = of(model, values, steps=400).sum(axis=1)
    assert found == pytest.approx(np.array(said) - baseline, abs=5e-3)


def test_they_are_the_slope_at_the_middle_of_each_step_times_the_input(model, values):
    steps = 3
    slope = np.zeros(len(EDGES))
    for k in range(steps):
        at = torch.tensor((k + 0.5) / steps * values[0], requires_grad=True)
        matrix = torch.zeros(28, 28, dtype=torch.float64)
        row, column = ATLAS.edges[EDGES].T
        matrix = matrix.index_put((torch.tensor(row), torch.tensor(column)), at)
        matrix = (matrix + matrix.T).float()[None, None]
        (found,) = torch.autograd.grad(model(matrix).sum(), at)
        slope += found.numpy() / steps
    assert of(model, values[:1], steps=steps)[0] == pytest.approx(slope * values[0], abs=1e-5)
    assert np.abs(slope * values[0]).max() > 1e-2


def test_a_childs_row_does_not_depend_on_the_others(model, values):
    assert np.array_equal(of(model, values)[2:3], of(model, values[2:3]))


def test_an_edge_that_does_not_differ_from_the_baseline_contributes_nothing(model, values):
    values = values.copy()
    values[:, 7] = 0.0
    assert not of(model, values)[:, 7].any()


def test_no_row_exceeds_the_bound():
    rng = np.random.default_rng(2)
    for size in (1e-3, 1.0, 1e3):
        rows = attribution_rows(size * rng.normal(size=(50, 30)))
        kind = attribution_release(30)
        assert rows.shape == (50, kind.dimension)
        assert (np.linalg.norm(rows, axis=1) <= kind.l2_bound * (1 + 1e-15)).all()
