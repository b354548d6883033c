"""What each harmonisation does to r on held-out children under scanner effects, and why ComBat loses.

    python tests/benchmarks/harmonisation.py [--json] [--worlds N] [--seed S]

Worlds of `esn_core.simulation.consortium.CLINICAL` with other scanners; six sites, without noise and without
a federation. One world is harmonised in all ways, so that ways are compared within worlds.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS_1, control_offset
from esn_core.connectome.template import Template, edge_scores, strengths_of_counts
from esn_core.learning.baselines.predictors import CompactDcnnRn, Cpm, EdgeRidge
from esn_core.severity_network.candidates import candidates_of
from esn_core.simulation.cohort import Subject, draw_site, subject_counts
from esn_core.simulation.consortium import CLINICAL, ConsortiumRules, public_template
from esn_core.simulation.scanner import ScannerRules
from esn_core.simulation.world import World
from esn_core.statistics import combat

Floats = NDArray[np.float64]

ATLAS, WEIGHTS = "desikan-killiany-83", "compact-3"
GAIN_SD = CLINICAL.scanner.gain_sd
SCANNERS = {
    "(0, 0)": ScannerRules(0.0, 0.0, 0.0),
    "(.25, .15)": ScannerRules(0.25, GAIN_SD, 0.15),
    "(.6, .3)": ScannerRules(0.6, GAIN_SD, 0.3),
    "(1, .4)": ScannerRules(1.0, GAIN_SD, 0.4),
    "(1.3, .3)": CLINICAL.scanner,
}
"""By additive sd, in an edge's own sd, and log-multiplicative sd; the last is that of the full demo."""

COVARIATE_NORM = 4.0
"""Longest vector of the covariates that ComBat keeps: age, sex, and GASE where it is told."""


@dataclass(frozen=True)
class Site:
    """One simulated site: children first of the training split, then of the held-out one.

    Attributes
    ----------
    strengths, scores : (n, E) float64
        Before any harmonisation, and against the public template.
    control_scores : (m, E) float64
    gase : (n,) float64
    covariates : (n, 2) float64
        Age and sex, on a scale that ComBat's sums hold.
    control_covariates : (m, 2) float64
    training : int
        So many children are of the training split.

    """

    strengths: Floats
    scores: Floats
    control_scores: Floats
    gase: Floats
    covariates: Floats
    control_covariates: Floats
    training: int


def draw_sites(rules: ConsortiumRules, template: Template, rng: np.random.Generator) -> list[Site]:
    """Draw a world and its sites, as `esn_core.simulation.consortium` does."""
    atlas = load_atlas(ATLAS)
    world = World.draw(atlas, rules.world, rng=rng)
    sites = []
    for _ in range(rules.sites):
        training = int(rng.integers(rules.children[0], rules.children[1] + 1))
        controls = int(rng.integers(rules.controls[0], rules.controls[1] + 1))
        children = training + rules.held_out
        subjects = draw_site(
            world,
            children=children,
            controls=controls,
            rng=rng,
            scanner=world.scanner(rules.scanner, rng=rng),
            severity_shift_sd=rules.severity_shift_sd,
        )
        strengths = strengths_of_counts(subject_counts(np.array([s.log_weights for s in subjects]), rng=rng))
        age, male = standing(subjects)
        scores = edge_scores(strengths, template, age_years=age, sex=male)
        covariates = np.column_stack([(age - 10) / 10, male - 0.5])
        sites.append(
            Site(
                strengths=strengths[:children],
                scores=scores[:children],
                control_scores=scores[children:],
                gase=np.array([float(s.gase or 0) for s in subjects[:children]]),
                covariates=covariates[:children],
                control_covariates=covariates[children:],
                training=training,
            )
        )
    return sites


def standing(subjects: Sequence[Subject]) -> tuple[Floats, Floats]:
    """Return (n,) ages in years, and whether each is male."""
    return np.array([s.age_years for s in subjects]), np.array([float(s.sex == "M") for s in subjects])


