"""The shadow audit, in small: it stays below the claim, and finds a study without its noise."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from esn_client.privacy_audit import rehearsal

WORLDS = 20


@pytest.fixture(scope="module")
def shadow():
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location("shadow_audit", Path(__file__).with_name("shadow_audit.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def without_noise(dimension, scale):
    return np.zeros(dimension, dtype=np.int64)


@pytest.mark.long
def test_an_attacker_with_every_release_is_right_without_noise_and_seldom_with_it(shadow, monkeypatch):
    honest = by_place(shadow.shadow_table(worlds=WORLDS, seed=0))
    monkeypatch.setattr(rehearsal, "discrete_gaussian", without_noise)
    broken = by_place(shadow.shadow_table(worlds=WORLDS, seed=0))
    for target in shadow.TARGETS:
        # Without noise the sums tell exactly who was in.
        assert broken[target, "every release"].area == 1.0
        row = honest[target, "every release"]
        if target == "a control":
            assert row.epsilon_claimed is None
        else:
            assert row.epsilon_proven < row.epsilon_claimed == pytest.approx(8.0)
    # In the mean of many studies .92; ten against ten scatter by .06.
    assert honest["most influential", "every release"].area > 0.6


def by_place(rows):
    return {(row.target, row.view): row for row in rows}


def test_what_half_of_the_studies_teach_finds_the_others(shadow):
    rng = np.random.default_rng(0)
    present = np.arange(400) % 2 == 0
    features = rng.normal(size=(400, 3)) @ np.diag([1.0, 5.0, 0.1])
    apart = features + 2.0 * present[:, None] * np.array([1.0, 0.0, 0.0])
    found, chance = (shadow.learned_log_ratio(f, present) for f in (apart, features))
    # Two normals two standard deviations apart: area 0.921; standard error below 0.015.
    assert shadow.area(found, present) == pytest.approx(0.921, abs=0.05)
    assert shadow.area(chance, present) == pytest.approx(0.5, abs=0.12)
