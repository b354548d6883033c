"""The published network after some epochs, beside ridge, CPM and the study's own on the same children.

    python tests/benchmarks/published_network.py [--json] [--worlds N] [--seed S] [--atlas NAME]
        [--epochs N ...] [--write]

The worlds of `unseen_atlas.py`, all training children pooled, no noise. Each predictor sees the candidates
alone. The training is the paper's: MSE, Adam at 1e-4 that is halved at every tenth epoch, batches of 128 of
1,500 children, those of them who are copies with noise. `--write` puts the table into docs/benchmarks.md.
"""

import argparse
import json
import sys
import time
from itertools import islice

import numpy as np
import page
import torch
from numpy.typing import NDArray
from private_pipeline import WEIGHTS, pooled, r_and_mae
from unseen_atlas import ATLASES, study_on

from esn_core.connectome.atlas import load_atlas
from esn_core.learning.baselines.predictors import CompactDcnnRn, Cpm, EdgeRidge, PublishedDcnnRn
from esn_core.learning.baselines.published import PublishedNetwork

EPOCHS = (8, 20)


def objects_on(regions: int) -> int:
    """Return how many objects the published pooling leaves."""
    left = PublishedNetwork().eval().objects(torch.zeros(1, 1, regions, regions))
    return left.shape[2] * left.shape[3]


def one_world(atlas: str, seed: int, epochs: tuple[int, ...]) -> dict[str, float]:
    """Return r on all held-out children, by what predicts them."""
    study = study_on(atlas, seed=seed)
    training, held_out = pooled(study.training), study.held_out
    candidate = np.isin(np.arange(training.scores.shape[1]), study.candidates.edges)
    seen, new = (np.where(candidate, split.scores, 0.0) for split in (training, held_out))

    def r(said: NDArray[np.float64]) -> float:
        return r_and_mae(np.clip(said, 1, 7), held_out.gase)[0]

    rng = np.random.default_rng([seed, 1])
    ways = {
        "ridge": EdgeRidge(),
        "CPM": Cpm(),
        "compact": CompactDcnnRn(study.atlas, study.candidates, WEIGHTS),
    }
    found = {name: r(way.fit(seen, training.gase, rng=rng)(new)) for name, way in ways.items()}
    course = PublishedDcnnRn(study.atlas).course(seen, training.gase, rng=rng)
    for epoch, fitted in enumerate(islice(course, max(epochs)), start=1):
        if epoch in epochs:
            found[f"published, {epoch} epochs"] = r(fitted(new))
    return found


def as_markdown(said: dict[str, list[dict[str, float]]]) -> str:
    """Write one line for each atlas: means over worlds, and the smallest and largest."""
    columns = list(next(iter(said.values()))[0])
    lines = [
        f"| atlas, objects left by the pooling | {' | '.join(columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for atlas, worlds in said.items():
        cells = []
        for column in columns:
            each = [world[column] for world in worlds]
            cells.append(f"{np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})")
        left = objects_on(len(load_atlas(atlas).regions))
        lines.append(f"| `{atlas}`, {left} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7500)
    parser.add_argument("--atlas", action="append", choices=ATLASES, help="both unless given")
    parser.add_argument("--epochs", type=int, action="append", help="r after so many; 8 and 20 unless given")
    parser.add_argument("--write", action="store_true", help="put the table on the page")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    epochs, said = tuple(asked.epochs or EPOCHS), {}
    for atlas in asked.atlas or ATLASES:
        said[atlas] = []
        for index in range(asked.worlds):
            started = time.process_time()
            said[atlas].append(one_world(atlas, asked.seed + index, epochs))
            seconds = time.process_time() - started
            print(f"{atlas} world {index + 1}: {seconds:.0f} CPU s, {said[atlas][-1]}", file=sys.stderr)
    if asked.write:
        page.write("published_network.py", as_markdown(said))
    print(json.dumps(said, indent=1) if asked.json else as_markdown(said))


if __name__ == "__main__":
    main()