def standardised(sites: Sequence[Site]) -> list[Floats]:
    """No harmonisation: strengths less the mean of all training children, over their sd."""
    pooled = np.concatenate([s.strengths[: s.training] for s in sites])
    mean, sd = pooled.mean(axis=0), pooled.std(axis=0)
    return [(s.strengths - mean) / np.where(sd > 0.05, sd, np.inf) for s in sites]


def by_template(sites: Sequence[Site]) -> list[Floats]:
    """Scores against the public template."""
    return [s.scores for s in sites]


def less_controls(sites: Sequence[Site]) -> list[Floats]:
    """Scores less the shrunk mean of the site's own controls: what a study does."""
    return [
        s.scores - control_offset(s.control_scores, shrinkage_controls=SHRINKAGE_CONTROLS_1) for s in sites
    ]


def less_patients(sites: Sequence[Site]) -> list[Floats]:
    """Scores less the plain mean of the site's own training patients: of ComBat, the shift alone."""
    return [s.scores - s.scores[: s.training].mean(axis=0) for s in sites]


def by_combat(
    sites: Sequence[Site],
    *,
    told_severity: bool = False,
    on_controls: bool = False,
    shrunk: bool = True,
    scaled: bool = True,
) -> list[Floats]:
    """Harmonise by ComBat, estimated on training children, or on controls.

    Parameters
    ----------
    sites : sequence of Site
    told_severity : bool
        Whether GASE is among the covariates whose effects are kept. Held-out children enter as of GASE 4:
        theirs is what is to be predicted.
    on_controls : bool
    shrunk : bool
        Whether the sites' effects are shrunk over the edges (empirical Bayes).
    scaled : bool
        Whether the sites' variances are made alike as well.

    """
    sources = []
    for s in sites:
        kept = np.column_stack([s.covariates, (s.gase - 4) / 3]) if told_severity else s.covariates
        sources.append(
            (s.control_scores, s.control_covariates)
            if on_controls
            else (s.scores[: s.training], kept[: s.training])
        )
    covariates = sources[0][1].shape[1]
    edges = sites[0].scores.shape[1]
    total = np.zeros(combat.combat_dimension(edges, covariates))
    for scores, kept in sources:
        total += combat.combat_rows(scores, kept, covariate_norm=COVARIATE_NORM).sum(axis=0)
    model = combat.combat_model(total, edges=edges, covariates=covariates)
    harmonised = []
    for s, (scores, kept) in zip(sites, sources, strict=True):
        own = combat.ComBatSite.estimate(scores, kept, model)
        if not shrunk:
            varying = model.variance > 0
            apart = (scores - model.grand_mean - kept @ model.coefficients)[:, varying]
            apart /= np.sqrt(model.variance[varying])
            variance = apart.var(axis=0, ddof=1)
            own = replace(own, shift=apart.mean(axis=0), scale=np.where(variance > 0, variance, 1.0))
        if not scaled:
            own = replace(own, scale=np.ones_like(own.scale))
        middle = np.column_stack([s.covariates, np.zeros(len(s.gase))]) if told_severity else s.covariates
        harmonised.append(own.apply(s.scores, middle))
    return harmonised


WAYS: Mapping[str, Callable[[Sequence[Site]], list[Floats]]] = {
    "none": standardised,
    "public template": by_template,
    "template and own controls, shrunk": less_controls,
    "ComBat on patients": by_combat,
}
ABLATIONS: Mapping[str, Callable[[Sequence[Site]], list[Floats]]] = {
    "the patients' mean alone taken away": less_patients,
    "ComBat without shrinkage": lambda sites: by_combat(sites, shrunk=False),
    "ComBat's shift without its scale": lambda sites: by_combat(sites, scaled=False),
    "ComBat that is told the training children's GASE": lambda sites: by_combat(sites, told_severity=True),
    "ComBat on controls": lambda sites: by_combat(sites, on_controls=True),
}


@dataclass(frozen=True)
class Held:
    """How predictions agree with the clinical GASE of the held-out children."""

    r: float
    r_within: float
    """Of both less their site's means."""


