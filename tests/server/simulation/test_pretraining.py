"""Public pre-training: what a card says can be done again."""

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
import torch

from esn_core.connectome.atlas import load_atlas
from esn_core.learning.severity_model import SeverityModel, predict
from esn_core.statistics.recalibration import PREDICTION_CLIP
from esn_server.simulation import pretraining
from esn_server.simulation.lessons import draw_lesson
from esn_server.simulation.pretraining import pretrain


def small(directory, *, seed=3, worlds=20, steps=20, atlases=("phantom-28",)):
    return pretrain(
        directory,
        name="small",
        atlases=atlases,
        seed=seed,
        worlds=worlds,
        steps=steps,
        progress=lambda *_: None,
    )


def test_equal_seeds_give_equal_weights(tmp_path):
    few = {"worlds": 5, "steps": 5}
    first, second = small(tmp_path / "a", **few), small(tmp_path / "b", **few)
    assert first == second
    body = (tmp_path / "a" / "small.safetensors").read_bytes()
    assert body == (tmp_path / "b" / "small.safetensors").read_bytes()
    assert first["sha256"] == hashlib.sha256(body).hexdigest()
    assert small(tmp_path / "c", seed=4, **few)["sha256"] != first["sha256"]


def test_steps_teach(tmp_path, monkeypatch):
    def upside_down():
        model = SeverityModel()
        torch.nn.init.constant_(model.line.weight, -0.1)
        return model

    monkeypatch.setattr(pretraining, "SeverityModel", upside_down)
    before, after = small(tmp_path / "a", steps=10), small(tmp_path / "b", steps=100)
    assert before["validation"]["phantom-28"]["r_mean"] < 0.1
    assert after["validation"]["phantom-28"]["r_mean"] > 0.4


def test_a_loss_is_a_tenth_of_the_squared_error_and_what_is_missing_to_a_correlation_of_one():
    said, target = np.random.default_rng(0).normal(size=(2, 2 * 32)).astype(np.float32)
    r = [np.corrcoef(said[part], target[part])[0, 1] for part in (slice(32), slice(32, 64))]
    expected = 0.1 * np.mean((said - target) ** 2) + 1 - np.mean(r)
    found = pretraining._loss(torch.from_numpy(said), torch.from_numpy(target))
    assert found.item() == pytest.approx(expected, rel=1e-5)  # float32


def test_one_prediction_of_a_hundred_lies_beyond_the_clip_and_their_order_stays():
    rng = np.random.default_rng(5)
    lessons = [draw_lesson(load_atlas("phantom-28"), rng) for _ in range(3)]
    model = SeverityModel()
    torch.nn.init.normal_(model.relation.last.weight)

    def said():
        return np.concatenate([predict(model, x.inputs(np.arange(len(x.gase)))) for x in lessons])

    before = said()
    pretraining._scale(model, lessons)
    assert np.quantile(np.abs(said()), 0.99) == pytest.approx(PREDICTION_CLIP, rel=1e-5)  # float32
    assert said() == pytest.approx(before * (said()[0] / before[0]), rel=1e-4, abs=1e-4)


def test_lessons_take_turns_between_atlases(tmp_path):
    card = small(tmp_path, worlds=6, steps=4, atlases=("phantom-28", "desikan-killiany-83"))
    assert set(card["validation"]) == {"phantom-28", "desikan-killiany-83"}
    assert card["validation_worlds"] == 2


def test_the_shipped_weights_read_more_from_what_training_never_saw_than_the_weighted_sum_does():
    card = json.loads((files("esn_core.learning") / "pretrained" / "compact-3.json").read_text())
    assert set(card["validation"]) == {"desikan-killiany-83", "phantom-28"}
    for atlas, said in card["validation"].items():
        assert f"--atlas {atlas}" in card["command"]
        assert said["r_mean"] > said["r_of_weighted_sum"]
