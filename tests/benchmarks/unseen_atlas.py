"""r on an atlas that pre-training never saw, beside one that it saw; and the weighted sum of the same edges.

    python tests/benchmarks/unseen_atlas.py [--worlds N] [--seed S] [--atlas NAME]

The worlds, sites, shares, own controls and candidates by votes are those of `whose_mean.py`. `compact-3` was
trained on desikan-killiany-83 and phantom-28: of aal-116 it saw neither regions nor edges nor modules.
"""

import argparse
import math
import time

import numpy as np
import torch
from private_pipeline import SHARES, WEIGHTS, Study, Summing
from whose_mean import EPSILONS, TRUST, by_own, candidates_from, consortium_of, draw, votes

from esn_core.learning.weights import pretrained

ATLASES = ("desikan-killiany-83", "aal-116")
WAYS = ("DCNN+RN", "weighted sum")


def study_on(atlas: str, *, seed: int) -> Study:
    """Draw a consortium on an atlas: scores by own controls, candidates by votes."""
    drawn = draw(seed, on=atlas)
    consortium = consortium_of(drawn, [by_own(site) for site in drawn.sites])
    return Study(drawn.atlas, consortium, candidates_from(drawn.atlas, votes(drawn)))


def r_of(study: Study) -> dict[tuple[float | None, str], float]:
    """r over all held-out children by each epsilon and way."""
    model, found = pretrained(WEIGHTS), {}
    for epsilon in EPSILONS:
        summing = Summing(epsilon, TRUST, SHARES, len(study.training))
        network, _ = study.select(summing)
        found[epsilon, WAYS[0]] = study.network_reads(summing, network, model)[0]
        found[epsilon, WAYS[1]] = study.cpm(summing, network)[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7500)
    parser.add_argument("--atlas", action="append", choices=ATLASES, help="both unless given")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for atlas in asked.atlas or ATLASES:
        started, edges, worlds = time.process_time(), [], []
        for seed in range(asked.seed, asked.seed + asked.worlds):
            study = study_on(atlas, seed=seed)
            edges.append(len(study.candidates.edges))
            worlds.append(r_of(study))
        print(f"{atlas}: {np.mean(edges):.0f} candidates; {time.process_time() - started:.0f} CPU s")
        for way in WAYS:
            said = []
            for epsilon in EPSILONS:
                r = np.array([world[epsilon, way] for world in worlds])
                error = r.std(ddof=1) / math.sqrt(len(r)) if len(r) > 1 else math.inf
                said.append(f"{'none' if epsilon is None else f'{epsilon:g}'}: {r.mean():.3f} ± {error:.3f}")
            print(f"  {way:15s} {'  '.join(said)}")


if __name__ == "__main__":
    main()
