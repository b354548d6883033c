"""Our way from a scan to a connectome, each stage with what it took; run as a process of its own.

Usage: python tests/benchmarks/our_stages.py SCAN.npz RESULT.npz --seeds N --random-seed S [--denoise METHOD]
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from esn_client.imaging.fibres.fodf import fit_fodf
from esn_client.imaging.fibres.response import estimate_response
from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.preprocessing.denoise import denoise
from esn_client.imaging.preprocessing.gradient_table import Gradients, coefficients_of_order
from esn_client.imaging.regions.connectivity import assign, connect
from esn_client.imaging.regions.parcellation import grow_regions, measure_volumes
from esn_client.imaging.tracking.tracking import TrackingRules, find_reach, track
from esn_core.connectome.atlas import load_atlas

ATLAS = "desikan-killiany-83"
RESPONSE_VOXELS = 300
LABEL_GROWTH_MM = FORWARD_SEARCH_MM = 4.0
RULES = TrackingRules(
    step_size_mm=0.6,
    max_angle_deg=28.0,
    min_length_mm=20.0,
    max_length_mm=250.0,
    stop_threshold=0.08,
    fodf_threshold=0.11,
    sphere="repulsion200",
)


def main() -> None:
    """Reconstruct, and say what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scan", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--random-seed", type=int, required=True)
    parser.add_argument("--denoise", choices=("none", "patch2self", "mppca"), default="none")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    asked = parser.parse_args()

    stages: dict[str, float] = {"start": time.process_time()}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        stages[name] = round(time.process_time() - begin, 2)

    atlas = load_atlas(ATLAS)
    with np.load(asked.scan) as scan:
        signal, labels, size_mm = scan["signal"], scan["labels"], scan["voxel_size_mm"]
        start = scan["start"]
        gradients = Gradients(scan["b_values"], scan["directions"])
    if asked.denoise != "none":
        with stage("denoise"):
            mask = fit_tensor(signal, gradients).mask
            signal = denoise(signal, gradients, mask, method=asked.denoise).signal
    with stage("mask and tensor"):
        maps = fit_tensor(signal, gradients)
    with stage("response"):
        response = estimate_response(maps, voxels=RESPONSE_VOXELS)
    directions = int((~gradients.is_b0).sum())
    with stage("fodf"):
        fodf = fit_fodf(
            signal,
            gradients,
            response=response,
            where=find_reach(maps.fa, maps.mask, stop_threshold=RULES.stop_threshold),
            sh_order_max=max(order for order in (4, 6, 8) if coefficients_of_order(order) <= directions),
        )
    del signal
    with stage("tracking and assignment"):
        batches = track(
            fodf,
            maps.fa,
            seed_mask=start,
            voxel_size_mm=size_mm,
            rules=RULES,
            seeds=asked.seeds,
            random_seed=asked.random_seed,
            device=asked.device,
        )
        found = assign(
            batches,
            grow_regions(labels, atlas, voxel_size_mm=size_mm, growth_mm=LABEL_GROWTH_MM),
            fa=maps.fa,
            voxel_size_mm=size_mm,
            forward_search_mm=FORWARD_SEARCH_MM,
        )
    with stage("connectivity"):
        volumes_mm3 = measure_volumes(labels, atlas, voxel_size_mm=size_mm)
        measures = connect(found, atlas=atlas, volumes_mm3=volumes_mm3)
    np.savez(asked.result, counts=measures.connectome.counts)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    json.dump(
        {
            "stages": stages,
            "cpu_s": round(sum(u.ru_utime + u.ru_stime for u in (usage, children)), 2),
            "peak_memory_gib": round(usage.ru_maxrss / 2**20, 3),
            "streamlines": measures.streamlines,
            "assigned_fraction": measures.assigned_fraction,
            "density": measures.density,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
