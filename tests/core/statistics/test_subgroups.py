"""Agreement by sex and by age: the sum of a group is that of its children, and few are not told of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.errors import DataError
from esn_core.statistics.agreement import evaluation_rows
from esn_core.statistics.agreement_estimates import estimates
from esn_core.statistics.subgroups import SUBGROUPS, SUBGROUPS_OF, read_subgroups, subgroup_rows

GROUPS = {
    "girls": lambda age, sex: sex == 0,
    "boys": lambda age, sex: sex == 1,
    "younger than 6 years": lambda age, sex: age < 6,
    "6 to 11 years": lambda age, sex: (age >= 6) & (age < 12),
    "12 years and older": lambda age, sex: age >= 12,
}


def cohort(n, seed=0):
    rng = np.random.default_rng(seed)
    gase = rng.integers(1, 8, n).astype(float)
    said = np.clip(gase + rng.normal(size=n), 1, 7)
    return said, gase, rng.uniform(1, 18, n), rng.integers(0, 2, n).astype(float)


def test_a_groups_figures_are_those_of_its_own_children():
    said, gase, age, sex = cohort(200)
    age[:3] = 6.0, 12.0, 5.999  # a birthday begins the next band
    found = read_subgroups(
        subgroup_rows(said, gase, age, sex).sum(axis=0),
        noise_sd=0.0,
        minimum=5,
        rng=np.random.default_rng(0),
    )
    assert tuple(found) == SUBGROUPS_OF == tuple(GROUPS)
    for name, belongs in GROUPS.items():
        own = belongs(age, sex)
        assert found[name].r.value == pytest.approx(np.corrcoef(said[own], gase[own])[0, 1], abs=1e-9)
        assert found[name].mae.value == pytest.approx(np.abs(said - gase)[own].mean(), abs=1e-9)
        assert found[name].children.value == pytest.approx(own.sum())


@given(
    prediction=st.floats(-1e6, 1e6),
    gase=st.integers(1, 7),
    age=st.floats(-1e3, 1e3),
    sex=st.floats(-10, 10),
)
def test_no_row_is_longer_than_its_bound(prediction, gase, age, sex):
    row = subgroup_rows(np.array([prediction]), np.array([float(gase)]), np.array([age]), np.array([sex]))
    assert np.linalg.norm(row) <= SUBGROUPS.l2_bound * (1 + 1e-12)
    assert row.shape == (1, SUBGROUPS.dimension)


def test_the_longest_row_is_as_long_as_the_bound():
    row = subgroup_rows(np.array([7.0]), np.array([1.0]), np.array([9.0]), np.array([1.0]))
    assert np.linalg.norm(row) == pytest.approx(SUBGROUPS.l2_bound) == pytest.approx(math.sqrt(14))


@pytest.mark.parametrize("noise_sd", [0.0, 2.0])
def test_a_group_of_few_children_is_not_told_of(noise_sd):
    said, gase, age, sex = cohort(120)
    age[:] = 9.0
    age[:4] = 3.0
    rng = np.random.default_rng(1)
    total = subgroup_rows(said, gase, age, sex).sum(axis=0)
    total = total + rng.normal(0, noise_sd, total.shape)
    found = read_subgroups(total, noise_sd=noise_sd, minimum=5, rng=rng)
    assert found["younger than 6 years"] is None
    assert found["12 years and older"] is None
    assert found["6 to 11 years"].r.interval[0] > 0


def test_under_noise_a_group_is_read_as_the_whole_is():
    said, gase, age, sex = cohort(150)
    total = subgroup_rows(said, gase, age, sex).sum(axis=0)
    total = total + np.random.default_rng(2).normal(0, 1.0, total.shape)
    found = read_subgroups(total, noise_sd=1.0, minimum=5, rng=np.random.default_rng(3))
    girls = total[: evaluation_rows(said, gase).shape[1]]
    wanted = estimates(girls, noise_sd=1.0, fewest_children=4.0, rng=np.random.default_rng(3))
    assert found["girls"] == wanted


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(DataError, match="140 numbers"):
        read_subgroups(np.zeros(28), noise_sd=0.0, minimum=5, rng=np.random.default_rng(0))
