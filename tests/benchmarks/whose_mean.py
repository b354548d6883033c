"""Whose mean and spread an edge is judged by: own controls, a template, the others' controls; and candidates.

    python tests/benchmarks/whose_mean.py [--json] [--worlds N] [--seed S] [--part NAME]

Each world is a simulated consortium (desikan-killiany-83, 6 sites, clinical rules). The rest is
`private_pipeline.py`: the product's own clip, noise, selection, pre-trained model and calibration, and r of
DCNN+RN on all held-out children. Parts: `reference`, `controls` (how many), `candidates`, `absent` (one site
without controls), `resection` (a tenth of the children without tissue in some regions).
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from private_pipeline import SHARES, Study, Summing, r_and_mae

from esn_core.connectome.atlas import Atlas, load_atlas, module_pairs
from esn_core.connectome.control_offset import (
    SHRINKAGE_CONTROLS,
    SHRINKAGE_CONTROLS_1,
    control_offset,
)
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import Template, edge_scores, strengths_of_counts
from esn_core.learning.weights import pretrained
from esn_core.severity_network.candidate_list import pairs_of, present_in_most
from esn_core.severity_network.candidates import Candidates
from esn_core.severity_network.pooled_reference import PooledReference, reference_rows
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.cohort import draw_site, subject_counts
from esn_core.simulation.consortium import (
    CLINICAL,
    Consortium,
    ConsortiumRules,
    SimulatedSite,
    SiteSplit,
    public_template,
)
from esn_core.simulation.world import World

Floats = NDArray[np.float64]
ATLAS = "desikan-killiany-83"
EPSILONS = (None, 8.0, 3.0)
TRUST = "secure-sum"
SELECTED = 100


@dataclass(frozen=True)
class Site:
    """One hospital: strengths of training children, held-out children and controls, in this order."""

    children: Floats
    controls: Floats
    gase: Floats
    severity: Floats
    age: Floats
    male: Floats
    training: int


@dataclass(frozen=True)
class Drawn:
    """One world."""

    atlas: Atlas
    world: World
    template: Template
    sites: tuple[Site, ...]


def draw(
    seed: int,
    rules: ConsortiumRules = CLINICAL,
    *,
    children: Sequence[int] | None = None,
    on: str = ATLAS,
) -> Drawn:
    """Draw a world and keep the strengths of everybody; so many `children` train at each site, if given."""
    atlas, rng = load_atlas(on), np.random.default_rng(seed)
    shared = anatomy(atlas)
    template = public_template(atlas, shared, rng=rng)
    world = World.draw(atlas, rules.world, rng=rng, shared=shared)
    sites = []
    for k in range(rules.sites):
        training = children[k] if children else int(rng.integers(rules.children[0], rules.children[1] + 1))
        patients = training + rules.held_out
        subjects = draw_site(
            world,
            children=patients,
            controls=int(rng.integers(rules.controls[0], rules.controls[1] + 1)),
            rng=rng,
            scanner=world.scanner(rules.scanner, rng=rng),
            severity_shift_sd=rules.severity_shift_sd,
        )
        strengths = strengths_of_counts(subject_counts(np.array([s.log_weights for s in subjects]), rng=rng))
        sites.append(
            Site(
                children=strengths[:patients],
                controls=strengths[patients:],
                gase=np.array([s.gase for s in subjects[:patients]], dtype=np.float64),
                severity=np.array([s.severity for s in subjects[:patients]]),
                age=np.array([s.age_years for s in subjects]),
                male=np.array([float(s.sex == "M") for s in subjects]),
                training=training,
            )
        )
    return Drawn(atlas, world, template, tuple(sites))


def by_own(site: Site) -> Floats:
    """Scores against the site's own controls."""
    reference = ControlReference.of_controls(site.controls)
    return np.array([reference.scores(each) for each in site.children])


def by_template(template: Template, shrinkage: float | None) -> Callable[[Site], Floats]:
    """Scores against a template, less the own controls' offset unless there is no shrinkage."""

    def scores(site: Site) -> Floats:
        everybody = np.concatenate([site.children, site.controls])
        z = edge_scores(everybody, template, age_years=site.age, sex=site.male)
        n = len(site.children)
        if shrinkage is None:
            return z[:n]
        return z[:n] - control_offset(z[n:], shrinkage_controls=shrinkage)

    return scores


def pooled_by(sites: Sequence[Site], chosen: NDArray[np.bool_]) -> ControlReference:
    """What the controls of several sites give a hospital without any, as the product releases it."""
    rows = np.concatenate([reference_rows(site.controls, chosen) for site in sites])
    found, known = PooledReference.from_total(rows.sum(axis=0), sites=len(sites))
    atlas = load_atlas(ATLAS)
    return found.reference(atlas, pairs_of(atlas, known))


def candidates_from(atlas: Atlas, chosen: NDArray[np.bool_]) -> Candidates:
    """Return candidates of a mask of edges."""
    edges = np.flatnonzero(chosen)
    _, blocks = np.unique(module_pairs(atlas)[edges], return_inverse=True)
    return Candidates(edges, blocks.astype(np.int64), grouped=False)


