"""Make the public template of atlas phantom-28 from simulated controls of another world and scanner.

Usage: python tests/golden/make_phantom_template.py [--controls 24] [--seed 20251122] [--n-procs 2]

Writes esn_core/connectome/atlases/phantom-28.simulated-template.tsv, and the .json beside it with where it
came from. The recipe is esn_core/connectome/atlases/phantom-28.recipe.toml: a template holds for the recipe
that made it.
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
from numpy.typing import NDArray

from esn_client.imaging.bids.derivatives import load_connectome
from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.imaging.provenance import versions_of_software
from esn_client.simulation.presets import SitePreset
from esn_client.simulation.scans import ATLAS, write_dataset
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import REFERENCE_AGE_YEARS, TEMPLATE_COLUMNS, edge_strengths
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.simulation.cohort import draw_site
from esn_core.simulation.world import World

PUBLIC_SCANNER = SitePreset("RAS", 36, None, 4, 1000.0, 35.0, 30.0, 0.05)
LEAST_STREAMLINES = 10.0
"""An edge is present if it has this many on average, and at least one in nine subjects of ten."""
PRIOR_SUBJECTS = 12
"""The pooled variance weighs as much as this many subjects in each edge's own."""
ATLASES = Path(__file__).parents[2] / "esn_core" / "connectome" / "atlases"

Floats = NDArray[np.float64]


def shrink(slopes: Floats, standard_errors: Floats, present: NDArray[np.bool_]) -> Floats:
    """Draw slopes to their mean over the present edges (empirical Bayes, normal and normal)."""
    mean = slopes[present].mean()
    spread = max(slopes[present].var() - np.mean(standard_errors[present] ** 2), 0.0)
    return mean + (slopes - mean) * spread / (spread + standard_errors**2)


def estimate(strengths: Floats, counts: Floats, age_years: Floats, male: Floats) -> dict[str, Floats]:
    """Regress each edge's strength on age and sex, and shrink what few subjects cannot tell."""
    present = (counts.mean(axis=0) >= LEAST_STREAMLINES) & ((counts > 0).mean(axis=0) >= 0.9)
    # The gain of a whole scan is no property of an edge, and does not enter its sd.
    gain = np.median((strengths - strengths.mean(axis=0))[:, present], axis=1, keepdims=True)
    strengths = strengths - (gain - gain.mean())
    design = np.column_stack([np.ones_like(age_years), age_years - REFERENCE_AGE_YEARS, male - 0.5])
    solution = np.linalg.lstsq(design, strengths)[0]
    residual = strengths - design @ solution
    freedom = len(age_years) - design.shape[1]
    own = (residual**2).sum(axis=0) / freedom
    pooled = own[present].mean()
    variance = (freedom * own + PRIOR_SUBJECTS * pooled) / (freedom + PRIOR_SUBJECTS)
    errors = np.sqrt(np.outer(np.diag(np.linalg.inv(design.T @ design)), variance))
    age_slope, sex_slope = (shrink(solution[k], errors[k], present) for k in (1, 2))
    centre = design[:, 1:].mean(axis=0)
    mean = strengths.mean(axis=0) - centre[0] * age_slope - centre[1] * sex_slope
    return {
        "mean": mean,
        "sd": np.sqrt(variance),
        "age_slope": age_slope,
        "sex_slope": sex_slope,
        "present": present.astype(np.float64),
    }


def main() -> None:
    """Simulate, prepare, estimate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controls", type=int, default=24)
    parser.add_argument("--seed", type=int, default=20251122)
    parser.add_argument("--n-procs", type=int, default=2)
    arguments = parser.parse_args()
    atlas = load_atlas(ATLAS)
    recipe = ImagingRecipe(**tomllib.loads((ATLASES / f"{ATLAS}.recipe.toml").read_text(encoding="utf-8")))
    rng = np.random.default_rng(arguments.seed)
    world = World.draw(atlas, rng=rng)
    subjects = draw_site(world, children=0, controls=arguments.controls, rng=rng)
    with tempfile.TemporaryDirectory() as work:
        bids, out = Path(work, "bids"), Path(work, "out")
        write_dataset(
            bids,
            subjects,
            atlas=atlas,
            preset=PUBLIC_SCANNER,
            name="public",
            seed=arguments.seed,
            n_procs=arguments.n_procs,
        )
        failures = prepare(bids, out, recipe, participants=None, n_procs=arguments.n_procs)
        if failures:
            sys.exit(f"{len(failures)} subjects failed; the first: {failures[0]}")
        connectomes = [load_connectome(out, subject.participant, recipe) for subject in subjects]
    upper = tuple(atlas.edges.T)
    columns = estimate(
        np.array([edge_strengths(connectome) for connectome in connectomes]),
        np.array([connectome.counts[upper] for connectome in connectomes]),
        np.array([subject.age_years for subject in subjects]),
        np.array([subject.sex == "M" for subject in subjects], dtype=np.float64),
    )
    lines = ["\t".join(TEMPLATE_COLUMNS)]
    for e, (a, b) in enumerate(atlas.edges):
        numbers = [f"{columns[c][e]:.6f}" for c in TEMPLATE_COLUMNS[2:-1]]
        lines.append("\t".join([atlas.names[a], atlas.names[b], *numbers, f"{columns['present'][e]:.0f}"]))
    table = "\n".join(lines) + "\n"
    (ATLASES / f"{ATLAS}.simulated-template.tsv").write_text(table, encoding="utf-8")
    provenance = {
        "Command": (
            f"python tests/golden/make_phantom_template.py --controls {arguments.controls} "
            f"--seed {arguments.seed}"
        ),
        "Date": datetime.now(UTC).date().isoformat(),
        "Origin": "simulated controls; no person stands behind these numbers",
        "Controls": arguments.controls,
        "PresentEdges": int(columns["present"].sum()),
        "AtlasSha256": atlas.sha256,
        "RecipeSha256": recipe.sha256,
        "Sha256": hashlib.sha256(table.encode()).hexdigest(),
        "Software": {"esn-federated": version("esn-federated"), **versions_of_software()},
    }
    (ATLASES / f"{ATLAS}.simulated-template.json").write_text(
        json.dumps(provenance, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
