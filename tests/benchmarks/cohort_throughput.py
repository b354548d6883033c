"""How much sooner a cohort is prepared by two processes than by one.

Usage: python tests/benchmarks/cohort_throughput.py [--subjects 24] [--json]

The subjects are simulated ones of the demo's size; the seconds are those of `esn-client prepare` as a whole,
from the index of the dataset to the last connectome, without pages. Run it on a quiet machine.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import tomllib
from importlib.resources import files
from pathlib import Path

from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.simulation.scans import write_site
from esn_core.protocol.imaging_recipe import ImagingRecipe


def main() -> None:
    """Simulate a cohort, prepare it both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    text = (files("esn_core.connectome") / "atlases" / "phantom-28.recipe.toml").read_text(encoding="utf-8")
    recipe = ImagingRecipe(**tomllib.loads(text))
    with tempfile.TemporaryDirectory() as folder:
        bids = Path(folder, "bids")
        write_site(bids, site="north", seed=1, children=asked.subjects, controls=0, truth=None, n_procs=2)
        seconds = {}
        for processes in (1, 2):
            begin = time.perf_counter()
            out = Path(folder, f"out-{processes}")
            failures = prepare(bids, out, recipe, participants=None, n_procs=processes, pages=False)
            seconds[processes] = round(time.perf_counter() - begin, 2)
            if failures:
                sys.exit(f"{len(failures)} subjects failed; the first: {failures[0]}")
    found = {
        "subjects": asked.subjects,
        "one_process_s": seconds[1],
        "two_processes_s": seconds[2],
        "speedup": round(seconds[1] / seconds[2], 3),
        "load_before": round(os.getloadavg()[2], 2),
    }
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{asked.subjects} subjects: {seconds[1]:.1f} s with one process, {seconds[2]:.1f} s with two: ",
        end="",
    )
    print(f"{found['speedup']:.2f} times as fast (load of the machine {found['load_before']})")


if __name__ == "__main__":
    main()
