"""Public pre-training: the severity model learns on children who do not exist.

Every lesson is a consortium with a severity network of its own, selected from
noisy sums and weighted as a study does it; on the human brain, its anatomy and
its public template are its own as well. The model sees the children whom the
selection did not, and learns to read severity from whichever edges the weights
name.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from esn_core.connectome.atlas import load_atlas
from esn_core.learning.severity_model import Connectomes, SeverityModel, predict
from esn_core.statistics.recalibration import PREDICTION_CLIP
from esn_core.system.files import write_whole
from esn_server.simulation.lessons import Lesson, draw_lesson

_VALIDATION_SHARE = 0.1
_WORLDS_A_STEP = 2
_CHILDREN_A_WORLD = 32
_ERROR_SHARE = 0.1
_CLIPPED_SHARE, _SCALING_LESSONS = 0.01, 200


def pretrain(
    out: Path,
    *,
    name: str,
    atlases: Sequence[str],
    seed: int,
    worlds: int,
    steps: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, object]:
    """Train the `compact` model on simulated consortia and write its weights and card.

    Parameters
    ----------
    out : Path
        Directory for ``NAME.safetensors`` and ``NAME.json``.
    name : str
    atlases : sequence of str
        In turn, one for each lesson.
    seed : int
        Of the worlds, the first weights and the order of the lessons.
    worlds : int
    steps : int
    progress : callable

    Returns
    -------
    dict
        The card: how the weights were made, and for each atlas the correlation
        reached on worlds that training never saw, beside that of the weighted sum.

    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # more threads add in another order: other weights from the same seed
    loaded = [load_atlas(atlas) for atlas in atlases]
    lessons = []
    for i in range(worlds):
        lessons.append(draw_lesson(loaded[i % len(loaded)], rng))
        progress("worlds", i + 1, worlds)
    kept_back = max(int(worlds * _VALIDATION_SHARE), len(loaded))
    validation, training = lessons[:kept_back], lessons[kept_back:]
    model = SeverityModel()
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=4e-3, total_steps=steps)
    by_atlas = [[x for x in training if x.atlas is atlas] for atlas in loaded]
    model.train()
    for step in range(steps):
        pool = by_atlas[step % len(loaded)]
        x, target = _batch([pool[i] for i in rng.integers(0, len(pool), _WORLDS_A_STEP)], rng)
        loss = _loss(model(x), target)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        progress("steps", step + 1, steps)
    _scale(model, training[:_SCALING_LESSONS])
    body = save({k: v.contiguous() for k, v in model.state_dict().items()})
    named = " ".join(f"--atlas {atlas}" for atlas in atlases)
    card: dict[str, object] = {
        "name": name,
        "command": f"esn-server pretrain OUT --name {name} {named} --seed {seed} --worlds {worlds} "
        f"--steps {steps}",
        "software": {p: version(p) for p in ("esn-federated", "torch", "numpy")},
        "data": "simulated children only (esn_core.simulation)",
        "validation_worlds": kept_back,
        "validation": {
            atlas.name: _validated(model, [x for x in validation if x.atlas is atlas]) for atlas in loaded
        },
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    write_whole(out / f"{name}.safetensors", body)
    write_whole(out / f"{name}.json", (json.dumps(card, indent=2) + "\n").encode())
    return card


def _batch(lessons: Sequence[Lesson], rng: np.random.Generator) -> tuple[Connectomes, Tensor]:
    """Draw children of lessons of one atlas."""
    inputs, targets = [], []
    for lesson in lessons:
        picked = rng.integers(0, len(lesson.severity), _CHILDREN_A_WORLD)
        inputs.append(lesson.inputs(picked))
        targets.append(lesson.severity[picked])
    return torch.cat(inputs), torch.from_numpy(np.concatenate(targets)).float()


def _loss(said: Tensor, target: Tensor) -> Tensor:
    """Return what is missing to a correlation of 1 within each world, and a tenth of the squared error.

    A study calibrates intercept and slope itself; what it needs is the order of its own children. With the
    whole of the squared error a model learns how far the worlds' networks can be trusted, at the cost of
    that order (decision 0104).
    """
    worlds = torch.stack([said, target], dim=1).view(-1, _CHILDREN_A_WORLD, 2)
    r = [torch.corrcoef(world.T)[0, 1] for world in worlds]
    return _ERROR_SHARE * functional.mse_loss(said, target) + 1 - torch.stack(r).mean()


def _scale(model: SeverityModel, lessons: Sequence[Lesson]) -> None:
    """Scale all predictions so that one of a hundred children lies beyond the clip of a raw prediction.

    A correlation has no scale, and what the clip leaves of a small one is lost in the calibration's noise.
    """
    said = [predict(model, lesson.inputs(np.arange(len(lesson.gase)))) for lesson in lessons]
    factor = PREDICTION_CLIP / float(np.quantile(np.abs(np.concatenate(said)), 1 - _CLIPPED_SHARE))
    with torch.no_grad():
        for p in (*model.line.parameters(), *model.relation.last.parameters()):
            p.mul_(factor)


def _validated(model: SeverityModel, lessons: Sequence[Lesson]) -> dict[str, float]:
    """Return the mean correlation with GASE, of the model and of the weighted sum."""
    reached, linear = [], []
    for lesson in lessons:
        said = predict(model, lesson.inputs(np.arange(len(lesson.gase))))
        reached.append(float(np.corrcoef(said, lesson.gase)[0, 1]))
        linear.append(float(np.corrcoef(lesson.values.sum(axis=1), lesson.gase)[0, 1]))
    return {
        "r_mean": round(float(np.mean(reached)), 4),
        "r_of_weighted_sum": round(float(np.mean(linear)), 4),
    }