def votes(drawn: Drawn) -> NDArray[np.bool_]:
    """An edge is in when nearly all controls of most sites have it."""
    each = np.array([present_in_most(site.controls) for site in drawn.sites])
    return np.asarray(each.sum(axis=0) > len(each) / 2)


def consortium_of(drawn: Drawn, scores: Sequence[Floats], *, silent: int | None = None) -> Consortium:
    """Return the drawn sites with their children's scores; the site `silent` trains nothing."""
    sites = []
    for k, (site, z) in enumerate(zip(drawn.sites, scores, strict=True)):
        first, rest = slice(0, 0 if k == silent else site.training), slice(site.training, None)
        splits = [SiteSplit(z[part], site.gase[part], site.severity[part]) for part in (first, rest)]
        sites.append(SimulatedSite(*splits, len(site.controls)))
    return Consortium(drawn.world, drawn.template, tuple(sites))


class Last(Study):
    """A study that keeps what it predicted last of all held-out children."""

    predicted: Floats

    def judge(self, summing: Summing, said: list[Floats], held_out: Floats) -> tuple[float, float]:
        """As a study does."""
        keep: list[Floats] = []

        def listen(predicted: Floats, gase: Floats) -> tuple[float, float]:
            keep.append(predicted)
            return r_and_mae(predicted, gase)

        with patch("private_pipeline.r_and_mae", listen):
            found = super().judge(summing, said, held_out)
        object.__setattr__(self, "predicted", keep[0])
        return found


@dataclass(frozen=True)
class Read:
    """What a study selects and predicts."""

    weight: Floats
    predicted: Floats
    gase: Floats

    def r(self, whom: NDArray[np.bool_] | slice = slice(None)) -> float:
        """r in some of the held-out children."""
        return r_and_mae(self.predicted[whom], self.gase[whom])[0]

    @property
    def selected(self) -> set[int]:
        """The hundred candidates of the largest weight, of either sign."""
        return set(np.argsort(-np.abs(self.weight))[:SELECTED].tolist())


def r_of(
    drawn: Drawn,
    scores: list[Floats],
    chosen: NDArray[np.bool_],
    *,
    silent: int | None = None,
    off: bool = False,
) -> dict[float | None, float]:
    """r over all held-out children at each epsilon; the site `silent` trains nothing.

    With `off`: how far the last site's predictions lie off the scores on average, in steps of GASE.
    """
    own = len(drawn.sites[-1].gase) - drawn.sites[-1].training
    return {
        epsilon: abs(float((read.predicted - read.gase)[-own:].mean())) if off else read.r()
        for epsilon, read in read_by(drawn, scores, chosen, silent=silent).items()
    }


def read_by(
    drawn: Drawn, scores: list[Floats], chosen: NDArray[np.bool_], *, silent: int | None = None
) -> dict[float | None, Read]:
    """What a study selects and predicts at each epsilon; the site `silent` trains nothing."""
    consortium = consortium_of(drawn, scores, silent=silent)
    study = Last(drawn.atlas, consortium, candidates_from(drawn.atlas, chosen))
    model, found = pretrained("compact-3"), {}
    for epsilon in EPSILONS:
        summing = Summing(epsilon, TRUST, SHARES, len(study.training))
        network, _ = study.select(summing)
        study.network_reads(summing, network, model)
        found[epsilon] = Read(network.weight, study.predicted, study.held_out.gase)
    return found


Rows = Mapping[str, Mapping[float | None, float]]


def reference(seed: int) -> Rows:
    """Whose mean and spread."""
    drawn = draw(seed)
    chosen = votes(drawn)
    ways = {
        "own controls": by_own,
        "template, offset n/(n+1.5)": by_template(drawn.template, SHRINKAGE_CONTROLS),
        "template, offset n/(n+6)": by_template(drawn.template, SHRINKAGE_CONTROLS_1),
        "template alone": by_template(drawn.template, None),
    }
    return {name: r_of(drawn, [way(s) for s in drawn.sites], chosen) for name, way in ways.items()}


def controls(seed: int) -> Rows:
    """How many controls at every site."""
    found = {}
    for n in (3, 5, 8, 12, 20, 40):
        drawn = draw(seed, replace(CLINICAL, controls=(n, n)))
        chosen = drawn.template.present  # votes of three controls are no list; the same edges for all
        for name, way in (("own", by_own), ("template", by_template(drawn.template, SHRINKAGE_CONTROLS))):
            found[f"{name}, {n} controls"] = r_of(drawn, [way(s) for s in drawn.sites], chosen)
    return found


