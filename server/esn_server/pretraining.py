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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from esn_core.atlas import Atlas, load_atlas
from esn_core.candidates import Candidates, Source, candidates_of
from esn_core.connectome import Template
from esn_core.files import write_whole
from esn_core.fixed_point import noise_sd
from esn_core.learning.severity_model import Connectomes, SeverityModel, as_matrices, predict
from esn_core.privacy import mu_for, noise_multiplier_for
from esn_core.releases import GASE_UNIT, association, association_rows, standardise_severity
from esn_core.severity_network import masked_input
from esn_core.simulation.anatomy import Anatomy, human_anatomy, phantom_anatomy
from esn_core.simulation.cohort import SEVERITY_SD, ScannerRules, WorldRules
from esn_core.simulation.consortium import Consortium, ConsortiumRules, draw_consortium, public_template

_REFERENCE_CONTROLS = 60
_VALIDATION_SHARE = 0.1
_WORLDS_A_STEP = 2
_CHILDREN_A_WORLD = 32
_ERROR_SHARE = 0.1

# The selection's own noise in a lesson: what epsilon, at this delta, gives with most of the budget.
_EPSILONS = (1.0, 30.0)
_DELTA = 1e-3
_SELECTION_SHARE = 0.8

# So many lessons are of worlds in which two networks interact, by damage of such an sd.
_INTERACTING_SHARE = 0.2
_COMPENSATED_SD = (1.0, 3.5)


@dataclass(frozen=True)
class _Lesson:
    """Children of one consortium as the model sees them, and what it should say of them."""

    atlas: Atlas
    edges: NDArray[np.int64]
    values: NDArray[np.float32]
    severity: NDArray[np.float64]
    gase: NDArray[np.float64]

    def inputs(self, children: NDArray[np.int64]) -> Connectomes:
        return as_matrices(
            self.values[children].astype(np.float64),
            self.edges,
            ends=self.atlas.edges,
            regions=len(self.atlas.regions),
        )


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
        lessons.append(_lesson(loaded[i % len(loaded)], rng))
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


def _batch(lessons: Sequence[_Lesson], rng: np.random.Generator) -> tuple[Connectomes, Tensor]:
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


def _lesson(atlas: Atlas, rng: np.random.Generator) -> _Lesson:
    """Draw a consortium, select its network from the training children, show the others."""
    phantom = atlas.name.startswith("phantom-")
    shared = phantom_anatomy(atlas) if phantom else human_anatomy(atlas, rng=rng)
    bundles = int(shared.present.sum())
    rules = ConsortiumRules(
        world=WorldRules(
            severity_edges=int(rng.integers(bundles // 12, bundles // 3 if phantom else bundles // 5)),
            effect_sd=rng.uniform(0.3, 0.9),
            clustered=rng.uniform(0.3, 0.9),
            block_share=rng.uniform(0.4, 1.0),
            nuisance_factors=int(rng.integers(3, 20)),
            nuisance_sd=rng.uniform(0.15, 0.6),
            edge_sd=(0.3, rng.uniform(0.4, 0.6)),
            tail_freedom=rng.choice([4.0, 8.0, 30.0]),
            template_shift_sd=rng.uniform(0.0, 0.4),
            compensated_sd=rng.uniform(*_COMPENSATED_SD) if rng.random() < _INTERACTING_SHARE else 0.0,
        ),
        scanner=ScannerRules(rng.uniform(0, 1.5), 0.25, rng.uniform(0, 0.35)),
        sites=4,
        children=(20, 60),
        held_out=30,
        controls=(8, 25),
    )
    consortium = draw_consortium(atlas, rules, rng=rng, shared=shared, template=_template(atlas, shared, rng))
    candidates = _candidates(atlas, consortium, rng)
    scores, gase = _pooled(consortium, "training")
    mean = float(standardise_severity(gase).mean())
    kind = association(candidates.released)
    total = association_rows(candidates.features(scores), gase, mean_severity=mean).sum(axis=0)
    epsilon = float(np.exp(rng.uniform(*np.log(_EPSILONS))))
    multiplier = noise_multiplier_for(mu_for(epsilon, _DELTA), share=_SELECTION_SHARE, releases=1)
    noise = noise_sd(kind, multiplier, share=1.0)
    network = candidates.network(
        total + rng.normal(0, noise, len(total)), children=float(len(gase)), noise_sd=noise
    )
    scores, gase = _pooled(consortium, "held_out")
    severity = np.concatenate([site.held_out.severity for site in consortium.sites])
    return _Lesson(
        atlas=atlas,
        edges=candidates.edges,
        values=masked_input(scores[:, candidates.edges], network.weight).astype(np.float32),
        severity=np.clip(severity * SEVERITY_SD / GASE_UNIT, -2, 2),
        gase=gase,
    )


def _template(atlas: Atlas, shared: Anatomy, rng: np.random.Generator) -> Template:
    return public_template(atlas, shared, rng=rng, controls=_REFERENCE_CONTROLS)


def _candidates(atlas: Atlas, consortium: Consortium, rng: np.random.Generator) -> Candidates:
    """Choose one of the sources of a protocol; a list holds part of the truth and much else."""
    source: Source = rng.choice(["template", "list", "modules"])
    truth = consortium.world.severity_edges
    present = np.flatnonzero(consortium.template.present)
    known = rng.permutation(truth)[: max(int(len(truth) * rng.uniform(0.3, 0.8)), 1)]
    listed = np.union1d(known, rng.permutation(present)[: len(present) // 4])
    pairs = [(atlas.names[a], atlas.names[b]) for a, b in atlas.edges[listed]]
    return candidates_of(source, atlas, consortium.template, pairs=pairs if source == "list" else ())


def _pooled(
    consortium: Consortium, split: Literal["training", "held_out"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = [getattr(site, split) for site in consortium.sites]
    return np.concatenate([p.scores for p in parts]), np.concatenate([p.gase for p in parts])


def _validated(model: SeverityModel, lessons: Sequence[_Lesson]) -> dict[str, float]:
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
