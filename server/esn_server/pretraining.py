"""Public pre-training: the severity model learns on children who do not exist.

Every world has a severity network of its own. The model sees the edges that a
(noisy) selection in that world would name, weighted as a study weights them,
and learns to read severity from whichever edges the weights name.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch.nn import functional

from esn_core.atlas import Atlas, load_atlas
from esn_core.connectome import Template, edge_scores, strengths_of_counts
from esn_core.files import write_whole
from esn_core.harmonise import control_offset
from esn_core.learning.severity_model import SeverityModel, as_matrices, predict
from esn_core.releases import association_rows, standardise_severity
from esn_core.severity_network import masked_input, select
from esn_core.simulation.cohort import Subject, World, anatomy, subject_counts
from esn_server.study import module_pairs

_SITES = 4
_CHILDREN = 24
_CONTROLS = 8
_REFERENCE_CONTROLS = 200
_VALIDATION_SHARE = 0.1
_WORLDS_A_STEP = 3
_CHILDREN_A_WORLD = 16


@dataclass(frozen=True)
class _Lesson:
    """Children of one world, as the model sees them: inputs and standardised severity."""

    values: NDArray[np.float64]
    severity: NDArray[np.float64]


def pretrain(
    out: Path, *, name: str, seed: int, worlds: int, steps: int, progress: Callable[[str, int, int], None]
) -> dict[str, object]:
    """Train the `compact` model on simulated consortia and write its weights and card.

    Parameters
    ----------
    out : Path
        Directory for ``NAME.safetensors`` and ``NAME.json``.
    name : str
    seed : int
        Of the worlds, the first weights and the order of the lessons.
    worlds : int
    steps : int
    progress : callable

    Returns
    -------
    dict
        The card: how the weights were made, and the correlation reached on
        worlds that training never saw.

    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # more threads add in another order: other weights from the same seed
    atlas = load_atlas("phantom-28")
    template = _public_template(atlas, rng)
    candidates = np.flatnonzero(template.present)
    lessons = []
    for i in range(worlds):
        lessons.append(_lesson(atlas, template, candidates, rng))
        progress("worlds", i + 1, worlds)
    kept_back = max(int(worlds * _VALIDATION_SHARE), 1)
    validation, training = lessons[:kept_back], lessons[kept_back:]
    model = SeverityModel()
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=4e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        drawn = [training[i] for i in rng.integers(0, len(training), _WORLDS_A_STEP)]
        picks = [rng.integers(0, len(lesson.severity), _CHILDREN_A_WORLD) for lesson in drawn]
        values = np.concatenate([lesson.values[p] for lesson, p in zip(drawn, picks, strict=True)])
        target = np.concatenate([lesson.severity[p] for lesson, p in zip(drawn, picks, strict=True)])
        x = as_matrices(values, candidates, ends=atlas.edges, regions=len(atlas.regions))
        loss = functional.mse_loss(model(x), torch.from_numpy(target).float())
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        progress("steps", step + 1, steps)
    reached = [_correlation(model, lesson, candidates, atlas) for lesson in validation]
    linear = [float(np.corrcoef(v.values.sum(axis=1), v.severity)[0, 1]) for v in validation]
    body = save({k: v.contiguous() for k, v in model.state_dict().items()})
    card: dict[str, object] = {
        "name": name,
        "command": f"esn-server pretrain OUT --name {name} --seed {seed} --worlds {worlds} --steps {steps}",
        "software": {p: version(p) for p in ("esn-federated", "torch", "numpy")},
        "atlas": atlas.name,
        "data": "simulated children only (esn_core.simulation)",
        "validation_worlds": kept_back,
        "validation_r_mean": round(float(np.mean(reached)), 4),
        "validation_r_of_weighted_sum": round(float(np.mean(linear)), 4),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    write_whole(out / f"{name}.safetensors", body)
    write_whole(out / f"{name}.json", (json.dumps(card, indent=2) + "\n").encode())
    return card


def _public_template(atlas: Atlas, rng: np.random.Generator) -> Template:
    """Build a template from the controls of a reference world, as the shipped one is from its phantoms."""
    _, present = anatomy(atlas)
    controls = World.draw(atlas, rng=rng).site(children=0, controls=_REFERENCE_CONTROLS, rng=rng)
    strengths = np.array([_strengths(subject, rng) for subject in controls])
    zero = np.zeros(len(present))
    spread = np.maximum(strengths.std(axis=0), 0.05)
    return Template(
        atlas=atlas.name,
        mean=strengths.mean(axis=0),
        sd=spread,
        age_slope=zero,
        sex_slope=zero,
        present=present,
        sha256="0" * 64,
    )


def _lesson(
    atlas: Atlas, template: Template, candidates: NDArray[np.int64], rng: np.random.Generator
) -> _Lesson:
    world = World.draw(
        atlas,
        rng=rng,
        severity_edges=int(rng.integers(10, 36)),
        effect_sd=rng.uniform(0.3, 0.9),
        clustered=rng.uniform(0.3, 0.9),
        nuisance_factors=int(rng.integers(3, 12)),
        nuisance_sd=rng.uniform(0.15, 0.4),
        template_shift_sd=rng.uniform(0.0, 0.3),
    )
    scores, gase = _consortium(world, template, candidates, rng)
    # One half names the edges, the other is what the model learns from.
    half = rng.permutation(len(gase))
    chosen, seen = half[: len(gase) // 2], half[len(gase) // 2 :]
    mean = float(standardise_severity(gase[chosen]).mean())
    total = association_rows(scores[chosen], gase[chosen], mean_severity=mean).sum(axis=0)
    noise = float(rng.choice([0.0, 5.0, 15.0]))
    network = select(
        total + rng.normal(0, noise, len(total)),
        edges=candidates,
        blocks=module_pairs(atlas)[candidates],
        children=float(len(chosen)),
        noise_sd=noise,
    )
    return _Lesson(masked_input(scores[seen], network.weight), standardise_severity(gase[seen]))


def _consortium(
    world: World, template: Template, candidates: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the children of several sites: (n, d) edge scores less each site's offset, and GASE."""
    scores, gase = [], []
    for _ in range(_SITES):
        subjects = world.site(children=_CHILDREN, controls=_CONTROLS, rng=rng)
        z = np.array([_scores(subject, template, rng) for subject in subjects])[:, candidates]
        is_control = np.array([subject.group == "control" for subject in subjects])
        scores.append(z[~is_control] - control_offset(z[is_control]))
        gase.append([subject.gase for subject in subjects if subject.gase is not None])
    return np.concatenate(scores), np.concatenate(gase).astype(np.float64)


def _scores(subject: Subject, template: Template, rng: np.random.Generator) -> NDArray[np.float64]:
    sex = float(subject.sex == "M")
    return edge_scores(_strengths(subject, rng), template, age_years=subject.age_years, sex=sex)


def _strengths(subject: Subject, rng: np.random.Generator) -> NDArray[np.float64]:
    return strengths_of_counts(subject_counts(subject.log_weights, rng=rng))


def _correlation(model: SeverityModel, lesson: _Lesson, candidates: NDArray[np.int64], atlas: Atlas) -> float:
    x = as_matrices(lesson.values, candidates, ends=atlas.edges, regions=len(atlas.regions))
    return float(np.corrcoef(predict(model, x), lesson.severity)[0, 1])
