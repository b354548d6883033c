"""Tests of motion: a head that was moved by known amounts is found there, and gradients turn with it."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from esn_client.imaging.preprocessing.displacement import framewise_displacement
from esn_client.imaging.preprocessing.eddy import without_eddy
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.motion import correct_motion, turn_gradients
from esn_client.imaging.preprocessing.rigid import Place, movement_of, shift_of, turn_of
from esn_core.errors import DataError

RAS = np.array([[4.0, 0, 0, -72], [0, 4, 0, -88], [0, 0, 4, -64], [0, 0, 0, 1]])
LAS = RAS @ np.array([[-1.0, 0, 0, 35], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SHAPE = (36, 44, 32)
SD = 15.0


def table(directions=24, b0_every=8):
    k = np.arange(directions)
    z, angle = 1 - (k + 0.5) / directions, np.pi * (3 - np.sqrt(5)) * k
    weighted = np.column_stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z])
    # Neighbours in the table must not be neighbours on the sphere.
    weighted = weighted[np.random.default_rng(1).permutation(directions)]
    rows = []
    for start in range(0, directions, b0_every):
        rows += [np.zeros(3), *weighted[start : start + b0_every]]
    rows = np.array(rows)
    return Gradients(np.where(rows.any(axis=1), 1000.0, 0.0), rows)


def head(affine, gradients, movements):
    """A head of crossing tissues, drawn anew in every volume where the head was; fibres turn with it."""
    rng = np.random.default_rng(5)
    texture = gaussian_filter(rng.normal(size=SHAPE), 2.0)
    angles = gaussian_filter(rng.normal(size=(3, *SHAPE)), (0, 3, 3, 3))
    points = (
        np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) @ RAS[:3, :3].T + RAS[:3, 3]
    )
    depth = np.linalg.norm(points / [58, 74, 52], axis=-1)
    brain = depth < 1
    t2 = np.where(brain, 700 + 200 * np.clip(texture / texture.std(), -2, 2), 0)
    fibre = angles / np.linalg.norm(angles, axis=0)
    free_water = 1 / (1 + np.exp(-(depth - 0.9) / 0.03))
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    volumes = []
    for g, b, movement in zip(gradients.directions, gradients.b_values_s_per_mm2, movements, strict=True):
        still_g = movement[:3, :3].T @ (axes @ g)
        cosine = np.einsum("kxyz,k->xyz", fibre, still_g)
        tissue = np.exp(-b * (0.4e-3 + 1.0e-3 * cosine**2))
        still = t2 * ((1 - free_water) * tissue + 1.8 * free_water * np.exp(-b * 3e-3))
        still = gaussian_filter(still, 0.7)  # a scanner's image has no edge sharper than its voxels
        # What lies at x in the volume was at the inverse movement of x in the still head.
        at = np.linalg.inv(RAS) @ np.linalg.inv(movement) @ affine
        volumes.append(affine_transform(still, at[:3, :3], at[:3, 3], order=3))
    signal = np.stack(volumes, axis=-1)
    signal = np.hypot(signal + rng.normal(0, SD, signal.shape), rng.normal(0, SD, signal.shape))
    at = np.linalg.inv(RAS) @ affine
    mask = affine_transform(brain.astype(float), at[:3, :3], at[:3, 3], order=1) > 0.5
    return signal.astype(np.float32), mask


def wandering(volumes, sd_mm, seed):
    """A head that drifts and jerks; still in the first volume."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, sd_mm, (volumes, 3)) + np.linspace(0, 2 * sd_mm, volumes)[:, None]
    turn = np.radians(rng.normal(0, sd_mm, (volumes, 3)))
    shift[0], turn[0] = 0, 0
    return [movement_of(s, t, np.zeros(3)) for s, t in zip(shift, turn, strict=True)]


@pytest.fixture(scope="module", params=["RAS", "LAS"])
def moved(request):
    affine, gradients = {"RAS": RAS, "LAS": LAS}[request.param], table()
    truth = wandering(len(gradients.is_b0), 1.0, seed=2)
    signal, mask = head(affine, gradients, truth)
    return affine, gradients, np.array(truth), signal, mask, correct_motion(signal, gradients, affine, mask)


def errors(found, truth):
    rest = [np.linalg.inv(t) @ f for f, t in zip(found, truth, strict=True)]
    shift = np.array([shift_of(m, np.zeros(3)) for m in rest])
    return np.linalg.norm(shift, axis=1), np.degrees([np.linalg.norm(turn_of(m)) for m in rest])


