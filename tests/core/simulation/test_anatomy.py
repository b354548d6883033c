"""The human anatomy: has it the statistics of the group connectome that it was calibrated against?"""

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.simulation.anatomy import HumanAnatomyRules, anatomy, human_anatomy, phantom_anatomy

ATLAS = load_atlas("desikan-killiany-83")
A, B = ATLAS.edges.T
SIDE = np.array([region.hemisphere for region in ATLAS.regions])
STEM = np.array([region.stem for region in ATLAS.regions])
# The brainstem is not in the group connectome.
INSIDE = (SIDE[A] != "M") & (SIDE[B] != "M")
CROSSING = INSIDE & (SIDE[A] != SIDE[B])
HOMOTOPIC = CROSSING & (STEM[A] == STEM[B])
DISTANCE_MM = np.linalg.norm(ATLAS.centroids_mm[A] - ATLAS.centroids_mm[B], axis=1)


def statistics(drawn):
    present, weight = drawn.present & INSIDE, drawn.mean
    degree = np.bincount(A[present], minlength=83) + np.bincount(B[present], minlength=83)
    degree = degree[SIDE != "M"]
    return {
        "density": present[INSIDE].mean(),
        "density within a hemisphere": present[INSIDE & ~CROSSING].mean(),
        "density across": present[CROSSING].mean(),
        "density of homotopic pairs": present[HOMOTOPIC].mean(),
        "sd of the log weights": weight[present].std(),
        "r of log weight and distance": np.corrcoef(weight[present], DISTANCE_MM[present])[0, 1],
        "cv of the degrees": degree.std() / degree.mean(),
    }


# ENIGMA Toolbox, strucMatrix_with_sctx.csv (HCP, n = 207), 2026-11-25; centroids of this atlas.
# Tolerances: three standard errors of the mean of 40 anatomies, or what the fit leaves, whichever is more.
GROUP = {
    "density": (0.358, 0.04),
    "density within a hemisphere": (0.513, 0.04),
    "density across": (0.208, 0.04),
    "density of homotopic pairs": (0.707, 0.06),
    "sd of the log weights": (2.18, 0.15),
    "r of log weight and distance": (-0.336, 0.05),
    "cv of the degrees": (0.393, 0.05),
}


def test_simulated_anatomies_have_the_statistics_of_the_group_connectome():
    drawn = [statistics(human_anatomy(ATLAS, rng=np.random.default_rng(s))) for s in range(40)]
    for name, (measured, tolerance) in GROUP.items():
        assert np.mean([d[name] for d in drawn]) == pytest.approx(measured, abs=tolerance), name


def test_the_atlas_alone_decides_its_anatomy():
    first, second = anatomy(ATLAS), anatomy(ATLAS)
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.mean, human_anatomy(ATLAS).mean)
    phantom = load_atlas("phantom-28")
    assert np.array_equal(anatomy(phantom).mean, phantom_anatomy(phantom).mean)
    assert not np.array_equal(first.mean, human_anatomy(ATLAS, rng=np.random.default_rng(0)).mean)


def test_a_scan_has_the_expected_number_of_streamlines():
    drawn = human_anatomy(ATLAS, HumanAnatomyRules(streamlines=1234.0))
    # The scaling is exact but for rounding.
    assert np.exp(drawn.mean[drawn.present]).sum() == pytest.approx(1234.0, rel=1e-12)
    assert (drawn.mean[~drawn.present] == -1.0).all()


def test_a_pair_and_its_mirror_image_are_alike():
    drawn = human_anatomy(ATLAS)
    at = {region.name: i for i, region in enumerate(ATLAS.regions)}
    edge = {(a, b): e for e, (a, b) in enumerate(ATLAS.edges.tolist())}
    pairs = []
    for e in np.flatnonzero((SIDE[A] == "L") & (SIDE[B] == "L")):
        mirrored = sorted(at["R_" + ATLAS.regions[r].stem] for r in ATLAS.edges[e])
        pairs.append((e, edge[tuple(mirrored)]))
    left, right = np.array(pairs).T
    # The group connectome: presence .68, residual log weights .9 (phi over all mirrored pairs).
    assert np.corrcoef(drawn.present[left], drawn.present[right])[0, 1] > 0.5
    both = drawn.present[left] & drawn.present[right]
    assert np.corrcoef(drawn.mean[left][both], drawn.mean[right][both])[0, 1] > 0.6
