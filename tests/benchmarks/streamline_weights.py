"""What streamline weights change: counts and weighted counts against the true bundles of simulated children.

A bundle of the phantom has a cross-section in proportion to its weight; log counts should be linear in
the log of the weight. Printed: Pearson's r over the drawn bundles, per child and on average.

Usage: python tests/benchmarks/streamline_weights.py [--json] [--children N] [--seeds N]
"""

import argparse
import json

import numpy as np

from esn_client.imaging.fibres.fodf import fit_fodf
from esn_client.imaging.fibres.lobes import find_lobes
from esn_client.imaging.fibres.response import estimate_response
from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.regions.connectivity import assign, connect
from esn_client.imaging.regions.parcellation import grow_regions, measure_volumes
from esn_client.imaging.tracking.streamline_weights import record_visits, weigh_streamlines
from esn_client.imaging.tracking.tracking import TrackingRules, find_reach, find_seeds, track
from esn_client.simulation.presets import SITES
from esn_core.connectome.atlas import load_atlas
from esn_core.simulation.diffusion import draw_phantom
from esn_core.simulation.world import World

VOXEL_MM = 4.0
ITERATIONS = (0, 5, 10, 20, 50)
RULES = TrackingRules(1.5, 28.0, 15.0, 250.0, 0.14, 0.12, "repulsion200")


def measure(child: int, *, seeds: int) -> dict[str, float]:
    """Reconstruct one child; give r for each number of iterations, and for two corrections of counts."""
    atlas = load_atlas("phantom-28")
    rng = np.random.default_rng(child)
    truth = World.draw(atlas, rng=np.random.default_rng(0)).mean + 0.5 * rng.normal(size=len(atlas.edges))
    scheme = SITES["south"].scheme()
    phantom = draw_phantom(atlas, truth, scheme, voxel_size_mm=VOXEL_MM, signal_to_noise=26.0, rng=rng)
    signal = phantom.signal.astype(np.float32)
    # The phantom is stored RAS: voxel axes are those of space.
    gradients = Gradients(scheme.b_values_s_per_mm2, scheme.directions)
    size_mm = np.full(3, VOXEL_MM)
    maps = fit_tensor(signal, gradients)
    fodf = fit_fodf(
        signal,
        gradients,
        response=estimate_response(maps, voxels=100),
        where=find_reach(maps.fa, maps.mask, stop_threshold=RULES.stop_threshold),
        sh_order_max=6,
    )
    start = find_seeds(maps.fa, maps.mask, threshold=0.2, depth_voxels=0)
    usual_peak = float(np.median(fodf.amplitudes(np.eye(3))[fodf.row_of[start]].max(axis=1)))
    lobes = find_lobes(fodf, sphere=RULES.sphere, least_amplitude=RULES.fodf_threshold * usual_peak)
    visits: list = []
    batches = track(
        fodf, maps.fa, seed_mask=start, voxel_size_mm=size_mm, rules=RULES, seeds=seeds, random_seed=1
    )
    labels = phantom.labels.astype(np.int64)
    found = assign(
        record_visits(batches, lobes, voxel_size_mm=size_mm, into=visits),
        grow_regions(labels, atlas, voxel_size_mm=size_mm, growth_mm=4.0),
        fa=maps.fa,
        voxel_size_mm=size_mm,
        forward_search_mm=4.0,
    )
    volumes = measure_volumes(labels, atlas, voxel_size_mm=size_mm)
    upper = np.triu_indices(len(atlas.names), k=1)
    scale = len(found.lengths_mm) / 1e4

    def agree(matrix: np.ndarray) -> float:
        strengths = np.log(matrix[upper][phantom.bundles] + 0.5 * scale)
        return float(np.corrcoef(strengths, truth[phantom.bundles])[0, 1])

    result = {}
    for iterations in ITERATIONS:
        fit = weigh_streamlines(visits, lobes, iterations=iterations)
        edges = connect(found, atlas=atlas, volumes_mm3=volumes, weights=fit.weights)
        result[f"weights, {iterations} iterations"] = agree(edges.connectome.counts)
        result[f"misfit, {iterations} iterations"] = fit.misfit_after
    plain = connect(found, atlas=atlas, volumes_mm3=volumes)
    result["count"] = agree(plain.connectome.counts)
    result["count per length"] = agree(plain.count_per_length * plain.mean_length_mm[upper].mean())
    return result


def main() -> None:
    """Measure some children and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--children", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=50_000)
    asked = parser.parse_args()
    found = [measure(child, seeds=asked.seeds) for child in range(asked.children)]
    means = {name: round(float(np.mean([f[name] for f in found])), 4) for name in found[0]}
    sds = {name: round(float(np.std([f[name] for f in found])), 4) for name in found[0]}
    if asked.json:
        print(
            json.dumps({"children": asked.children, "seeds": asked.seeds, "mean": means, "sd": sds}, indent=2)
        )
        return
    print(f"{asked.children} children, {asked.seeds:,} seeds: mean (sd)")
    for name, mean in means.items():
        print(f"{name:28}{mean:8.3f} ({sds[name]:.3f})")


if __name__ == "__main__":
    main()
