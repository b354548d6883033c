"""What the networks reach without privacy: unseen sites, random scores, other predictors, another world.

    python tests/benchmarks/severity_bars.py [--json] [--worlds N] [--seed S] [--kind KIND ...] [--write]

`--write` puts the table into docs/benchmarks.md; `make test-science` fails where it says what this does not.
Worlds of `esn_core.simulation.consortium`: the clinical one, the sober one, the weak one, and the one that
is not additive.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import page
import torch
from numpy.typing import NDArray
from private_pipeline import ATLAS, SHARES, WEIGHTS, Study, Summing, pooled, r_and_mae
from scipy import stats

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS_1
from esn_core.learning.baselines.predictors import (
    CompactDcnnRn,
    Cpm,
    EdgeRidge,
    Predictor,
    permuted_r,
)
from esn_core.learning.weights import pretrained
from esn_core.severity_network.candidates import candidates_of
from esn_core.simulation.consortium import CLINICAL, NON_ADDITIVE, SOBER, WEAK, SiteSplit, draw_consortium

WORLDS = {"clinical": CLINICAL, "sober": SOBER, "weak": WEAK, "non-additive": NON_ADDITIVE}
PERMUTATIONS = 20
EPSILONS = (None, 3.0, 8.0)
UNSEEN = "DCNN+RN, pooled, sites left out one by one"
RANDOM = "pooled, permuted scores"

Found = dict[str, float]


def one_world(name: str, seed: int) -> Found:
    """Return r on the held-out children, by what predicts them."""
    atlas = load_atlas(ATLAS)
    rng = np.random.default_rng(seed)
    # As studies scored when the bars were measured.
    consortium = draw_consortium(atlas, WORLDS[name], rng=rng, shrinkage_controls=SHRINKAGE_CONTROLS_1)
    candidates = candidates_of("template", atlas, consortium.template.present)
    study = Study(atlas, consortium, candidates)
    training, held_out = pooled(study.training), study.held_out
    dcnn = CompactDcnnRn(atlas, candidates, WEIGHTS)
    model = pretrained(WEIGHTS)
    found: Found = {}

    def learnt(predictor: Predictor, on: SiteSplit, about: SiteSplit) -> NDArray[np.float64]:
        return np.clip(predictor.fit(on.scores, on.gase, rng=rng)(about.scores), 1, 7)

    for label, predictor in (
        ("DCNN+RN, pooled", dcnn),
        ("CPM (Shen), pooled", Cpm()),
        ("ridge, pooled", EdgeRidge()),
    ):
        found[label], _ = r_and_mae(learnt(predictor, training, held_out), held_out.gase)
    for epsilon in EPSILONS:
        summing = Summing(epsilon, "secure-sum", SHARES, len(study.training))
        network, _ = study.select(summing)
        budget = "without noise" if epsilon is None else f"epsilon {epsilon:g}"
        found[f"weighted sum, federated, {budget}"], _ = study.cpm(summing, network)
        found[f"DCNN+RN, federated, {budget}"], _ = study.network_reads(summing, network, model)
    if name in ("clinical", "sober"):
        sites = [site for site in consortium.sites if len(site.training.gase)]
        said = [
            learnt(dcnn, pooled([s.training for s in sites if s is not left]), left.held_out)
            for left in sites
        ]
        found[UNSEEN], _ = r_and_mae(np.concatenate(said), held_out.gase)
        alone = [r_and_mae(learnt(EdgeRidge(), s.training, held_out), held_out.gase)[0] for s in sites]
        found["ridge, one site alone"] = float(np.mean(alone))
        for predictor in (dcnn, Cpm()):
            permuted = permuted_r(
                predictor,
                (training.scores, training.gase),
                (held_out.scores, held_out.gase),
                times=PERMUTATIONS,
                # The same permutations for both, whatever else was drawn before.
                rng=np.random.default_rng([seed, PERMUTATIONS]),
            )
            found[f"{predictor.name}, {RANDOM}"] = float(permuted.mean())
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over worlds, and its 95 % t-interval."""
    r = np.array(values)
    half = stats.t.ppf(0.975, len(r) - 1) * r.std(ddof=1) / math.sqrt(len(r)) if len(r) > 1 else math.inf
    return float(r.mean()), max(float(r.mean() - half), -1.0), min(float(r.mean() + half), 1.0)


def table(worlds: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float, float]]:
    rows = {
        label: interval([world[label] for world in worlds if label in world])
        for label in dict.fromkeys(label for world in worlds for label in world)
    }
    # Pairs of one world: what the worlds differ by falls out.
    pairs = [
        ("federated without noise less pooled", "DCNN+RN, federated, without noise", "DCNN+RN, pooled"),
        ("DCNN+RN less CPM, pooled", "DCNN+RN, pooled", "CPM (Shen), pooled"),
    ]
    for epsilon in EPSILONS:
        budget = "without noise" if epsilon is None else f"epsilon {epsilon:g}"
        pairs.append(
            (
                f"DCNN+RN less weighted sum, {budget}",
                f"DCNN+RN, federated, {budget}",
                f"weighted sum, federated, {budget}",
            )
        )
    for what, first, second in pairs:
        rows[what] = interval([world[first] - world[second] for world in worlds])
    return rows


def as_markdown(said: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """Write one table, a column for each kind of world."""
    rows = dict.fromkeys(label for of in said.values() for label in of)
    lines = [f"| r on held-out children | {' | '.join(said)} |", "|---" * (1 + len(said)) + "|"]
    lines += [f"| {row} | {' | '.join(_cell(of.get(row)) for of in said.values())} |" for row in rows]
    return "\n".join(lines)


def _cell(found: tuple[float, float, float] | None) -> str:
    return "" if found is None else "{:.3f} ({:.3f} to {:.3f})".format(*found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=8400)
    parser.add_argument("--write", action="store_true", help="put the table on the page")
    parser.add_argument("--kind", action="append", choices=WORLDS, help="of world; all of them unless given")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    said = {}
    for name in asked.kind or WORLDS:
        found = []
        for index in range(asked.worlds):
            started = time.process_time()
            found.append(one_world(name, asked.seed + index))
            seconds = time.process_time() - started
            print(f"{name} world {index + 1} of {asked.worlds}: {seconds:.0f} CPU s", file=sys.stderr)
        said[name] = table(found)
    if asked.write:
        page.write("severity_bars.py", as_markdown(said))
    if asked.json:
        print(json.dumps({"worlds": asked.worlds, "seed": asked.seed, "r": said}, indent=1))
        return
    for name, rows in said.items():
        for label, (r, low, high) in rows.items():
            print(f"{name:13s} {label:45s} {r:5.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
