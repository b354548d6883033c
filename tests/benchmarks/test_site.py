"""Seconds of a site's own work in one training round: gradients of 40 children, and the gate."""

import numpy as np
import pytest
import torch

from esn_client.answers.training import gradients
from esn_client.gate.noise import discrete_gaussian
from esn_core.learning.releases import gradient_release
from esn_core.learning.weights import parameter_count, pretrained
from esn_core.privacy.fixed_point import sensitivity_units

CHILDREN = 40


@pytest.mark.parametrize("regions", [28, 83])
def test_gradients_of_forty_children(benchmark, regions):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = pretrained("compact-3")
    connectomes = torch.from_numpy(rng.normal(size=(CHILDREN, 1, regions, regions)).astype(np.float32))
    gase = rng.integers(1, 8, CHILDREN).astype(float)
    rows, losses = benchmark(lambda: gradients(model, connectomes, gase))
    assert rows.shape == (CHILDREN, parameter_count(model))
    assert np.isfinite(losses).all()


def test_noise_of_one_weight_update(benchmark):
    kind = gradient_release(parameter_count(pretrained("compact-3")), max_gradient_norm=1.0)
    drawn = benchmark(lambda: discrete_gaussian(kind.dimension, 4.0 * sensitivity_units(kind)))
    assert drawn.shape == (kind.dimension,)
