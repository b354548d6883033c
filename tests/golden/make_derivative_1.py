"""Make a connectome as the code did before steps had versions: derivative format 1, version 1 of each.

Usage: python tests/golden/make_derivative_1.py [--commit 7257ccb]

Writes tests/golden/derivative: what ``esn-client prepare`` of that commit makes of the first of two children
that it draws (site north, seed 8, 1500 seeds), taken from git into a temporary folder. provenance.json says
with what.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

GOLDEN = Path(__file__).parent / "derivative"
PREPARE = """
import sys, tomllib
from importlib.resources import files
from pathlib import Path
from esn_client.imaging.pipeline import prepare
from esn_client.imaging.simulated_site import write_site
from esn_core.recipe import ImagingRecipe

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_site(folder / "bids", site="north", seed=8, children=2, controls=0, truth=None)
    settings = tomllib.loads(files("esn_core").joinpath("atlases", "phantom-28.recipe.toml").read_text())
    recipe = ImagingRecipe(**(settings | {"seeds": 1500}))
    failures = prepare(
        folder / "bids", folder / "out", recipe, participants=["001"], n_procs=1, pages=False
    )
    sys.exit(str(failures[0]) if failures else 0)
"""


def main() -> None:
    """Write the golden connectome."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--commit", default="7257ccb")
    commit = parser.parse_args().commit
    packed = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as temporary:
        code, folder = Path(temporary, "code"), Path(temporary, "site")
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(code, filter="data")
        script = Path(temporary, "prepare.py")
        script.write_text(PREPARE)
        path = os.pathsep.join(str(code / part) for part in ("", "client", "server"))
        subprocess.run([sys.executable, script, folder], check=True, env=os.environ | {"PYTHONPATH": path})
        shutil.rmtree(GOLDEN, ignore_errors=True)
        shutil.copytree(folder / "out" / "sub-001", GOLDEN / "sub-001")
    written = sorted(path for path in GOLDEN.rglob("*") if path.is_file())
    provenance = {
        "Command": f"python tests/golden/make_derivative_1.py --commit {commit}",
        "Date": datetime.now(UTC).date().isoformat(),
        "Origin": "a simulated child; no person stands behind these numbers",
        "Sha256": {
            path.relative_to(GOLDEN).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in written
        },
    }
    (GOLDEN / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
