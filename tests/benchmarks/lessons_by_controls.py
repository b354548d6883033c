"""Weights that were pre-trained on scores by own controls, beside those of template and offset.

    python tests/benchmarks/lessons_by_controls.py [--starts N] [--lessons N] [--steps N] [--worlds N]

Both are trained by `esn-server pretrain`'s own code on the same lessons from the same first weights; only how
a child's edges are scored differs. They read the same networks, noise included, of the worlds of
`unseen_atlas.py`, whose children are scored by own controls, as studies' are.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from private_pipeline import ATLAS, SHARES, WEIGHTS, Summing
from unseen_atlas import study_on
from whose_mean import EPSILONS, TRUST

from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS_1
from esn_core.learning.weights import pretrained
from esn_server.simulation import lessons
from esn_server.simulation.pretraining import pretrain

SCORES = {"template and offset": SHRINKAGE_CONTROLS_1, "own controls": None}
Reads = dict[tuple[float | None, str], float]


def trained(shrinkage: float | None, *, seed: int, worlds: int, steps: int) -> torch.nn.Module:
    """Pre-train on lessons of one kind of score."""
    with tempfile.TemporaryDirectory() as place, patch.object(lessons, "SHRINKAGE_CONTROLS_1", shrinkage):
        pretrain(
            Path(place),
            name="trial",
            atlases=[ATLAS],
            seed=seed,
            worlds=worlds,
            steps=steps,
            progress=lambda *_: None,
        )
        return pretrained("trial", (Path(place) / "trial.safetensors").read_bytes())


def read(models: dict[str, list[torch.nn.Module]], *, seed: int) -> Reads:
    """Return r over all held-out children of a world, by epsilon and whose weights; means over starts."""
    study, found = study_on(ATLAS, seed=seed), {}
    for epsilon in EPSILONS:
        summing = Summing(epsilon, TRUST, SHARES, len(study.training))
        network, _ = study.select(summing)
        found[epsilon, "weighted sum"] = study.cpm(summing, network)[0]
        for whose, starts in models.items():
            found[epsilon, whose] = float(
                np.mean([study.network_reads(summing, network, model)[0] for model in starts])
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--lessons", type=int, default=740)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7500)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    models: dict[str, list[torch.nn.Module]] = {f"as shipped ({WEIGHTS})": [pretrained(WEIGHTS)]}
    for start in range(asked.starts):
        for name, shrinkage in SCORES.items():
            began = time.process_time()
            model = trained(shrinkage, seed=asked.seed + start, worlds=asked.lessons, steps=asked.steps)
            models.setdefault(name, []).append(model)
            print(f"{name}, start {start + 1}: {time.process_time() - began:.0f} CPU s", file=sys.stderr)
    worlds = [read(models, seed=asked.seed + index) for index in range(asked.worlds)]
    print("| weights trained on scores by | none | " + " | ".join(f"ε {e:g}" for e in EPSILONS if e) + " |")
    print("|---" * (1 + len(EPSILONS)) + "|")
    for whose in ("weighted sum", *models):
        cells = [f"{np.mean([world[epsilon, whose] for world in worlds]):.3f}" for epsilon in EPSILONS]
        print(f"| {whose} | {' | '.join(cells)} |")
    cells = []
    for epsilon in EPSILONS:
        gain = np.array(
            [world[epsilon, "own controls"] - world[epsilon, "template and offset"] for world in worlds]
        )
        error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        cells.append(f"{gain.mean():+.4f} ± {error:.4f}")
    print(f"| own controls less template and offset, ± standard error | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
