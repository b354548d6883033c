"""Lessons of pre-training: simulated consortia as the severity model sees them in a study."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas
from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS_1
from esn_core.connectome.template import Template
from esn_core.gase import GASE_UNIT, standardise_severity
from esn_core.learning.severity_model import Connectomes, as_matrices
from esn_core.privacy.accounting import mu_for, noise_multiplier_for
from esn_core.privacy.fixed_point import noise_sd
from esn_core.severity_network.association import association_release, association_rows
from esn_core.severity_network.candidates import Candidates, Source, candidates_of
from esn_core.severity_network.selection import masked_input
from esn_core.simulation.anatomy import Anatomy, human_anatomy, phantom_anatomy
from esn_core.simulation.cohort import SEVERITY_SD
from esn_core.simulation.consortium import Consortium, ConsortiumRules, draw_consortium, public_template
from esn_core.simulation.scanner import ScannerRules
from esn_core.simulation.world import WorldRules

_REFERENCE_CONTROLS = 60

# The selection's own noise in a lesson: what epsilon, at this delta, gives with most of the budget.
_EPSILONS = (1.0, 30.0)
_DELTA = 1e-3
_SELECTION_SHARE = 0.8

# So many lessons are of worlds in which two networks interact, by damage of such an sd.
_INTERACTING_SHARE = 0.2
_COMPENSATED_SD = (1.0, 3.5)


@dataclass(frozen=True)
class Lesson:
    """Children of one consortium as the model sees them, and what it should say of them.

    Attributes
    ----------
    atlas : Atlas
    edges : (d,) int64
        The candidates, as indices into the atlas's edges.
    values : (n, d) float32
        Scores weighted by the consortium's severity network (`selection.masked_input`).
    severity : (n,) float64
        The hidden one, in the model's unit.
    gase : (n,) float64

    """

    atlas: Atlas
    edges: NDArray[np.int64]
    values: NDArray[np.float32]
    severity: NDArray[np.float64]
    gase: NDArray[np.float64]

    def inputs(self, children: NDArray[np.int64]) -> Connectomes:
        """Return the model's inputs for some of the children."""
        return as_matrices(
            self.values[children].astype(np.float64),
            self.edges,
            ends=self.atlas.edges,
            regions=len(self.atlas.regions),
        )


def draw_lesson(atlas: Atlas, rng: np.random.Generator) -> Lesson:
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
    consortium = draw_consortium(
        atlas,
        rules,
        rng=rng,
        shared=shared,
        template=_template(atlas, shared, rng),
        # As the scores were when the shipped weights were trained: their command makes them again.
        shrinkage_controls=SHRINKAGE_CONTROLS_1,
    )
    candidates = _candidates(atlas, consortium, rng)
    scores, gase = _pooled(consortium, "training")
    mean = float(standardise_severity(gase).mean())
    kind = association_release(candidates.released)
    total = association_rows(candidates.features(scores), gase, mean_severity=mean).sum(axis=0)
    epsilon = float(np.exp(rng.uniform(*np.log(_EPSILONS))))
    multiplier = noise_multiplier_for(mu_for(epsilon, _DELTA), share=_SELECTION_SHARE, releases=1)
    noise = noise_sd(kind, multiplier, share=1.0)
    network = candidates.network(
        total + rng.normal(0, noise, len(total)), children=float(len(gase)), noise_sd=noise
    )
    scores, gase = _pooled(consortium, "held_out")
    severity = np.concatenate([site.held_out.severity for site in consortium.sites])
    return Lesson(
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
    return candidates_of(source, atlas, consortium.template.present, pairs=pairs if source == "list" else ())


def _pooled(
    consortium: Consortium, split: Literal["training", "held_out"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = [getattr(site, split) for site in consortium.sites]
    return np.concatenate([p.scores for p in parts]), np.concatenate([p.gase for p in parts])
