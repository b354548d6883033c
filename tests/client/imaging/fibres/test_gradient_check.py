"""Tests of the gradient table's self-test: every flip and permutation of a phantom's table is named."""

import re

import numpy as np
import pytest

from esn_client.imaging.fibres.gradient_check import (
    _compare,
    _principal_directions,
    check_gradient_table,
    variants,
)
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.table_files import flip_of
from esn_client.simulation.presets import SITES
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError
from esn_core.simulation.anatomy import anatomy
from esn_core.simulation.diffusion import draw_phantom


@pytest.fixture(scope="module")
def phantom():
    atlas = load_atlas("phantom-28")
    mean = anatomy(atlas).mean
    scheme = SITES["north"].scheme()
    drawn = draw_phantom(
        atlas, mean, scheme, voxel_size_mm=4.0, signal_to_noise=25, rng=np.random.default_rng(1)
    )
    return drawn, Gradients(scheme.b_values_s_per_mm2, scheme.directions)


def test_the_right_table_is_the_best_of_24(phantom):
    drawn, gradients = phantom
    found = check_gradient_table(drawn.signal.astype(np.float32), gradients, drawn.brain, drawn.affine)
    assert next(iter(found.coherence)) == "the rows as they are"
    assert len(found.coherence) == 24
    assert found.margin > 0.1
    assert found.pairs > 1000


def test_variants_are_all_signed_permutations_up_to_a_sign():
    found = {tuple(np.rint(sign * v).astype(int).ravel()) for v in variants() for sign in (1, -1)}
    assert len(found) == 48
    assert all(np.array_equal(v @ v.T, np.eye(3)) for v in variants())
    assert np.array_equal(variants()[0], np.eye(3))


# How the image is stored and how the rows are wrong are apart in the code: of the second storage, one of each
# order of the axes is enough.
@pytest.mark.parametrize(
    ("number", "storage"), [(n, "RAS") for n in range(1, 24)] + [(n, "LAS") for n in range(1, 24, 4)]
)
def test_a_wrong_table_is_refused_with_the_change_that_heals_it(phantom, number, storage):
    drawn, gradients = phantom
    signal, brain, affine = drawn.signal.astype(np.float32), drawn.brain, drawn.affine
    file_rows = gradients.directions * [-1, 1, 1]  # by FSL's rule, in both storages
    frame = np.diag([-1.0, 1, 1])
    if storage == "LAS":
        signal, brain = signal[::-1], brain[::-1]
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = brain.shape[0] - 1
        affine, frame = affine @ flip, np.eye(3)
    broken = file_rows @ variants()[number].T
    wrong = Gradients(gradients.b_values_s_per_mm2, broken @ frame)
    with pytest.raises(DataError, match="the b-vectors do not fit the image") as caught:
        check_gradient_table(signal, wrong, brain, affine)
    # Doing to the rows what the message says gives the right table back, up to a sign.
    rows = str(caught.value).rsplit("changed to ", 1)[1].partition(":")[0].split(", ")
    healed = np.column_stack([(-1 if r[0] == "-" else 1) * broken[:, int(r[-1]) - 1] for r in rows])
    assert np.allclose(healed, file_rows) or np.allclose(healed, -file_rows)


