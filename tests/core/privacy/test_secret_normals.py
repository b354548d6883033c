"""The secret numbers are standard normal, and nobody draws them twice."""

import numpy as np
from scipy import stats

from esn_core.privacy.secret_normals import LARGEST, secret_normals


def test_they_are_standard_normal():
    drawn = secret_normals(200, 200)
    # 40,000 numbers: the largest distance of the distributions has quantile .9999999 at 2.9 / 200.
    assert stats.kstest(drawn.ravel(), "norm").statistic < 2.9 / 200
    assert drawn.shape == (200, 200)
    assert np.abs(drawn).max() <= LARGEST
    assert np.abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.45  # six standard errors


def test_they_are_never_the_same():
    assert not np.intersect1d(secret_normals(10, 10), secret_normals(10, 10)).size


def test_no_child_needs_none():
    assert secret_normals(0, 5).shape == (0, 5)


def test_the_generators_that_others_can_seed_do_not_matter(monkeypatch):
    np.random.seed(1)  # noqa: NPY002
    first = secret_normals(3, 3)
    np.random.seed(1)  # noqa: NPY002
    assert not np.array_equal(secret_normals(3, 3), first)