def candidates(seed: int) -> Rows:
    """Which edges."""
    drawn = draw(seed)
    scores = [by_own(site) for site in drawn.sites]
    most = max(drawn.sites, key=lambda site: len(site.controls))
    sources = {
        "votes of the sites": votes(drawn),
        "the template's": drawn.template.present,
        "one site's controls, the most": present_in_most(most.controls),
        "all controls, pooled": present_in_most(np.concatenate([s.controls for s in drawn.sites])),
        "all edges": np.ones(len(drawn.atlas.edges), dtype=np.bool_),
    }
    return {
        f"{name}: {int(chosen.sum())}" if name == "all edges" else name: r_of(drawn, scores, chosen)
        for name, chosen in sources.items()
    }


def absent(seed: int) -> Rows:
    """One site without controls: scored by the others' pooled controls, with and without training."""
    drawn = draw(seed)
    last = len(drawn.sites) - 1
    others = drawn.sites[:-1]
    chosen = votes(replace(drawn, sites=others))  # it has no vote either
    own = [by_own(site) for site in drawn.sites]
    reference = pooled_by(others, chosen)
    pooled = [*own[:-1], np.array([reference.scores(x) for x in drawn.sites[-1].children])]
    raw = [*own[:-1], by_template(drawn.template, None)(drawn.sites[-1])]
    return {
        "it has controls": r_of(drawn, own, chosen),
        "others' pooled controls, does not train": r_of(drawn, pooled, chosen, silent=last),
        "others' pooled controls, trains": r_of(drawn, pooled, chosen),
        "template alone, trains": r_of(drawn, raw, chosen),
        "it has controls: mean error there": r_of(drawn, own, chosen, off=True),
        "pooled, does not train: mean error there": r_of(drawn, pooled, chosen, silent=last, off=True),
    }


def resection(seed: int) -> Rows:
    """A tenth of the children without tissue in half a lobe's regions: r, theirs, and what is selected."""
    drawn, rng = draw(seed), np.random.default_rng(seed + 1)
    chosen = votes(drawn)
    modules = np.array([region.module for region in drawn.atlas.regions])
    lobes = sorted(set(modules))

    def without(site: Site, *, known: bool) -> tuple[Floats, NDArray[np.bool_]]:
        reference, z, affected = ControlReference.of_controls(site.controls), [], []
        for strengths in site.children:
            affected.append(rng.random() < 0.1)
            if affected[-1]:
                regions = np.flatnonzero(modules == rng.choice(lobes))
                gone = np.isin(drawn.atlas.edges, regions[: max(len(regions) // 2, 1)]).any(axis=1)
                counts = np.where(gone, 0.0, np.expm1(strengths))
                strengths = strengths_of_counts(counts)
                if known:
                    strengths = np.where(gone, np.nan, strengths)
            z.append(reference.scores(strengths))
        return np.array(z), np.array(affected)

    ways = {"nobody": read_by(drawn, [by_own(site) for site in drawn.sites], chosen)}
    state = rng.bit_generator.state
    for name, known in {"edges known to be missing": True, "edges taken for weak": False}.items():
        rng.bit_generator.state = state  # the same children, and the same lobes
        made = [without(site, known=known) for site in drawn.sites]
        ways[name] = read_by(drawn, [z for z, _ in made], chosen)
    parts = zip(drawn.sites, made, strict=True)
    them = np.concatenate([affected[site.training :] for site, (_, affected) in parts])
    exact = ways["nobody"][None].selected
    return {
        **{f"{name}": {e: r.r() for e, r in way.items()} for name, way in ways.items()},
        **{f"r in the tenth: {name}": {e: r.r(them) for e, r in way.items()} for name, way in ways.items()},
        **{
            f"selected as by nobody's: {name}": {
                e: len(r.selected & exact) / SELECTED for e, r in way.items()
            }
            for name, way in ways.items()
        },
    }


PARTS = {f.__name__: f for f in (reference, controls, candidates, absent, resection)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7300)
    parser.add_argument("--part", action="append", choices=PARTS, help="all of them unless given")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tables, started = {}, time.monotonic()
    for part in asked.part or PARTS:
        worlds = []
        for index in range(asked.worlds):
            worlds.append(PARTS[part](asked.seed + index))
            print(f"{part}, world {index + 1}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        tables[part] = {
            name: {
                "none" if epsilon is None else f"{epsilon:g}": _summary([w[name][epsilon] for w in worlds])
                for epsilon in EPSILONS
            }
            for name in worlds[0]
        }
    if asked.json:
        about = {"worlds": asked.worlds, "seed": asked.seed, "atlas": ATLAS}
        print(json.dumps({**about, "tables": tables}, indent=1))
        return
    for part, rows in tables.items():
        print(part)
        for name, row in rows.items():
            said = "  ".join(f"{e}: {mean:.3f} ± {error:.3f}" for e, (mean, error) in row.items())
            print(f"  {name:45s} {said}")


def _summary(r: list[float]) -> tuple[float, float]:
    """Mean, and its standard error."""
    return float(np.mean(r)), float(np.std(r, ddof=1) / math.sqrt(len(r))) if len(r) > 1 else math.inf


if __name__ == "__main__":
    main()
