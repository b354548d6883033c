"""Measure what the imaging pipeline makes of phantoms' bundles, scanner by scanner.

    python tests/golden/make_phantom_tracking.py [--children 20] [--controls 4] [--seed N] [--n-procs 2]

Simulates scans of another world for each scanner, prepares them by the shipped recipe, and regresses each
edge's strength on its log share: one slope for all scanners, a mean for each. Writes
esn_core/simulation/phantom-28.tracking.tsv, and a .json with where it came from.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from esn_client.imaging.bids.derivatives import load_connectome
from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.imaging.provenance import SOFTWARE
from esn_client.simulation.presets import SITES
from esn_client.simulation.scans import generator, write_dataset
from esn_core.arrays import Floats
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import strengths_of_counts
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.simulation.cohort import draw_site
from esn_core.simulation.tracking import ATLAS, TABLE, log_shares
from esn_core.simulation.world import World

RECIPE = Path(__file__).parents[2] / "esn_core" / "connectome" / "atlases" / f"{ATLAS}.recipe.toml"


def measured(scanner: str, asked: argparse.Namespace, recipe: ImagingRecipe) -> tuple[Floats, Floats]:
    """Scan and prepare one world's subjects; return their (n, E) log shares and strengths."""
    atlas = load_atlas(ATLAS)
    world = World.draw(atlas, rng=generator(asked.seed, scanner, "world"))
    subjects = draw_site(
        world, children=asked.children, controls=asked.controls, rng=generator(asked.seed, scanner)
    )
    with tempfile.TemporaryDirectory() as work:
        bids, out = Path(work, "bids"), Path(work, "out")
        write_dataset(
            bids,
            subjects,
            atlas=atlas,
            preset=SITES[scanner],
            name=scanner,
            seed=asked.seed,
            n_procs=asked.n_procs,
        )
        failures = prepare(bids, out, recipe, participants=None, n_procs=asked.n_procs, pages=False)
        if failures:
            sys.exit(f"{len(failures)} subjects failed; the first: {failures[0]}")
        counts = [load_connectome(out, s.participant, recipe).counts[tuple(atlas.edges.T)] for s in subjects]
    return log_shares(np.array([s.log_weights for s in subjects])), strengths_of_counts(np.array(counts))


def fitted(found: dict[str, tuple[Floats, Floats]]) -> dict[str, Floats]:
    """Fit one line for each edge, parallel over scanners; return the table's columns."""
    middle = np.mean([shares.mean(axis=0) for shares, _ in found.values()], axis=0)
    within = [(x - x.mean(axis=0), y - y.mean(axis=0)) for x, y in found.values()]
    xx = sum((x * x).sum(axis=0) for x, _ in within)
    slope = sum((x * y).sum(axis=0) for x, y in within) / xx
    subjects = sum(len(x) for x, _ in within)
    squares = sum(((y - slope * x) ** 2).sum(axis=0) for x, y in within)
    sd = np.sqrt(squares / (subjects - len(within) - 1))
    means = {name: y.mean(axis=0) - slope * (x.mean(axis=0) - middle) for name, (x, y) in found.items()}
    return {"log_share": middle, "slope": slope, "sd": sd, **means}


def main() -> None:
    """Simulate, prepare, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--children", type=int, default=20)
    parser.add_argument("--controls", type=int, default=4)
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--n-procs", type=int, default=2)
    asked = parser.parse_args()
    atlas = load_atlas(ATLAS)
    recipe = ImagingRecipe.model_validate(tomllib.loads(RECIPE.read_text(encoding="utf-8")))
    columns = fitted({scanner: measured(scanner, asked, recipe) for scanner in SITES})
    lines = ["\t".join(["region_a", "region_b", *columns])]
    for e, (a, b) in enumerate(atlas.edges):
        numbers = [f"{column[e]:.4f}" for column in columns.values()]
        lines.append("\t".join([atlas.names[a], atlas.names[b], *numbers]))
    text = "\n".join(lines) + "\n"
    TABLE.write_text(text, encoding="utf-8")
    provenance = {
        "What": "Edge strengths that the pipeline found in simulated scans, by the bundles' log shares",
        "Command": (
            f"python tests/golden/make_phantom_tracking.py --children {asked.children} "
            f"--controls {asked.controls} --seed {asked.seed}"
        ),
        "Date": datetime.now(UTC).date().isoformat(),
        "Scanners": list(SITES),
        "SubjectsOfEach": asked.children + asked.controls,
        "AtlasSha256": atlas.sha256,
        "RecipeSha256": recipe.sha256,
        "Sha256": hashlib.sha256(text.encode()).hexdigest(),
        "Software": {name: version(name) for name in SOFTWARE},
    }
    TABLE.with_suffix(".json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