def test_the_head_is_found_where_it_was_moved_to(moved):
    _, gradients, truth, _, _, motion = moved
    shift_mm, turn_deg = errors(motion.transforms, truth)
    # Within a fortieth of a voxel among the b0s, which need no prediction.
    assert shift_mm[gradients.is_b0].max() < 0.1
    assert turn_deg[gradients.is_b0].max() < 0.1
    # The weighted volumes among themselves: what remains is the one join with the b0s.
    weighted = ~gradients.is_b0
    join = np.linalg.inv(truth[weighted]) @ motion.transforms[weighted]
    middle = np.median([[*shift_of(m, np.zeros(3)), *turn_of(m)] for m in join], axis=0)
    off = [m @ np.linalg.inv(movement_of(middle[:3], middle[3:], np.zeros(3))) for m in join]
    shift_mm, turn_deg = errors(off, [np.eye(4)] * len(off))
    # An eighth of a voxel in the middle, half a one at worst.
    assert np.median(shift_mm) < 0.5
    assert shift_mm.max() < 2.0
    assert np.median(turn_deg) < 0.5
    # The head jerks by 1 mm along each axis between volumes: the join is the median of few such jerks.
    assert np.linalg.norm(middle[:3]) < 3.0


def test_the_corrected_volumes_agree_with_each_other(moved):
    _, gradients, _, signal, mask, motion = moved
    weighted = ~gradients.is_b0

    def disagreement(volumes, table):
        x, y, z = table.directions[weighted].T
        basis, _ = np.linalg.qr(np.column_stack([x * x, y * y, z * z, x * y, y * z, x * z]))
        values = volumes[mask][:, weighted].astype(np.float64)
        return np.sqrt(np.mean((values - values @ basis @ basis.T) ** 2))

    # Noise, and what is no tensor, remain.
    assert disagreement(motion.signal, motion.gradients) < 0.7 * disagreement(signal, gradients)
    assert motion.signal.min() >= 0


def test_gradients_turn_with_the_head_in_any_storage():
    rng = np.random.default_rng(0)
    gradients = table()
    turn = Rotation.from_rotvec([0.2, -0.1, 0.15]).as_matrix()
    oblique = LAS.copy()
    oblique[:3, :3] = Rotation.from_rotvec([0.1, 0.3, -0.2]).as_matrix() @ LAS[:3, :3]
    transforms = np.broadcast_to(np.eye(4), (len(gradients.is_b0), 4, 4)).copy()
    transforms[:, :3, :3] = turn
    for affine in (RAS, LAS, oblique):
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        turned = turn_gradients(gradients, transforms, affine).directions
        for fibre in rng.normal(size=(5, 3)):
            # A fibre of the still head, turned with it, meets the scanner's gradient as it was applied.
            measured = (gradients.directions @ axes.T) @ (turn @ fibre)
            assert turned @ axes.T @ fibre == pytest.approx(measured, abs=1e-12)


def test_a_head_that_holds_still_is_left_alone():
    gradients = table()
    signal, mask = head(RAS, gradients, [np.eye(4)] * len(gradients.is_b0))
    motion = correct_motion(signal, gradients, RAS, mask)
    shift_mm, turn_deg = errors(motion.transforms, [np.eye(4)] * len(gradients.is_b0))
    # A hundredth of a voxel or so, from noise alone.
    assert shift_mm.max() < 0.15
    assert turn_deg.max() < 0.2
    assert np.median(motion.displacement.head_mm) < 0.3


EDDY_MM = np.array([[0.3, 0, 0], [0.6, -0.3, 1.1], [0, 0.2, 0.5]])
"""Shift of an image, along the columns' gradients."""


def test_one_b0_is_joined_to_the_head_and_not_to_the_eddy_currents_of_the_volume_beside_it():
    gradients = table(18, b0_every=18)
    most = np.argmax(np.linalg.norm(gradients.directions @ EDDY_MM.T, axis=1))
    gradients.directions[[1, most]] = gradients.directions[[most, 1]]
    truth = [movement_of(EDDY_MM @ g, np.zeros(3), np.zeros(3)) for g in gradients.directions]
    beside = np.linalg.norm(EDDY_MM @ gradients.directions[1])
    assert beside > 1.0
    signal, mask = head(RAS, gradients, truth)
    motion = correct_motion(signal, gradients, RAS, mask)
    weighted = ~gradients.is_b0
    rest = [np.linalg.inv(t) @ f for f, t in zip(motion.transforms, truth, strict=True)]
    off_mm = np.median([shift_of(m, np.zeros(3)) for m in rest], axis=0)
    # A twentieth of a voxel; all were off by what shifts the volume beside the b0.
    assert np.linalg.norm(off_mm) < 0.2
    assert motion.displacement.head_mm.mean() < 0.35
    shifted = np.abs(gradients.directions @ EDDY_MM.T).sum(axis=1)[weighted]
    assert motion.displacement.eddy_mm[weighted].mean() == pytest.approx(shifted.mean(), abs=0.3)
    assert not motion.displacement.eddy_mm[0]
    assert motion.displacement.b0_mm.size == 0