def judged(said: Sequence[Floats], truth: Sequence[Floats]) -> Held:
    def r(x: Sequence[Floats], y: Sequence[Floats]) -> float:
        return float(np.corrcoef(np.concatenate(x), np.concatenate(y))[0, 1])

    return Held(r(said, truth), r([x - x.mean() for x in said], [y - y.mean() for y in truth]))


def one_world(
    rules: ConsortiumRules,
    seed: int,
    *,
    ways: Mapping[str, Callable[[Sequence[Site]], list[Floats]]],
    predictors: Sequence[str],
) -> dict[tuple[str, str], Held]:
    """Return what each predictor reaches under each way, on the held-out children of all sites."""
    atlas, rng = load_atlas(ATLAS), np.random.default_rng(seed)
    template = public_template(atlas, rng=rng)
    sites = draw_sites(rules, template, rng)
    candidates = candidates_of("template", atlas, template.present)
    known = {
        "DCNN+RN": CompactDcnnRn(atlas, candidates, WEIGHTS),
        "CPM": Cpm(),
        "ridge": EdgeRidge(),
    }
    gase = np.concatenate([s.gase[: s.training] for s in sites])
    truth = [s.gase[s.training :] for s in sites]
    found = {}
    for way, harmonise in ways.items():
        scores = harmonise(sites)
        training = np.concatenate([x[: s.training] for x, s in zip(scores, sites, strict=True)])
        for name in predictors:
            fitted = known[name].fit(training, gase, rng=rng)
            said = [np.clip(fitted(x[s.training :]), 1, 7) for x, s in zip(scores, sites, strict=True)]
            found[way, name] = judged(said, truth)
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over worlds, and its 95 % t-interval."""
    r = np.array(values)
    half = stats.t.ppf(0.975, len(r) - 1) * r.std(ddof=1) / math.sqrt(len(r)) if len(r) > 1 else math.inf
    return float(r.mean()), max(float(r.mean() - half), -1.0), min(float(r.mean() + half), 1.0)


def table(worlds: int, seed: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return r by scanner and way; then why ComBat loses, with a ridge on the demo's scanner."""
    said: dict[str, dict[str, tuple[float, float, float]]] = {}

    def told(name: str, started: float) -> None:
        print(f"{name}: {time.process_time() - started:.0f} CPU s", file=sys.stderr)

    for name, scanner in SCANNERS.items():
        started = time.process_time()
        rules = replace(CLINICAL, scanner=scanner)
        drawn = [
            one_world(rules, seed + k, ways=WAYS, predictors=("DCNN+RN", "CPM", "ridge"))
            for k in range(worlds)
        ]
        rows = {
            f"{predictor}: {way}": interval([world[way, predictor].r for world in drawn])
            for predictor in ("DCNN+RN", "CPM", "ridge")
            for way in WAYS
        }
        rows["ridge: own controls less ComBat"] = interval(
            [
                world["template and own controls, shrunk", "ridge"].r - world["ComBat on patients", "ridge"].r
                for world in drawn
            ]
        )
        said[f"scanner {name}"] = rows
        told(name, started)
    for name, shift in (("as in the demo", CLINICAL.severity_shift_sd), ("the same at every site", 0.0)):
        started = time.process_time()
        rules = replace(CLINICAL, severity_shift_sd=shift)
        ways = {**WAYS, **ABLATIONS}
        drawn = [one_world(rules, seed + k, ways=ways, predictors=("ridge",)) for k in range(worlds)]
        rows = {}
        for way in ways:
            rows[way] = interval([world[way, "ridge"].r for world in drawn])
            rows[f"{way}, within sites"] = interval([world[way, "ridge"].r_within for world in drawn])
        said[f"mean severity {name}"] = rows
        told(name, started)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=8600)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    said = table(asked.worlds, asked.seed)
    if asked.json:
        print(json.dumps({"worlds": asked.worlds, "seed": asked.seed, "r": said}, indent=1))
        return
    for name, rows in said.items():
        for label, (r, low, high) in rows.items():
            print(f"{name:40s} {label:70s} {r:5.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
