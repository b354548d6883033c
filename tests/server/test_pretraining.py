"""Public pre-training: what a card says can be done again."""

import hashlib

from esn_core.learning.weights import pretrained_card
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


def test_the_shipped_weights_for_larger_atlases_read_what_training_never_saw():
    card = pretrained_card("compact-3")
    assert "--atlas desikan-killiany-83" in card["command"]
    (said,) = card["validation"].values()
    assert said["r_mean"] > said["r_of_weighted_sum"] - 0.05
