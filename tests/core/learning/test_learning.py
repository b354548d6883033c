"""The network, its weights as a vector, and the centre's optimiser."""

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from safetensors.torch import save

from esn_core.errors import ConfigError, DataError, ProtocolError
from esn_core.learning.dilated_cnn import DilatedCnn
from esn_core.learning.optimiser import CentreOptimiser
from esn_core.learning.relation import RelationNetwork
from esn_core.learning.severity_model import SeverityModel, as_matrices, predict
from esn_core.learning.weights import from_vector, parameter_count, pretrained, to_vector
from esn_core.severity_network.selection import masked_input


def test_a_vector_makes_the_model_that_it_was_made_of():
    torch.manual_seed(0)
    model = SeverityModel()
    again = from_vector(to_vector(model))
    assert np.array_equal(to_vector(again), to_vector(model))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert parameter_count(model) == len(to_vector(model))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v[:-1], "numbers, not of shape"),
        (lambda v: v[:, None], "numbers, not of shape"),
        (lambda v: np.where(np.arange(len(v)) == 5, np.nan, v), "must be finite"),
        (lambda v: np.where(np.arange(len(v)) == 5, 1e39, v), "not too large for float32"),
    ],
)
def test_weights_that_are_none_are_refused(change, words):
    with pytest.raises(ProtocolError, match=words):
        from_vector(change(to_vector(SeverityModel())))


def test_read_only_weights_can_be_used():
    vector = to_vector(SeverityModel())
    vector.flags.writeable = False
    assert np.array_equal(to_vector(from_vector(vector)), vector)
    CentreOptimiser(vector, learning_rate=0.1, strategy="fedadam").step(np.ones(len(vector)))


def test_the_shipped_weights_are_the_ones_on_their_card():
    name = "compact-3"
    shipped = files("esn_core.learning") / "pretrained"
    content = (shipped / f"{name}.safetensors").read_bytes()
    card = json.loads((shipped / f"{name}.json").read_text())
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert np.isfinite(to_vector(pretrained(name))).all()


def test_weights_that_do_not_ship_are_refused():
    with pytest.raises(ConfigError, match="ships no weights named 'large-9'"):
        pretrained("large-9")


def test_own_weights_are_those_of_the_model_or_refused():
    state = pretrained("compact-3").state_dict()
    assert torch.equal(next(pretrained("ours", save(state)).parameters()), next(iter(state.values())))
    first = next(iter(state))
    for other, words in (
        ({**state, first: state[first][:-1].contiguous()}, "are another model's: .* differs"),
        ({**state, "more": torch.zeros(3)}, "are another model's: 'more' differs"),
        ({**state, first: state[first] * torch.nan}, "must be finite numbers"),
        ({**state, first: state[first].double()}, "must be finite numbers of 32 bits"),
    ):
        with pytest.raises(ConfigError, match=words):
            pretrained("ours", save(other))
    with pytest.raises(ConfigError, match="are no safetensors"):
        pretrained("ours", b"PK" + save(state))


@pytest.mark.parametrize("regions", [20, 28, 83])
def test_the_model_takes_any_number_of_regions(regions):
    assert SeverityModel()(torch.zeros(2, 1, regions, regions)).shape == (2,)


def test_the_model_has_as_many_parameters_as_its_layers_by_formula():
    filters, features, hidden, grid = 8, 18, 32, 36
    convolutions = 9 * filters + filters + 9 * filters**2 + filters + 18 * filters**2 + 2 * filters
    group_norms = 2 * (filters + filters + 2 * filters)
    pairs = 2 * features * hidden + hidden + hidden**2 + hidden
    readout = (hidden + grid) * hidden + hidden + hidden**2 + hidden + hidden + 1
    line = 2
    assert parameter_count(SeverityModel()) == convolutions + group_norms + pairs + readout + line == 7435


