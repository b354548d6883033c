"""The noise: exactly the discrete Gaussian, from the system's entropy, and from nowhere else."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import esn_client
from esn_client.gate.noise import discrete_gaussian
from esn_client.site.settings import SiteSettings
from esn_client.worker import process
from esn_core.protocol.protocol import Protocol

CLIENT = Path(esn_client.__file__).parent
RANDOM = {"random", "numpy.random", "torch.random"}


def probabilities(sd, reach):
    """Of the discrete Gaussian on -reach to reach, by its definition."""
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x**2) / (2 * sd**2))
    return x, weight / weight.sum()


@pytest.mark.parametrize("sd", [0.7, 3.0])
def test_small_noise_follows_the_definition_integer_by_integer(sd):
    """Where single integers can be counted: 20,000 draws against the exact probabilities."""
    drawn = discrete_gaussian(20_000, sd)
    x, p = probabilities(sd, int(12 * sd) + 1)
    expected = p * len(drawn)
    seen = np.array([(drawn == value).sum() for value in x])
    common = expected >= 5
    found = np.append(seen[common], seen[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    # A false alarm once in 10^5 runs.
    assert stats.chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 1e-5
    assert abs(drawn.mean()) < 5 * sd / np.sqrt(len(drawn))
    variance = (p * x**2).sum()
    kurtosis = (p * x**4).sum() / variance**2
    assert drawn.var() == pytest.approx(variance, rel=5 * np.sqrt((kurtosis - 1) / len(drawn)))


def test_large_noise_has_a_gaussians_tails():
    """On the grid that is used: how many lie beyond 1, 2 and 3 standard deviations."""
    sd = 2.0**38
    drawn = discrete_gaussian(20_000, sd) / sd
    for beyond in (1, 2, 3):
        share = 2 * stats.norm.sf(beyond)
        error = 5 * np.sqrt(share * (1 - share) / len(drawn))
        assert (np.abs(drawn) > beyond).mean() == pytest.approx(share, abs=error)
    assert stats.kstest(drawn, "norm").pvalue > 1e-5


def test_a_forked_process_draws_other_noise():
    """A generator with a state would be copied by the fork, and give both the same."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, discrete_gaussian(8, 2.0**38).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        theirs = np.frombuffer(file.read(), dtype=np.int64)
    assert len(theirs) == 8
    assert not (theirs == discrete_gaussian(8, 2.0**38)).any()


def test_a_seed_of_numpy_changes_nothing():
    np.random.seed(0)  # noqa: NPY002
    first = discrete_gaussian(8, 2.0**38)
    np.random.seed(0)  # noqa: NPY002
    assert not (discrete_gaussian(8, 2.0**38) == first).any()


def settings_of(model, path=""):
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        inner = field.annotation
        if hasattr(inner, "model_fields"):
            yield from settings_of(inner, f"{path}{name}.")


@pytest.mark.parametrize("model", [SiteSettings, Protocol])
def test_no_setting_of_a_site_or_a_protocol_reaches_the_noise(model):
    names = list(settings_of(model))
    assert len(names) > 10
    # The imaging recipe has a seed for tractography; nothing else has one.
    assert [name for name in names if "seed" in name.split(".")[-1] and not name.startswith("imaging.")] == []


def test_a_hospitals_gate_is_given_the_real_noise_and_nothing_else():
    """In the source: the gate is made in one place, with `discrete_gaussian` by name."""
    gates = [
        (path.name, {k.arg: k.value for k in node.keywords})
        for path in CLIENT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Gate"
    ]
    noises = {name: ast.unparse(words["noise"]) for name, words in gates}
    assert noises.pop("process.py") == "discrete_gaussian"
    assert process.discrete_gaussian is discrete_gaussian
    # The audit at a site runs the same gate over a ledger of its own; its noise is the same.
    assert set(noises.values()) <= {"discrete_gaussian"}


def test_nothing_on_the_way_out_draws_from_another_generator():
    sources = [*sorted((CLIENT / "gate").glob("*.py")), *sorted((CLIENT / "worker").glob("*.py"))]
    sources += [CLIENT / "answers" / "hospital.py", CLIENT / "app.py", CLIENT / "link" / "guard.py"]
    for path in sources:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not RANDOM & {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in RANDOM
            elif isinstance(node, ast.Attribute):
                assert node.attr not in {"random", "default_rng"}, path.name
