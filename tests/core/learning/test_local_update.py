"""Local steps of one site: FedAvg and FedProx by their definitions."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from esn_core.errors import DataError
from esn_core.gase import standardise_severity
from esn_core.learning.local_update import take_local_steps
from esn_core.learning.severity_model import SeverityModel
from esn_core.learning.weights import from_vector, to_vector


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SeverityModel()


@pytest.fixture(scope="module")
def children():
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(8, 1, 20, 20)).astype(np.float32))
    return x + x.transpose(2, 3), rng.integers(1, 8, 8).astype(float)


def gradient(weights, children):
    """Of the mean squared error, by autograd."""
    x, gase = children
    model = from_vector(weights)
    loss = functional.mse_loss(model(x), torch.from_numpy(standardise_severity(gase)).float())
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts]).double().numpy()


def test_one_step_is_the_gradient(model, children):
    moved = take_local_steps(model, *children, steps=1, learning_rate=0.1)
    expected = -0.1 * gradient(to_vector(model), children)
    # float32: weights of size .1 are rounded to 1e-8.
    assert moved == pytest.approx(expected, abs=1e-7)
    assert np.abs(expected).max() > 1e-3


def test_two_sites_of_one_step_make_the_pooled_step(model, children):
    x, gase = children
    sites = (slice(3), slice(3, 8))
    parts = [take_local_steps(model, x[s], gase[s], steps=1, learning_rate=0.1) for s in sites]
    pooled = take_local_steps(model, x, gase, steps=1, learning_rate=0.1)
    assert (3 * parts[0] + 5 * parts[1]) / 8 == pytest.approx(pooled, abs=1e-7)


@pytest.mark.parametrize("proximal", [0.0, 2.0])
def test_several_steps_follow_the_definition(model, children, proximal):
    start = to_vector(model)
    weights = start
    for _ in range(4):
        weights = weights - 0.1 * (gradient(weights, children) + proximal * (weights - start))
    moved = take_local_steps(model, *children, steps=4, learning_rate=0.1, proximal=proximal)
    # Rounding of 1e-8 a step, through four steps of a network.
    assert moved == pytest.approx(weights - start, abs=1e-6)


def test_the_proximal_term_keeps_a_site_near(model, children):
    free, held = (
        take_local_steps(model, *children, steps=10, learning_rate=0.1, proximal=mu) for mu in (0.0, 5.0)
    )
    assert np.linalg.norm(held) < 0.7 * np.linalg.norm(free)


def test_the_model_from_the_centre_is_not_changed(model, children):
    before = to_vector(model)
    model.eval()
    take_local_steps(model, *children, steps=2, learning_rate=0.1)
    assert np.array_equal(to_vector(model), before)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "not 0 and 0.0"),
        ({"steps": 1, "proximal": -1.0}, "not 1 and -1.0"),
        ({"steps": 1, "proximal": float("nan")}, "not 1 and nan"),
    ],
)
def test_impossible_updates_are_refused(model, children, settings, words):
    with pytest.raises(DataError, match=words):
        take_local_steps(model, *children, learning_rate=0.1, **settings)


def test_steps_that_diverge_are_refused(model, children):
    with pytest.raises(DataError, match="100 local steps diverged at learning rate 1e\\+06"):
        take_local_steps(model, *children, steps=100, learning_rate=1e6)


def test_a_site_without_children_has_no_update(model):
    with pytest.raises(DataError, match="one child or more"):
        take_local_steps(model, torch.zeros(0, 1, 20, 20), np.zeros(0), steps=1, learning_rate=0.1)
