"""Tests of fODFs of several shells, on voxels that are made of known fibres, grey matter and fluid."""

import numpy as np
import pytest

from esn_client.imaging.fibres.fodf import fit_fodf
from esn_client.imaging.fibres.multi_shell import estimate_shell_responses, fit_shells
from esn_client.imaging.fibres.response import Response
from esn_client.imaging.fibres.tensor import TensorMaps
from esn_client.imaging.preprocessing.gradient_table import Gradients, shells_of
from esn_core.errors import DataError

SHELLS = {1000.0: 32, 2500.0: 48}
FIBRE, GREY, FLUID = (1.7e-3, 0.3e-3), 0.8e-3, 3.0e-3
SHAPE, SD = (14, 12, 12), 0.02
CROSSING_DEG = 60.0


def table():
    b, rows = [0.0] * 4, [np.zeros(3)] * 4
    for b_value, count in SHELLS.items():
        k = np.arange(count)
        z, angle = 1 - (k + 0.5) / count, np.pi * (3 - np.sqrt(5)) * k
        ring = np.sqrt(1 - z**2)
        rows += list(np.column_stack([ring * np.cos(angle), ring * np.sin(angle), z]))
        b += [b_value] * count
    return Gradients(np.array(b), np.array(rows))


GRADIENTS = table()
FIRST, SECOND = np.array([1.0, 0, 0]), np.array([np.cos(np.radians(CROSSING_DEG)), np.sin(np.radians(60)), 0])
KINDS = {"single": 0, "grey": 1, "crossing": 2, "fluid": 3, "half fluid": 4}


def fibre(direction):
    along, across = FIBRE
    return np.exp(
        -GRADIENTS.b_values_s_per_mm2 * (across + (along - across) * (GRADIENTS.directions @ direction) ** 2)
    )


@pytest.fixture(scope="module")
def brain():
    """Signal, tensor maps as one shell gives them, and what each voxel is."""
    b = GRADIENTS.b_values_s_per_mm2
    grey, fluid = np.exp(-b * GREY), np.exp(-b * FLUID)
    signals = [fibre(FIRST), grey, (fibre(FIRST) + fibre(SECOND)) / 2, fluid, (fibre(FIRST) + fluid) / 2]
    kind = np.zeros(SHAPE, dtype=int)
    for number in range(len(signals)):
        kind[2 * number : 2 * number + 2 + 4 * (number == 4)] = number
    rng = np.random.default_rng(0)
    still = np.array(signals)[kind]
    noisy = np.hypot(still + rng.normal(0, SD, still.shape), rng.normal(0, SD, still.shape))
    mask = np.ones(SHAPE, dtype=bool)
    values = (
        np.array([[1.7, 0.3, 0.3], [0.85, 0.8, 0.75], [1.4, 0.7, 0.3], [3.1, 3, 2.9], [2, 1, 0.9]]) * 1e-3
    )
    fa = np.array([0.8, 0.05, 0.6, 0.03, 0.4])[kind]
    maps = TensorMaps(mask, values[kind], fa, np.ones(SHAPE))
    return noisy.astype(np.float32), maps, kind


@pytest.fixture(scope="module")
def fodf(brain):
    signal, maps, kind = brain
    responses = estimate_shell_responses(signal, GRADIENTS, maps, voxels=100)
    where = np.ones(SHAPE, dtype=bool)
    found = fit_shells(signal, GRADIENTS, responses=responses, where=where, sh_order_max=6)
    return responses, found.coefficients.reshape(*SHAPE, -1), found, kind


def test_each_tissue_fades_from_shell_to_shell_as_it_was_made(fodf):
    responses = fodf[0]
    assert responses.b_values_s_per_mm2 == pytest.approx([1000, 2500])
    # Rician noise lifts what has faded: a few percent at 1,000, more at 2,500.
    assert responses.fibre[0, :2] == pytest.approx(FIBRE, rel=0.06)
    assert responses.fibre[1, :2] == pytest.approx(FIBRE, rel=0.2)
    assert responses.grey[:, 0] == pytest.approx(GREY, rel=0.05)
    assert responses.fluid[:, 0] == pytest.approx(FLUID)


def test_fibres_are_told_from_grey_matter_and_fluid(fodf, brain):
    _, coefficients, _, kind = fodf
    amount = np.array([np.median(coefficients[kind == k, 0]) for k in range(len(KINDS))])
    amount /= amount[KINDS["single"]]
    assert amount[KINDS["crossing"]] == pytest.approx(1, abs=0.1)
    assert amount[KINDS["half fluid"]] == pytest.approx(0.5, abs=0.1)
    assert abs(amount[KINDS["fluid"]]) < 0.05
    assert abs(amount[KINDS["grey"]]) < 0.25
    # One shell alone takes grey matter for fibres.
    signal = brain[0]
    shell = GRADIENTS.with_shell(1000.0)
    alone = fit_fodf(
        signal[..., shell],
        GRADIENTS[shell],
        response=Response(np.array([1.7e-3, 0.3e-3, 0.3e-3]), 1.0),
        where=np.ones(SHAPE, dtype=bool),
        sh_order_max=6,
    ).coefficients.reshape(*SHAPE, -1)
    assert np.median(alone[kind == 1, 0]) / np.median(alone[kind == 0, 0]) > 0.8


def test_two_crossing_fibres_are_both_found(fodf):
    _, _, found, kind = fodf
    angles = np.radians(np.arange(-30, 150, 2.0))
    circle = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))])
    seen = found.amplitudes(circle).reshape(*SHAPE, -1)[kind == KINDS["crossing"]].mean(axis=0)
    peaks = np.flatnonzero((seen > np.roll(seen, 1)) & (seen > np.roll(seen, -1)) & (seen > 0.3 * seen.max()))
    assert np.degrees(angles[peaks]) == pytest.approx([0, CROSSING_DEG], abs=8)


def test_volumes_are_parted_into_shells():
    medians, number = shells_of(GRADIENTS)
    assert medians == (1000.0, 2500.0)
    assert np.bincount(number + 1).tolist() == [4, 32, 48]
    assert GRADIENTS.with_shell(2500.0).sum() == 52


def test_one_shell_or_no_grey_matter_is_refused(brain):
    signal, maps, _ = brain
    shell = GRADIENTS.with_shell(1000.0)
    with pytest.raises(DataError, match="two shells or more; found b near 1000 alone"):
        estimate_shell_responses(signal[..., shell], GRADIENTS[shell], maps, voxels=100)
    with pytest.raises(DataError, match="30 voxels of grey matter or more off the brain's surface; found 0"):
        estimate_shell_responses(
            signal,
            GRADIENTS,
            TensorMaps(maps.mask, maps.eigenvalues_mm2_per_s, maps.fa + 0.15, maps.b0),
            voxels=100,
        )
