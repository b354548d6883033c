"""A site's offset: the mean of its own controls, shrunk towards none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_core.connectome.control_offset import control_offset


@given(controls=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), shrinkage=st.sampled_from([1.5, 6.0]))
def test_the_offset_is_the_shrunk_mean(controls, seed, shrinkage):
    scores = np.random.default_rng(seed).normal(size=(controls, 5))
    slow = [sum(scores[:, edge]) / controls * controls / (controls + shrinkage) for edge in range(5)]
    found = control_offset(scores, shrinkage_controls=shrinkage)
    assert found == pytest.approx(slow, rel=1e-12, abs=1e-14)  # another order of additions


def test_without_controls_there_is_no_offset():
    assert np.array_equal(control_offset(np.zeros((0, 4))), np.zeros(4))


def test_many_controls_give_the_scanners_own_shift():
    shift = np.array([2.0, -1.0])
    scores = shift + np.random.default_rng(0).normal(size=(5000, 2))
    # Standard error .014 and shrinkage of .1 %: six standard errors.
    assert control_offset(scores) == pytest.approx(shift, abs=0.09)
