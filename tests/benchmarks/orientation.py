"""The same brain stored in other orientations: does it give the same connectome?

The scan is written anew with its axes flipped or permuted, its gradients as FSL's rule for that storage asks,
and read again. Log connectomes of two storages should agree as well as two runs of one.

Usage: python tests/benchmarks/orientation.py [--json] [--seeds N] [--work DIRECTORY]
"""

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import real_subject
from mrtrix_comparison import ORDER, correlate, lay_labels, reconstruct
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from esn_client.imaging.preprocessing.gradient_table import read_gradients
from esn_client.imaging.preprocessing.table_files import TableFiles

STORAGES = ("LAS", "RAS", "PSR")
TOLERANCE = 0.02


def store(image: nib.Nifti1Image, bvec: Path, codes: str, out: Path) -> nib.Nifti1Image:
    """Write a scan with other voxel axes; ``out`` gets the image's and the vectors' suffix."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
    stored = image.as_reoriented(change)
    vectors = np.loadtxt(bvec)
    # FSL's rule, undone for the old storage and applied to the new one (FDT user guide).
    along_old = vectors * np.array([[-1.0 if np.linalg.det(image.affine) > 0 else 1.0], [1.0], [1.0]])
    turn = inv_ornt_aff(change, image.shape[:3])[:3, :3]
    along_new = turn.T @ along_old
    along_new[0] *= -1.0 if np.linalg.det(stored.affine) > 0 else 1.0
    np.savetxt(out.with_suffix(".bvec"), along_new)
    nib.save(stored, out.with_suffix(".nii"))
    return stored


def main() -> None:
    """Reconstruct from each storage, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=200_000)
    parser.add_argument("--work", type=Path, default=Path("runs/orientation"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    try:
        subject = real_subject.fetch(asked.work / "bids")
    except real_subject.UnavailableError as error:
        raise SystemExit(f"the real subject cannot be fetched: {error}") from None
    image = nib.load(subject.dwi)
    laid = [nib.load(path) for path in lay_labels(asked.work, subject)]
    counts, again = {}, None
    for number, codes in enumerate(STORAGES):
        stem = asked.work / codes
        stored = store(image, subject.bvec, codes, stem)
        change = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
        labels, start = (np.asarray(volume.as_reoriented(change).dataobj) for volume in laid)
        files = TableFiles(subject.bval, stem.with_suffix(".bvec"), stored.shape[3])
        shell = read_gradients([files], affine=stored.affine, sh_order_max=ORDER)
        scan = asked.work / f"{codes}.npz"
        np.savez(
            scan,
            signal=np.asarray(stored.dataobj, dtype=np.float32),
            labels=labels.astype(np.int64),
            start=start > 0,
            voxel_size_mm=np.array(stored.header.get_zooms()[:3], dtype=np.float64),
            b_values=shell.gradients.b_values_s_per_mm2,
            directions=shell.gradients.directions,
        )
        counts[codes] = reconstruct(scan, seeds=asked.seeds, random_seed=number + 1, denoise="none")[1]
        if again is None:
            again = reconstruct(scan, seeds=asked.seeds, random_seed=99, denoise="none")[1]
    first, *others = STORAGES
    retest = correlate(counts[first], again)
    result = {
        "seeds": asked.seeds,
        "test_retest_r": round(retest, 4),
        **{f"{first}_{other}_r": round(correlate(counts[first], counts[other]), 4) for other in others},
    }
    reached = all(result[f"{first}_{other}_r"] >= retest - TOLERANCE for other in others)
    if asked.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:20}{value:>12}")
        print("reaches" if reached else "misses", f"test_retest_r - {TOLERANCE}")


if __name__ == "__main__":
    main()
