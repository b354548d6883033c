"""Public pre-training: what a card says can be done again."""

import hashlib

import numpy as np

from esn_core.learning.weights import pretrained, pretrained_card, to_vector
from esn_server.pretraining import pretrain


def small(directory, *, seed=3, steps=20, atlases=("phantom-28",)):
    return pretrain(
        directory,
        name="small",
        atlases=atlases,
        seed=seed,
        worlds=20,
        steps=steps,
        progress=lambda *_: None,
    )


def test_equal_seeds_give_equal_weights(tmp_path):
    first, second = small(tmp_path / "a"), small(tmp_path / "b")
    assert first == second
    body = (tmp_path / "a" / "small.safetensors").read_bytes()
    assert body == (tmp_path / "b" / "small.safetensors").read_bytes()
    assert first["sha256"] == hashlib.sha256(body).hexdigest()
    assert small(tmp_path / "c", seed=4)["sha256"] != first["sha256"]


def test_steps_teach(tmp_path):
    before, after = small(tmp_path / "a", steps=10), small(tmp_path / "b", steps=150)
    assert after["validation"]["phantom-28"]["r_mean"] > before["validation"]["phantom-28"]["r_mean"]


def test_lessons_take_turns_between_atlases(tmp_path):
    card = small(tmp_path, steps=10, atlases=("phantom-28", "desikan-killiany-83"))
    assert set(card["validation"]) == {"phantom-28", "desikan-killiany-83"}
    assert card["validation_worlds"] == 2


def test_the_shipped_card_belongs_to_the_shipped_weights():
    from importlib.resources import files

    body = (files("esn_core.learning") / "pretrained" / "compact-1.safetensors").read_bytes()
    card = pretrained_card("compact-1")
    assert card["sha256"] == hashlib.sha256(body).hexdigest()
    assert card["validation_r_mean"] > 0.6
    assert np.isfinite(to_vector(pretrained("compact-1"))).all()