def thick(phantom, slices, volumes):
    """Average slices of the phantom, and take some of its volumes."""
    drawn, gradients = phantom
    n = drawn.signal.shape[2] // slices * slices
    shape = (*drawn.signal.shape[:2], n // slices, slices)
    signal = drawn.signal[:, :, :n, volumes].reshape(*shape, -1).mean(axis=3).astype(np.float32)
    brain = drawn.brain[:, :, :n].reshape(shape).all(axis=3)
    table = Gradients(gradients.b_values_s_per_mm2[volumes], gradients.directions[volumes])
    return signal, table, brain, drawn.affine @ np.diag([1.0, 1, slices, 1])


def few(gradients, axis):
    """Take a b0 and the 15 directions next to an axis."""
    near = np.argsort(np.where(gradients.is_b0, 9, -np.abs(gradients.directions[:, axis])))[:15]
    return np.concatenate([np.flatnonzero(gradients.is_b0)[:1], np.sort(near)])


@pytest.mark.parametrize("slices", [2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_right_table_of_few_directions_near_an_axis_and_thick_slices_is_right(phantom, slices, axis):
    """In slices of 8 mm the coherence itself favours fibres that are turned into the slices, by 3 to 6 %."""
    signal, table, brain, affine = thick(phantom, slices, few(phantom[1], axis))
    found = check_gradient_table(signal, table, brain, affine)
    if slices == 2:
        assert -0.07 < found.margin < -0.02
        assert not found.doubt or "by one measure, and not by the other" in found.doubt
    else:
        assert found.margin > 0.08
        assert found.doubt == ""
    negated = Gradients(table.b_values_s_per_mm2, table.directions * [-1, 1, 1])
    with pytest.raises(
        DataError, match="changed to row 1, -row 2, -row 3: the table seems to follow the image"
    ):
        check_gradient_table(signal, negated, brain, affine)


def test_a_table_is_not_called_wrong_where_too_few_directions_tell(phantom):
    """A tensor has six numbers: of seven directions none can be left out."""
    signal, table, brain, affine = thick(phantom, 1, few(phantom[1], 0)[:8])
    wrong = Gradients(table.b_values_s_per_mm2, table.directions @ variants()[9].T)
    found = check_gradient_table(signal, wrong, brain, affine)
    assert found.margin < -0.03
    assert found.doubt.startswith("the b-vectors could not be tested: fibres run on from voxel to voxel 1.")
    assert "but 7 directions as these leave a standard error of" in found.doubt


def test_chance_is_the_same_for_all_tables_in_cubes(phantom):
    drawn, gradients = phantom
    directions = _principal_directions(drawn.signal.astype(np.float32), gradients, drawn.brain)
    plain, beside = _compare(directions, np.full(3, 4.0))[1]
    # Only the order of the additions differs.
    assert beside == pytest.approx(plain, rel=1e-12)
    plain, beside = _compare(directions, np.array([4.0, 4, 8]))[1]
    assert beside != pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize(
    ("storage", "held", "words"),
    [
        ("RAS", "image", "the image's axes without FSL's flip of x, as QSIPrep and DIPY have it"),
        ("LPS", "image", "the image's axes without FSL's flip of x, as QSIPrep and DIPY have it"),
        ("LPS", "scanner", "the scanner's axes (right, front, up), as MRtrix has it"),
        ("LAS", "scanner", "the scanner's axes (right, front, up), as MRtrix has it"),
        ("LAS", "dicom", "the scanner's axes (left, back, up), as DICOM has it"),
    ],
)
def test_a_table_that_follows_another_rule_is_refused_with_the_rules_name(phantom, storage, held, words):
    drawn, gradients = phantom
    flips = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1), "LPS": (-1, -1, 1)}[storage]
    axes = tuple(axis for axis in range(3) if flips[axis] < 0)
    signal, brain = np.flip(drawn.signal, axes).astype(np.float32), np.flip(drawn.brain, axes)
    affine = drawn.affine @ np.diag([*flips, 1.0])
    file_rows = gradients.directions * {"image": flips, "scanner": (1, 1, 1), "dicom": (-1, -1, 1)}[held]
    as_fsl = Gradients(gradients.b_values_s_per_mm2, file_rows @ flip_of(affine))
    with pytest.raises(DataError, match=re.escape(f": the table seems to follow {words}")):
        check_gradient_table(signal, as_fsl, brain, affine)


def test_a_table_by_the_images_axes_that_follows_fsls_rule_is_told_so(phantom):
    drawn, gradients = phantom
    fsl = Gradients(gradients.b_values_s_per_mm2, gradients.directions @ flip_of(drawn.affine))
    with pytest.raises(DataError, match="the table seems to follow FSL's rule"):
        check_gradient_table(
            drawn.signal.astype(np.float32), fsl, drawn.brain, drawn.affine, convention="image"
        )


def test_coherence_equals_its_definition_pair_by_pair(phantom):
    drawn, gradients = phantom
    signal = drawn.signal.astype(np.float32)
    found = check_gradient_table(signal, gradients, drawn.brain, drawn.affine)
    e = _principal_directions(signal, gradients, drawn.brain)
    total, pairs = 0.0, 0
    where = [tuple(v) for v in np.argwhere(e.any(axis=3))]
    there = set(where)
    for v in where:
        for offset in np.ndindex(3, 3, 3):
            o = np.array(offset) - 1
            w = tuple((np.array(v) + o).tolist())
            if w > v and w in there:
                line = o / np.linalg.norm(o)
                total += (abs(e[v] @ line) * abs(e[w] @ line)) ** 4
                pairs += 1
    assert pairs == found.pairs
    assert total / pairs == pytest.approx(found.coherence["the rows as they are"], rel=1e-10)


def test_a_head_without_fibres_cannot_be_tested(phantom):
    drawn, gradients = phantom
    flat = np.where(gradients.is_b0, 1000, 400) * np.ones((*drawn.brain.shape, 1))
    with pytest.raises(
        DataError, match=r"cannot be tested: 0 pairs of neighbours have FA >= 0\.35; 300 or more"
    ):
        check_gradient_table(flat.astype(np.float32), gradients, drawn.brain, drawn.affine)
