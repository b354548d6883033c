"""One brain, stored in several orientations: the connectome must not depend on it."""

import numpy as np
import pytest

from esn_client.imaging.fibres.fodf import fit_fodf
from esn_client.imaging.fibres.response import estimate_response
from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.regions.connectivity import assign, connect
from esn_client.imaging.regions.parcellation import grow_regions, measure_volumes
from esn_client.imaging.tracking.tracking import TrackingRules, find_reach, find_seeds, track
from esn_client.simulation.presets import SITES
from esn_core.connectome.atlas import load_atlas
from esn_core.simulation.diffusion import draw_phantom
from esn_core.simulation.world import World

ATLAS = load_atlas("phantom-28")
SIZE_MM = np.full(3, 5.0)
RULES = TrackingRules(2.0, 30.0, 15.0, 250.0, 0.14, 0.12, "repulsion200")
SEEDS = 40_000


@pytest.fixture(scope="module")
def phantom():
    """A simulated scan, stored RAS: signal, labels and gradients."""
    world = World.draw(ATLAS, rng=np.random.default_rng(0))
    scheme = SITES["south"].scheme()
    settings = {"voxel_size_mm": 5.0, "signal_to_noise": 26.0, "rng": np.random.default_rng(1)}
    made = draw_phantom(ATLAS, world.mean, scheme, **settings)
    return made.signal.astype(np.float32), made.labels.astype(np.int64), scheme


def store(phantom, order, flips):
    """Permute the voxel axes, then flip some; directions follow them."""
    signal, labels, scheme = phantom
    axes = tuple(axis for axis in range(3) if flips[axis] < 0)
    directions = scheme.directions[:, order] * np.array(flips)
    gradients = Gradients(scheme.b_values_s_per_mm2, directions)
    turned = np.flip(labels.transpose(order), axes)
    return np.flip(signal.transpose(*order, 3), axes), turned, gradients


def log_counts(stored, random_seed):
    signal, labels, gradients = stored
    maps = fit_tensor(signal, gradients)
    where = find_reach(maps.fa, maps.mask, stop_threshold=RULES.stop_threshold)
    response = estimate_response(maps, voxels=100)
    fodf = fit_fodf(signal, gradients, response=response, where=where, sh_order_max=6)
    batches = track(
        fodf,
        maps.fa,
        seed_mask=find_seeds(maps.fa, maps.mask, threshold=0.2, depth_voxels=0),
        voxel_size_mm=SIZE_MM,
        rules=RULES,
        seeds=SEEDS,
        random_seed=random_seed,
    )
    regions = grow_regions(labels, ATLAS, voxel_size_mm=SIZE_MM, growth_mm=4.0)
    found = assign(batches, regions, fa=maps.fa, voxel_size_mm=SIZE_MM, forward_search_mm=4.0)
    volumes_mm3 = measure_volumes(labels, ATLAS, voxel_size_mm=SIZE_MM)
    counts = connect(found, atlas=ATLAS, volumes_mm3=volumes_mm3).connectome.counts
    return np.log1p(counts[np.triu_indices(28, k=1)])


def test_the_connectome_does_not_depend_on_how_the_brain_is_stored(phantom):
    as_drawn = store(phantom, (0, 1, 2), (1, 1, 1))
    first = log_counts(as_drawn, 1)
    retest = np.corrcoef(first, log_counts(as_drawn, 2))[0, 1]
    assert retest > 0.98
    for seed, (order, flips) in enumerate([((0, 1, 2), (-1, 1, 1)), ((2, 0, 1), (1, -1, -1))], start=3):
        other = log_counts(store(phantom, order, flips), seed)
        # The bar of the project: no worse than a second run, by more than 0.02.
        assert np.corrcoef(first, other)[0, 1] >= retest - 0.02


def test_a_gradient_table_of_another_storage_would_be_seen(phantom):
    signal, labels, _ = store(phantom, (0, 1, 2), (1, 1, 1))
    wrong = store(phantom, (0, 1, 2), (-1, 1, 1))[2]
    first = log_counts(store(phantom, (0, 1, 2), (1, 1, 1)), 1)
    assert np.corrcoef(first, log_counts((signal, labels, wrong), 2))[0, 1] < 0.9
