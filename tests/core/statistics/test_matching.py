"""Children and controls side by side, from sums, against one table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.errors import DataError
from esn_core.statistics.matching import (
    COHORT,
    GROUPS,
    REASONS,
    cohort_rows,
    matching,
    noise_sd_of_age_variance,
)

PEOPLE = st.lists(
    st.tuples(st.sampled_from([*GROUPS, *REASONS]), st.floats(-5, 120), st.sampled_from([0.0, 1.0, 3.0])),
    min_size=1,
    max_size=30,
)


@given(PEOPLE)
def test_no_row_exceeds_the_bound(people):
    standing, age, sex = zip(*people, strict=True)
    rows = cohort_rows(standing, np.array(age), np.array(sex))
    assert rows.shape == (len(people), COHORT.dimension)
    assert (np.linalg.norm(rows, axis=1) <= COHORT.l2_bound * (1 + 1e-15)).all()


def test_the_figures_equal_those_of_one_table_and_reasons_are_counted():
    rng = np.random.default_rng(3)
    standing = ["child"] * 60 + ["control"] * 40 + ["no-connectome"] * 7 + ["no-score"] * 4
    age, sex = rng.uniform(3, 20, len(standing)), rng.integers(0, 2, len(standing)).astype(float)
    found = matching(cohort_rows(standing, age, sex).sum(axis=0), minimum=5)
    assert found.children.people == 60
    assert found.children.mean_age_years == pytest.approx(age[:60].mean(), rel=1e-12)
    assert found.controls.sd_age_years == pytest.approx(age[60:100].std(ddof=1), rel=1e-10)
    assert found.controls.share_male == pytest.approx(sex[60:100].mean(), rel=1e-12)
    spread = np.sqrt((age[:60].var(ddof=1) + age[60:100].var(ddof=1)) / 2)
    assert found.age_difference == pytest.approx((age[:60].mean() - age[60:100].mean()) / spread, rel=1e-10)
    assert found.left_out == {"no-connectome": 7.0, "poor-quality": None, "no-score": None}


def test_noise_that_leaves_nothing_possible_leaves_no_figure():
    total = np.zeros(COHORT.dimension)
    total[:4] = [10, 50, -3, 20]
    found = matching(total, minimum=5)
    assert (found.children.mean_age_years, found.children.share_male) == (None, None)
    assert (found.age_difference, found.sex_difference) == (None, None)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(DataError, match="a cohort sum holds 11 finite numbers"):
        matching(np.zeros(4), minimum=5)


def test_the_noise_in_the_variance_of_ages_is_what_draws_of_it_show():
    rng = np.random.default_rng(4)
    age = rng.uniform(3, 20, 400)
    total = cohort_rows(["child"] * 400, age, np.zeros(400)).sum(axis=0)
    drawn = [
        matching(total + rng.normal(0, 1.5, len(total)), minimum=5).children.sd_age_years ** 2
        for _ in range(2000)
    ]
    said = noise_sd_of_age_variance(400, age.mean(), age.std(ddof=1), noise_sd=1.5)
    # Of 2000 draws, the standard deviation is known to 1.6 %; the rest is the second order.
    assert np.std(drawn) == pytest.approx(said, rel=0.06)
