"""Tests of sampling: SciPy's interpolation is the oracle, inside of an image and beyond its edges."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform, map_coordinates
from scipy.spatial.transform import Rotation

from esn_client.imaging.preprocessing.sampling import resample_lines, resample_splines, sample_lines

MOVES = {
    "nothing": (np.zeros(3), np.zeros(3)),
    "a little": (np.array([0.05, -0.03, 0.08]), np.array([0.7, -0.4, 0.2])),
    "beyond the edges": (np.array([0.4, 0.2, -0.3]), np.array([9.0, -8.0, 3.0])),
}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(100, 20, (18, 15, 11)).astype(np.float32)


@pytest.fixture(scope="module", params=MOVES)
def at(request):
    turn, shift = MOVES[request.param]
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), shift
    return found


@pytest.mark.parametrize(("ours", "order"), [(resample_lines, 1), (resample_splines, 3)])
def test_a_grid_is_sampled_as_scipy_samples_it(image, at, ours, order):
    theirs = affine_transform(image, at[:3, :3], at[:3, 3], order=order, mode="nearest")
    # float32 of values near 100; SciPy keeps coefficients of splines in float64.
    assert ours(image, at) == pytest.approx(theirs, abs=2e-4)


def test_places_are_sampled_as_scipy_samples_them(image, at):
    places = np.random.default_rng(1).uniform(-3, 20, (400, 3))
    theirs = map_coordinates(image, (places @ at[:3, :3].T + at[:3, 3]).T, order=1, mode="nearest")
    assert sample_lines(image, at, places) == pytest.approx(theirs, abs=2e-5)
