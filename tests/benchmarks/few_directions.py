"""What is left of a whole scan's connectome with fewer directions: the real subject with 32, 20 and 15 of 64.

Usage: python tests/benchmarks/few_directions.py WORK [--seeds 200000] [--json]

WORK keeps the subject, its subsets and every stage: a second call goes on where the first one was. A subset
is two b0s and the directions that are spread best, prepared from the raw scan on as a hospital would, by the
recipe that its number allows.
"""

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import real_subject

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit, segmentation_of
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

ATLAS = "desikan-killiany-83"
SUBSETS = (32, 20, 15)
LEAST_OF_THE_USUAL = 28
B0S = 2


def spread(directions: np.ndarray, count: int) -> np.ndarray:
    """Choose directions one after the other, each as far as can be from those before and their opposites."""
    chosen = [0]
    while len(chosen) < count:
        nearest = np.abs(directions @ directions[chosen].T).max(axis=1)
        nearest[chosen] = 2.0
        chosen.append(int(nearest.argmin()))
    return np.array(sorted(chosen))


def write_subset(whole: real_subject.RealSubject, directory: Path, count: int) -> Path:
    """Write a dataset of the subject with fewer directions."""
    name = f"sub-{count}"
    stem = directory / name / "dwi" / f"{name}_dwi"
    stem.parent.mkdir(parents=True, exist_ok=True)
    b, vectors = np.loadtxt(whole.bval), np.loadtxt(whole.bvec)
    weighted = np.flatnonzero(b > 50)
    kept = np.sort(np.r_[np.flatnonzero(b <= 50)[:B0S], weighted[spread(vectors[:, weighted].T, count)]])
    image = nib.load(whole.dwi)
    nib.save(
        nib.Nifti1Image(np.asarray(image.dataobj)[..., kept], image.affine, image.header), f"{stem}.nii.gz"
    )
    np.savetxt(stem.with_suffix(".bval"), b[None, kept], fmt="%g")
    np.savetxt(stem.with_suffix(".bvec"), vectors[:, kept], fmt="%.6f")
    description = {"Name": f"{count} directions", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (directory / "dataset_description.json").write_text(json.dumps(description) + "\n", encoding="utf-8")
    return directory


def strengths(bids: Path, work: Path, *, scan: str, seeds: int, random_seed: int) -> np.ndarray:
    """Prepare a dataset of one subject, and give the logarithms of its edges' counts."""
    settings = recipe_settings(ATLAS, scan=scan) | {"seeds": seeds, "random_seed": random_seed}
    recipe = ImagingRecipe(**settings)
    dataset = Dataset(bids)
    (visit,) = dataset.visits(None, None)
    out = work / "out" / f"{scan}-{seeds}-{random_seed}"
    files = dataset.files(visit, segmentation=segmentation_of(ATLAS))
    prepare_subject(files, Making(bids, out, recipe, work / "stages", keep_work=True, pages=False))
    counts = Derivative(out, Visit(visit.participant, visit.session), recipe).read_connectome().counts
    return np.log1p(counts[np.triu_indices(len(counts), k=1)])


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    whole = real_subject.fetch(asked.work / "bids")
    settings = {"work": asked.work, "seeds": asked.seeds}
    reference = strengths(whole.bids, scan="usual", random_seed=12345, **settings)
    found = {
        "64, another random seed": strengths(whole.bids, scan="usual", random_seed=54321, **settings),
        "64, order 4": strengths(whole.bids, scan="few-directions", random_seed=54321, **settings),
    }
    for count in SUBSETS:
        bids = write_subset(whole, asked.work / f"bids-{count}", count)
        for scan in ("usual", "few-directions") if count >= LEAST_OF_THE_USUAL else ("few-directions",):
            order = recipe_settings(ATLAS, scan=scan)["sh_order_max"]
            found[f"{count}, order {order}"] = strengths(bids, scan=scan, random_seed=54321, **settings)
    r = {name: round(float(np.corrcoef(reference, other)[0, 1]), 4) for name, other in found.items()}
    if asked.json:
        print(json.dumps({"seeds": asked.seeds, "r_with_64_directions_of_order_6": r}, indent=2))
    else:
        for name, value in r.items():
            print(f"{name:28s} {value:.3f}")


if __name__ == "__main__":
    main()
