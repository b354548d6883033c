"""What the connectome of the real subject becomes when its right temporal lobe is taken out.

    python tests/benchmarks/lobectomy.py WORK [--seeds 200000]

The lobe's labels and what lies between them are filled with fluid, in the raw scan; it is prepared from there
on as a hospital would, without a mask and with one. WORK keeps everything, the quality pages too.
"""

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import real_subject
from scipy.ndimage import binary_closing, distance_transform_edt

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.scan_files import ScanFiles
from esn_client.imaging.bids.scans import load_scan
from esn_client.imaging.bids.visits import segmentation_of
from esn_client.imaging.pipeline.reconstruction import reconstruct
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_client.imaging.stages import Stages
from esn_core.connectome.connectome import Connectome
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

ATLAS = "desikan-killiany-83"
LOBE = tuple(
    f"R_{name}"
    for name in (
        *("temporalpole", "superiortemporal", "middletemporal", "inferiortemporal", "bankssts"),
        *("transversetemporal", "fusiform", "entorhinal", "parahippocampal", "hippocampus", "amygdala"),
    )
)
REACH_MM = 5.0
FLUID_MM2_PER_S = 3.0e-3
NOISE = 10.5
"""Sd of the subject's noise, as estimated by MRtrix3's dwidenoise (docs/benchmarks.md)."""


def files_of(bids: Path) -> ScanFiles:
    """Return the files of a dataset of one visit."""
    dataset = Dataset(bids)
    (visit,) = dataset.visits(None, None)
    return dataset.files(visit, segmentation=segmentation_of(ATLAS))


def prepared(bids: Path, work: Path, recipe: ImagingRecipe) -> tuple[Connectome, dict[str, object]]:
    """Prepare a dataset of one subject; return its connectome and record."""
    files = files_of(bids)
    prepare_subject(files, Making(bids, work / "out", recipe, work / "stages", keep_work=True, pages=True))
    derivative = Derivative(work / "out", files.visit, recipe)
    return derivative.read_connectome(), derivative.read_record()


def cavity_of(bids: Path, work: Path, recipe: ImagingRecipe) -> np.ndarray:
    """Return where the lobe is, on the scan's grid: its labels, and what lies between them."""
    files = files_of(bids)
    scan = load_scan(files, atlas=recipe.parcellation, recipe=recipe)
    made = reconstruct(scan, recipe, stages=Stages(work / "stages" / files.visit.label))
    numbers = [recipe.parcellation.names.index(name) for name in LOBE]
    ours = np.isin(made.labels, [recipe.parcellation.regions[k].index for k in numbers])
    others = (made.labels > 0) & ~ours
    near = distance_transform_edt(~ours, sampling=scan.voxel_size_mm) <= REACH_MM
    return binary_closing(near & ~others, iterations=3) & ~others


def take_out(whole: real_subject.RealSubject, cavity: np.ndarray, bids: Path, *, mask: bool) -> Path:
    """Write the subject with fluid where the lobe was."""
    name = real_subject.SUBJECT
    stem = bids / name / "dwi" / f"{name}_dwi"
    stem.parent.mkdir(parents=True, exist_ok=True)
    image, b = nib.load(whole.dwi), np.loadtxt(whole.bval)
    signal = np.asarray(image.dataobj).astype(np.float32)
    bright = np.quantile(signal[..., b <= 50].mean(axis=3)[cavity], 0.95)
    rng = np.random.default_rng(1)
    for volume, b_value in enumerate(b):
        parts = rng.normal(0, NOISE, (2, int(cavity.sum())))
        parts[0] += bright * np.exp(-b_value * FLUID_MM2_PER_S)
        signal[..., volume][cavity] = np.hypot(*parts)
    nib.save(nib.Nifti1Image(signal.astype(np.int16), image.affine), f"{stem}.nii.gz")
    for kind, file in (("bval", whole.bval), ("bvec", whole.bvec)):
        stem.with_suffix(f".{kind}").write_bytes(file.read_bytes())
    described = {"Name": "after a lobectomy", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (bids / "dataset_description.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    if mask:
        masks = bids / "derivatives" / "masks"
        path = masks / name / "dwi" / f"{name}_label-resection_mask.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(cavity.astype(np.uint8), image.affine), path)
        described |= {"DatasetType": "derivative", "GeneratedBy": [{"Name": "drawn by hand"}]}
        (masks / "dataset_description.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    return bids


def main() -> None:
    """Compare the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=200_000)
    asked = parser.parse_args()
    recipe = ImagingRecipe(**recipe_settings(ATLAS) | {"seeds": asked.seeds})
    whole = real_subject.fetch(asked.work / "bids")
    before, _ = prepared(whole.bids, asked.work / "whole", recipe)
    cavity = cavity_of(whole.bids, asked.work / "whole", recipe)
    names = recipe.parcellation.names
    found: dict[str, object] = {"cavity_ml": round(float(cavity.sum()) * 2.4**3 / 1000, 1)}
    for mask in (False, True):
        place = asked.work / ("marked" if mask else "unmarked")
        after, record = prepared(take_out(whole, cavity, place / "bids", mask=mask), place, recipe)
        absent = tuple(record["RegionsWithoutTissue"])
        left = {
            name: round(float(np.nansum(after.counts[k]) / before.counts[k].sum()), 2)
            for k, name in enumerate(names)
            if name in LOBE and name not in absent
        }
        # Edges that neither end in the lobe: they should be as they were.
        kept = [k for k, name in enumerate(names) if name not in {*LOBE, *absent}]
        ends = np.triu_indices(len(kept), 1)
        pair = [np.log1p(x.counts[np.ix_(kept, kept)][ends]) for x in (before, after)]
        found["marked" if mask else "unmarked"] = {
            "without_tissue": [name for name in LOBE if name in absent],
            "without_tissue_elsewhere": [name for name in absent if name not in LOBE],
            "streamlines_left_of_the_others": left,
            "r_of_edges_elsewhere": round(float(np.corrcoef(*pair)[0, 1]), 3),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
