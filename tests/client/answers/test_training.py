"""Each child's gradient equals Opacus's, whoever else is there."""

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch.nn import functional

from esn_client.answers.training import device_for, gradients
from esn_core.errors import ConfigError
from esn_core.gase import standardise_severity
from esn_core.learning.severity_model import predict
from esn_core.learning.weights import pretrained, to_vector


@pytest.fixture
def model():
    return pretrained("compact-3")


@pytest.fixture(scope="module")
def children():
    """35 children: more than one batch would hold."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(35, 1, 28, 28)).astype(np.float32))
    return x + x.transpose(2, 3), rng.integers(1, 8, 35).astype(float)


def by_opacus(model, x, gase):
    """Gradient and loss of each child by Opacus's hooks, the whole batch at once."""
    private = GradSampleModule(model, loss_reduction="sum")
    target = torch.from_numpy(standardise_severity(gase)).float()
    # Opacus hooks the first layer's backward pass: torch runs it as documented only with this.
    losses = functional.mse_loss(private(x.clone().requires_grad_()), target, reduction="none")
    losses.sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in private.parameters()], dim=1).double().numpy()
    private.zero_grad()
    private.to_standard_module()
    return rows, losses.detach().double().numpy()


def test_gradients_equal_those_of_opacus(model, children):
    x, gase = children
    rows, losses = gradients(model, x, gase)
    expected, expected_losses = by_opacus(model, x, gase)
    # float32: Opacus computes the same products in another order.
    assert np.linalg.norm(rows - expected) <= 2e-6 * np.linalg.norm(expected)
    # An error, the root of a loss, has the last bits of a float32 prediction of up to 4: 2.4e-7 each.
    assert np.sqrt(losses) == pytest.approx(np.sqrt(expected_losses), rel=0, abs=7.5e-7)


def test_a_childs_gradient_and_prediction_do_not_depend_on_the_others_by_a_single_bit(model, children):
    x, gase = children
    rows, losses = gradients(model, x, gase)
    fewer, fewer_losses = gradients(model, x[3:9], gase[3:9])
    assert np.array_equal(fewer, rows[3:9])
    assert np.array_equal(fewer_losses, losses[3:9])
    assert np.array_equal(predict(model, x[3:9]), predict(model, x)[3:9])


def test_the_model_is_not_changed(model, children):
    x, gase = children
    before = to_vector(model)
    keys = set(model.state_dict())
    gradients(model, x[:3], gase[:3])
    assert np.array_equal(to_vector(model), before)
    assert set(model.state_dict()) == keys
    assert all(p.grad is None for p in model.parameters())
    gradients(model, x[:3], gase[:3])  # and may be used again


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_kept(model, children, training):
    x, gase = children
    model.train(training)
    gradients(model, x[:2], gase[:2])
    assert model.training == training


def test_no_children_have_no_gradients(model):
    rows, losses = gradients(model, torch.zeros(0, 1, 28, 28), np.zeros(0))
    assert (rows.shape, losses.shape) == ((0, len(to_vector(model))), (0,))
    assert predict(model, torch.zeros(0, 1, 28, 28)).shape == (0,)


def test_batch_normalisation_is_refused(model, children):
    x, gase = children
    model.objects.layers[1] = torch.nn.BatchNorm2d(8)
    with pytest.raises(ConfigError, match="cannot be trained privately"):
        gradients(model, x[:3], gase[:3])


def test_cuda_is_refused_where_there_is_none():
    if torch.cuda.is_available():
        assert device_for("cuda").type == device_for("auto").type == "cuda"
    else:
        with pytest.raises(
            ConfigError, match=r"torch no CUDA device; torch 2\.\S+ is (a build for|built for)"
        ):
            device_for("cuda")
        assert device_for("auto").type == "cpu"
    assert device_for("cpu").type == "cpu"


class FoldsPairs(torch.nn.Module):
    """A network that reshapes regions into the batch dimension, as a naive relation network would."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(28, 1)

    def forward(self, x):
        n = len(x)
        return self.layer(x.reshape(n * 28, 28)).reshape(n, 28).mean(dim=1)


def test_a_layer_that_folds_pairs_into_the_batch_gives_each_child_its_own_gradient():
    """Opacus's hooks would give such a child one sample for each region."""
    rng = np.random.default_rng(0)
    connectomes = torch.from_numpy(rng.normal(size=(2, 1, 28, 28)).astype(np.float32))
    model, y = FoldsPairs(), standardise_severity(np.array([2.0, 5.0]))
    rows, losses = gradients(model, connectomes, np.array([2.0, 5.0]))
    mean = connectomes.mean(dim=2)[:, 0].numpy()
    error = mean @ model.layer.weight.detach().numpy()[0] + model.layer.bias.item() - y
    assert losses == pytest.approx(error**2, rel=1e-5)
    # d(error^2) = 2 error (mean over regions, 1).
    assert rows == pytest.approx(2 * error[:, None] * np.column_stack([mean, np.ones(2)]), rel=1e-4, abs=1e-6)