def test_an_untrained_model_is_a_line_on_the_weighted_sum():
    edges = np.array([[0.5, 30.0, -4.0], [9.0, 1.0, 80.0]])
    matrices = as_matrices(edges, np.arange(3), ends=np.array([[0, 1], [0, 9], [4, 11]]), regions=12)
    # Twice the sum of the edges over 100, less 1; float32.
    assert predict(SeverityModel(), matrices) == pytest.approx(edges.sum(axis=1) / 50 - 1, rel=1e-6)


@pytest.mark.parametrize("regions", [28, 83, 116])
def test_the_convolutions_see_every_edge(regions):
    cnn = DilatedCnn(channels=8, grid=6)
    # Without the layers through which every cell acts on every other, and with positive slopes only.
    see = [layer for layer in cnn.layers if isinstance(layer, torch.nn.Conv2d)]
    for layer in see:
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.ones(1, 1, regions, regions, requires_grad=True)
    (seen,) = torch.autograd.grad(torch.nn.Sequential(*see)(x).sum(), x)
    assert (seen > 0).all()


def test_the_relation_of_a_pair_is_the_split_of_one_linear_layer():
    """W_a o_i + W_b o_j equals [W_a W_b] on the concatenated pair, averaged over ordered pairs."""
    torch.manual_seed(0)
    network = RelationNetwork(features=3, context=2, hidden=4).double()
    torch.nn.init.normal_(network.last.weight)
    objects, context = torch.randn(1, 5, 3).double(), torch.randn(1, 2).double()
    weight = torch.cat([network.first.weight, network.second.weight], dim=1)
    act = torch.nn.functional.leaky_relu
    pairs = [torch.cat([a, b]) for a in objects[0] for b in objects[0]]
    hidden = [act(network.pair(act(weight @ pair + network.first.bias, 0.2)), 0.2) for pair in pairs]
    expected = network.last(network.readout(torch.cat([torch.stack(hidden).mean(dim=0), context[0]])))
    assert network(objects, context)[0].item() == pytest.approx(expected.item(), rel=1e-12)


def test_matrices_are_symmetric_and_hold_each_edge_twice():
    ends = np.array([[0, 1], [0, 2], [1, 2]])
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = as_matrices(values, np.array([0, 2]), ends=ends, regions=3).numpy()
    assert np.array_equal(found[0, 0], [[0, 1, 0], [1, 0, 2], [0, 2, 0]])
    assert np.array_equal(found[1, 0], [[0, 3, 0], [3, 0, 4], [0, 4, 0]])


def test_the_optimiser_is_adam_by_its_definition():
    start = np.array([1.0, -2.0])
    optimiser = CentreOptimiser(start, learning_rate=0.1, strategy="fedadam")
    m, v, w = np.zeros(2), np.zeros(2), start.copy()
    for t, gradient in enumerate([np.array([0.5, -1.0]), np.array([0.2, 3.0])], start=1):
        optimiser.step(gradient)
        # Kingma & Ba 2015, algorithm 1, defaults.
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert optimiser.weights == pytest.approx(w, rel=1e-12)
    assert np.array_equal(start, [1.0, -2.0])


def test_a_masked_connection_never_changes_the_input():
    scores = np.array([[1.0, 2.0, 9.0]])
    weight = np.array([0.5, -1.0, 0.0])
    assert masked_input(scores, weight) == pytest.approx(np.array([[100 / 3, -400 / 3, 0]]))
    assert np.array_equal(masked_input(scores, weight), masked_input(np.array([[1.0, 2.0, -3.0]]), weight))
    assert masked_input(scores, 7 * weight) == pytest.approx(masked_input(scores, weight), rel=1e-15)


@pytest.mark.parametrize(
    ("size", "words"), [(0.0, "are zero"), (1e-320, "cannot be scaled"), (1e308, "cannot")]
)
def test_weights_that_cannot_be_scaled_are_refused(size, words):
    with pytest.raises(DataError, match=words):
        masked_input(np.ones((1, 3)), np.full(3, size))
