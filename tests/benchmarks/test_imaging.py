"""Seconds per subject by stage: simulation and preparation of one phantom of the demo's size."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.scans import load_scan
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.fibres.fodf import fit_fodf
from esn_client.imaging.fibres.response import estimate_response
from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_client.imaging.regions.connectivity import assign, connect
from esn_client.imaging.regions.parcellation import grow_regions, measure_volumes
from esn_client.imaging.tracking.tracking import TrackingRules, find_reach, find_seeds, track
from esn_client.simulation.presets import SITES
from esn_client.simulation.scans import write_site
from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.simulation.cohort import draw_site, subject_counts
from esn_core.simulation.diffusion import draw_phantom
from esn_core.simulation.world import World

ATLAS = load_atlas("phantom-28")
SETTINGS = files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text()
RECIPE = ImagingRecipe(**tomllib.loads(SETTINGS))
SUBJECT = Visit("sub-001", None)


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    """A site of one child."""
    directory = tmp_path_factory.mktemp("benchmark") / "north"
    write_site(directory, site="north", seed=1, children=1, controls=0, truth=None)
    return directory


@pytest.fixture(scope="module")
def files(bids):
    return Dataset(bids).files(SUBJECT, segmentation="phantom28")


@pytest.fixture(scope="module")
def scan(files):
    return load_scan(files, atlas=ATLAS, recipe=RECIPE)


@pytest.fixture(scope="module")
def maps(scan):
    return fit_tensor(scan.signal, scan.gradients)


@pytest.fixture(scope="module")
def response(maps):
    return estimate_response(maps, voxels=RECIPE.response_voxels)


def deconvolve(scan, maps, response):
    where = find_reach(maps.fa, maps.mask, stop_threshold=RECIPE.fa_stop_threshold)
    return fit_fodf(
        scan.signal, scan.gradients, response=response, where=where, sh_order_max=RECIPE.sh_order_max
    )


@pytest.fixture(scope="module")
def fodf(scan, maps, response):
    return deconvolve(scan, maps, response)


def test_simulation_of_one_scan(benchmark):
    world = World.draw(ATLAS, rng=np.random.default_rng(0))
    scheme = SITES["north"].scheme()

    def draw():
        rng = np.random.default_rng(0)
        settings = {"voxel_size_mm": 5.0, "signal_to_noise": 28.0, "motion_mm": 0.1}
        return draw_phantom(ATLAS, world.mean, scheme, rng=rng, **settings)

    assert benchmark.pedantic(draw, rounds=3).bundles.size > 60


def test_connectomes_of_a_thousand_children_without_scans(benchmark):
    world = World.draw(ATLAS, rng=np.random.default_rng(0))

    def draw():
        rng = np.random.default_rng(0)
        children = draw_site(world, children=1000, controls=0, rng=rng)
        return subject_counts(np.array([child.log_weights for child in children]), rng=rng)

    assert benchmark.pedantic(draw, rounds=3).shape == (1000, 378)


def test_tensor(benchmark, scan):
    assert benchmark.pedantic(fit_tensor, (scan.signal, scan.gradients), rounds=3).fa.max() > 0.5


def test_fodf(benchmark, scan, maps, response):
    assert benchmark.pedantic(deconvolve, (scan, maps, response), rounds=3).where.any()


RULES = TrackingRules(
    stop_threshold=RECIPE.fa_stop_threshold,
    **{name: getattr(RECIPE, name) for name in TrackingRules.__annotations__ if name != "stop_threshold"},
)


def follow(scan, maps, fodf):
    start = find_seeds(maps.fa, maps.mask, threshold=RECIPE.fa_seed_threshold, depth_voxels=0)
    size_mm = scan.voxel_size_mm
    return list(
        track(
            *(fodf, maps.fa),
            seed_mask=start,
            voxel_size_mm=size_mm,
            rules=RULES,
            device="cpu",
            seeds=RECIPE.seeds,
            random_seed=RECIPE.random_seed,
        )
    )


def test_tracking(benchmark, scan, maps, fodf):
    follow(scan, maps, fodf)  # compiled once for each machine
    batches = benchmark.pedantic(follow, (scan, maps, fodf), rounds=3)
    assert sum(map(len, batches)) > RECIPE.seeds / 2


def test_parcellation_with_connectivity(benchmark, scan, maps, fodf):
    batches, size_mm = follow(scan, maps, fodf), scan.voxel_size_mm

    def join():
        regions = grow_regions(scan.labels, ATLAS, voxel_size_mm=size_mm, growth_mm=RECIPE.label_growth_mm)
        found = assign(batches, regions, fa=maps.fa, voxel_size_mm=size_mm, forward_search_mm=0.0)
        volumes_mm3 = measure_volumes(scan.labels, ATLAS, voxel_size_mm=size_mm)
        return connect(found, atlas=ATLAS, volumes_mm3=volumes_mm3)

    join()
    assert benchmark.pedantic(join, rounds=3).connectome.counts.any()


def test_one_subject_from_files_to_files(benchmark, bids, files, tmp_path):
    outs = iter(range(3))

    def make():
        out = tmp_path / str(next(outs))
        return prepare_subject(files, Making(bids, out, RECIPE, out / "work", keep_work=False, pages=False))

    assert benchmark.pedantic(make, rounds=3)