def split(movements, gradients):
    place = Place(RAS, np.zeros((1, 3), dtype=np.int64), np.array([5.0, -3, 8]), 50.0)
    return without_eddy(np.array(movements), gradients, place), place


@pytest.mark.parametrize(("in_order", "within_mm"), [(False, 0.1), (True, 0.4)])
def test_what_follows_the_gradient_is_told_from_a_head_that_wanders(in_order, within_mm):
    """In a table that runs from pole to pole, the gradient changes as slowly as a head that drifts."""
    gradients = table(30, b0_every=15)
    if in_order:  # from pole to pole, as some scanners do
        order = np.argsort(np.where(gradients.is_b0, -2, gradients.directions[:, 2]))
        gradients = Gradients(gradients.b_values_s_per_mm2[order], gradients.directions[order])
    rng = np.random.default_rng(3)
    path = np.cumsum(rng.normal(0, 0.1, (len(gradients.is_b0), 3)), axis=0)
    path[20:] += 4.0  # and jerks once
    turn = np.radians(path / 2)
    place = split([np.eye(4)] * len(path), gradients)[1]
    true = [movement_of(s, t, place.centre_mm) for s, t in zip(path, turn, strict=True)]
    seen = [
        movement_of(s + EDDY_MM @ g, t, place.centre_mm)
        for s, t, g in zip(path, turn, gradients.directions, strict=True)
    ]
    head_only, _ = split(seen, gradients)
    shift_mm, turn_deg = errors(head_only, true)
    weighted = ~gradients.is_b0
    assert np.sqrt(np.mean(shift_mm[weighted] ** 2)) < within_mm
    assert np.sqrt(np.mean(turn_deg[weighted] ** 2)) < within_mm
    assert np.array_equal(head_only[gradients.is_b0], np.array(seen)[gradients.is_b0])


def test_a_head_without_eddy_currents_keeps_its_movement():
    gradients = table(30, b0_every=15)
    rng, taken = np.random.default_rng(8), []
    for _ in range(20):
        path = rng.normal(0, 1.0, (len(gradients.is_b0), 3))
        seen = [movement_of(s, np.zeros(3), np.zeros(3)) for s in path]
        head_only, _ = split(seen, gradients)
        taken.append(np.mean(errors(head_only, seen)[0] ** 2) / 3.0)
    # Three of 29 numbers are fitted: a tenth of the variance by chance alone, less what is shrunk.
    assert np.mean(taken) < 0.1


def test_too_few_volumes_are_left_as_they_are():
    gradients = table(9, b0_every=9)
    seen = [movement_of(EDDY_MM @ g, np.zeros(3), np.zeros(3)) for g in gradients.directions]
    assert np.array_equal(split(seen, gradients)[0], np.array(seen))


def test_displacement_adds_shifts_and_turns_on_the_sphere():
    shifted = movement_of(np.array([1.0, -2, 0]), np.zeros(3), np.zeros(3))
    turned = movement_of(np.zeros(3), np.array([0, 0.01, 0]), np.zeros(3))
    steps = np.array([np.eye(4), shifted, np.eye(4), turned])
    found = framewise_displacement(steps, centre_mm=np.zeros(3), radius_mm=50.0)
    assert found == pytest.approx([0, 3.0, 3.0, 0.5], abs=1e-12)


def test_displacement_does_not_depend_on_where_the_origin_is():
    centre = np.array([30.0, -20, 55])
    steps = np.array([np.eye(4), movement_of(np.array([0.5, 0, 0]), np.array([0, 0, 0.02]), centre)])
    found = framewise_displacement(steps, centre_mm=centre, radius_mm=50.0)
    assert found[1] == pytest.approx(0.5 + 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s, g, m: (s, Gradients(g.b_values_s_per_mm2 + 1000, g.directions), m),
            "from the first b0; there",
        ),
        (lambda s, g, m: (s[..., 1:], g, m), "26.*27 gradients do not fit"),
        (lambda s, g, m: (s, g, m & False), "the brain has 0 voxels of 4x4x4 mm; 200 or more"),
    ],
)
def test_what_cannot_be_followed_is_refused(change, message):
    gradients = table()
    signal = np.ones((*SHAPE, len(gradients.is_b0)), dtype=np.float32)
    signal, gradients, mask = change(signal, gradients, np.ones(SHAPE, dtype=bool))
    with pytest.raises(DataError, match=message):
        correct_motion(signal, gradients, RAS, mask)
