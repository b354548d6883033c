"""Write the simulated template of edge strengths of desikan-killiany-83: for rehearsals and demos alone.

    python tests/golden/make_simulated_template.py [--controls N] [--seed S]

No public template of real scans exists for this atlas (decision 0044). This one
is estimated from simulated controls of the atlas's own anatomy, on a scanner
that no simulated hospital has; a protocol whose children are real cannot use it.
"""

import argparse
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import TEMPLATE_COLUMNS
from esn_core.simulation.consortium import public_template

ATLAS = "desikan-killiany-83"
ATLASES = Path(__file__).parents[2] / "esn_core" / "connectome" / "atlases"


def main() -> None:
    """Draw, estimate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controls", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20261125)
    arguments = parser.parse_args()
    atlas = load_atlas(ATLAS)
    rng = np.random.default_rng(arguments.seed)
    template = public_template(atlas, rng=rng, controls=arguments.controls)
    lines = ["\t".join(TEMPLATE_COLUMNS)]
    for e, (a, b) in enumerate(atlas.edges):
        numbers = (template.mean[e], template.sd[e], template.age_slope[e], template.sex_slope[e])
        said = [f"{number:.6f}" for number in numbers]
        lines.append("\t".join([atlas.names[a], atlas.names[b], *said, str(int(template.present[e]))]))
    table = "\n".join(lines) + "\n"
    (ATLASES / f"{ATLAS}.simulated-template.tsv").write_text(table, encoding="utf-8")
    provenance = {
        "Command": (
            f"python tests/golden/make_simulated_template.py --controls {arguments.controls} "
            f"--seed {arguments.seed}"
        ),
        "Date": datetime.now(UTC).date().isoformat(),
        "Origin": "simulated controls; no person stands behind these numbers",
        "Controls": arguments.controls,
        "PresentEdges": int(template.present.sum()),
        "AtlasSha256": atlas.sha256,
        "Sha256": hashlib.sha256(table.encode()).hexdigest(),
        "Software": {name: version(name) for name in ("esn-federated", "numpy")},
    }
    path = ATLASES / f"{ATLAS}.simulated-template.json"
    path.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
