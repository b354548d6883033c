"""CPU seconds of one real subject, from its raw scan to connectome and page, by the shipped clinical recipe.

Usage: python tests/benchmarks/whole_subject.py DIRECTORY [--seeds N] [--json]

DIRECTORY keeps the subject. Run it in two trees at once to compare them: both then share the machine alike,
and the ratio holds where the seconds do not. What numba compiles is compiled in a first run of few seeds.
"""

import os

# Before numpy is imported: as `esn-client prepare` starts its workers, who would else wait for each other.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import real_subject

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import segmentation_of
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

ATLAS = "desikan-killiany-83"
FEW_SEEDS = 2000


def prepare(bids: Path, *, seeds: int, stages: Path) -> dict[str, float]:
    """Prepare the subject in a new place, and give the CPU seconds of each stage and of all."""
    recipe = ImagingRecipe(**recipe_settings(ATLAS) | {"seeds": seeds})
    dataset = Dataset(bids)
    (visit,) = dataset.visits(None, None)
    files = dataset.files(visit, segmentation=segmentation_of(ATLAS))
    out = stages / f"out-{seeds}"
    begin = time.process_time()
    prepare_subject(files, Making(bids, out, recipe, stages / "work", keep_work=False, pages=True))
    took = time.process_time() - begin
    record = json.loads(Derivative(out, visit, recipe).record.read_text(encoding="utf-8"))
    found = {stage["Name"]: round(stage["CpuSeconds"], 1) for stage in record["Stages"]}
    return {
        **found,
        "reading, checks, matrices, page": round(took - sum(found.values()), 1),
        "all": round(took, 1),
    }


def main() -> None:
    """Measure."""
    start = time.process_time()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    bids = real_subject.fetch(asked.directory).bids
    stages = Path(tempfile.mkdtemp())
    try:
        prepare(bids, seeds=FEW_SEEDS, stages=stages)
        found = {"import": round(start, 1), **prepare(bids, seeds=asked.seeds, stages=stages)}
    finally:
        shutil.rmtree(stages)
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        for name, seconds in found.items():
            print(f"{name:34s} {seconds:6.1f}")


if __name__ == "__main__":
    main()
