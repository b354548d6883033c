"""The whole way from a scan to a connectome beside MRtrix3's: CPU seconds, memory, and how well they agree.

One real subject, the same data, labels, places to start in and limits of length for both, one thread each.
Needs Debian's package: apt-get install -y mrtrix3. MRtrix3's tracking takes half an hour.

Usage: python tests/benchmarks/mrtrix_comparison.py [--json] [--seeds N] [--reuse] [--work DIRECTORY]

``--reuse`` takes what an earlier run of the same MRtrix3 command made and measured; the table says so.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import real_subject
from mrtrix import MRtrix, is_installed, version
from numpy.typing import NDArray
from our_stages import ATLAS

from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.preprocessing.gradient_table import read_gradients
from esn_client.imaging.preprocessing.table_files import TableFiles
from esn_client.imaging.regions.registration import register_atlas
from esn_client.imaging.tracking.tracking import find_seeds
from esn_core.connectome.atlas import load_atlas

ORDER = 8
SEED_FA, SEED_DEPTH_VOXELS = 0.2, 2
BARS = {
    "cpu_ratio": (">=", 10.0),
    "log_connectome_r": (">=", 0.91),
    "test_retest_r": (">=", 0.98),
    "assigned_fraction": (">=", 0.70),
    "peak_memory_gib": ("<=", 2.5),
}


def correlate(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's r of log1p counts above the diagonal."""
    upper = np.triu_indices(len(a), k=1)
    return float(np.corrcoef(np.log1p(a[upper]), np.log1p(b[upper]))[0, 1])


def lay_labels(work: Path, subject: real_subject.RealSubject) -> tuple[Path, Path]:
    """Lay the atlas over the subject and choose where to start, unless that was done before."""
    labels, start = work / "labels.nii", work / "seeds.nii"
    if not (labels.exists() and start.exists()):
        image = nib.load(subject.dwi)
        signal = np.asarray(image.dataobj, dtype=np.float32)
        files = TableFiles(subject.bval, subject.bvec, signal.shape[3])
        shell = read_gradients([files], affine=image.affine, sh_order_max=ORDER)
        maps = fit_tensor(signal, shell.gradients)
        laid = register_atlas(maps.fa, maps.mask, image.affine, atlas=load_atlas(ATLAS))
        if laid.missing:
            raise SystemExit(f"the atlas laid over the subject lacks {', '.join(laid.missing)}")
        seeds = find_seeds(maps.fa, maps.mask, threshold=SEED_FA, depth_voxels=SEED_DEPTH_VOXELS)
        nib.save(nib.Nifti1Image(laid.labels.astype(np.int16), image.affine), labels)
        nib.save(nib.Nifti1Image(seeds.astype(np.uint8), image.affine), start)
    return labels, start


def lay_out(work: Path) -> Path:
    """Write the scan, the labels and where to start for both programs."""
    subject = real_subject.fetch(work / "bids")
    labels, start = (np.asarray(nib.load(path).dataobj) for path in lay_labels(work, subject))
    image = nib.load(subject.dwi)
    signal = np.asarray(image.dataobj, dtype=np.float32)
    files = TableFiles(subject.bval, subject.bvec, signal.shape[3])
    gradients = read_gradients([files], affine=image.affine, sh_order_max=ORDER).gradients
    nib.save(nib.Nifti1Image(signal, image.affine), work / "dwi.nii")
    for source in (subject.bval, subject.bvec):
        (work / f"dwi{source.suffix}").write_bytes(source.read_bytes())
    scan = work / "scan.npz"
    np.savez(
        scan,
        signal=signal,
        labels=labels.astype(np.int64),
        start=start > 0,
        voxel_size_mm=np.array(image.header.get_zooms()[:3], dtype=np.float64),
        b_values=gradients.b_values_s_per_mm2,
        directions=gradients.directions,
    )
    return scan


def reconstruct(
    scan: Path, *, seeds: int, random_seed: int, denoise: str
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Run our stages in a process of their own; give what they took and the counts."""
    result = scan.with_name(f"ours-{random_seed}.npz")
    script = Path(__file__).with_name("our_stages.py")
    asked = ["--seeds", str(seeds), "--random-seed", str(random_seed), "--denoise", denoise]
    done = subprocess.run(
        [sys.executable, script, scan, result, *asked],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    with np.load(result) as made:
        return json.loads(done.stdout), made["counts"]


def compare(work: Path, *, seeds: int, reuse: bool) -> dict[str, Any]:
    """Run both programs and compare what they made."""
    scan = lay_out(work)
    mrtrix = MRtrix(work, reuse=reuse)
    mrtrix.reconstruct(seeds=seeds, random_seed=1)
    theirs, theirs_assigned = mrtrix.connect("labels.nii", seeds=seeds)
    ours, counts = reconstruct(scan, seeds=seeds, random_seed=1, denoise="patch2self")
    _, again = reconstruct(scan, seeds=seeds, random_seed=2, denoise="patch2self")
    # Everything but denoising, the start of the interpreter included.
    our_cpu_s = ours["cpu_s"] - ours["stages"]["denoise"]
    their_cpu_s = sum(cost.cpu_s for stage, cost in mrtrix.costs.items() if stage != "denoise")
    return {
        "cpu_ratio": round(their_cpu_s / our_cpu_s, 1),
        "cpu_ratio_with_denoising": round((their_cpu_s + mrtrix.costs["denoise"].cpu_s) / ours["cpu_s"], 1),
        "log_connectome_r": round(correlate(counts, theirs), 4),
        "test_retest_r": round(correlate(counts, again), 4),
        "assigned_fraction": round(ours["assigned_fraction"], 4),
        "assigned_fraction_mrtrix": round(theirs_assigned, 4),
        "peak_memory_gib": ours["peak_memory_gib"],
        "peak_memory_gib_mrtrix": max(cost.peak_memory_gib for cost in mrtrix.costs.values()),
        "seeds": seeds,
        "streamlines": ours["streamlines"],
        "mrtrix": version(),
        "atlas": ATLAS,
        "stages": {
            "ours": {**ours["stages"], "total": ours["cpu_s"]},
            "mrtrix": {stage: asdict(cost) for stage, cost in mrtrix.costs.items()},
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the figures as a table for people."""
    print(f"{result['seeds']:,} seeds, {result['atlas']}, {result['mrtrix']}\n")
    print(f"{'stage':28}{'ours, CPU s':>14}")
    for stage, seconds in result["stages"]["ours"].items():
        print(f"{stage:28}{seconds:14.1f}")
    print(f"\n{'stage':28}{'MRtrix3, CPU s':>14}{'peak GiB':>10}")
    for stage, cost in result["stages"]["mrtrix"].items():
        note = "  measured earlier" if cost["reused"] else ""
        print(f"{stage:28}{cost['cpu_s']:14.1f}{cost['peak_memory_gib']:10.2f}{note}")
    print()
    for name, (sign, bar) in BARS.items():
        reached = result[name] >= bar if sign == ">=" else result[name] <= bar
        print(f"{name:28}{result[name]:14}   {'reaches' if reached else 'misses'} {sign} {bar:g}")


def main() -> None:
    """Compare, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=1_000_000)
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/mrtrix-comparison"))
    asked = parser.parse_args()
    if not is_installed():
        raise SystemExit("MRtrix3 is not installed: apt-get install -y mrtrix3")
    asked.work.mkdir(parents=True, exist_ok=True)
    try:
        result = compare(asked.work, seeds=asked.seeds, reuse=asked.reuse)
    except real_subject.UnavailableError as error:
        raise SystemExit(f"the real subject cannot be fetched: {error}") from None
    if asked.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
