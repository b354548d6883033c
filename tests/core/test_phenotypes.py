"""The data dictionary: what a value may be, and where it lies in its public range."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from esn_core.errors import DataError
from esn_core.phenotypes import Phenotype, scaled

AGE = Phenotype(kind="number", unit="years", range=(0, 21))
SEX = Phenotype(kind="category", codes=("F", "M"))


def test_values_are_read_in_their_unit_and_missing_ones_are_not_a_number():
    assert AGE.value("10.5") == 10.5
    assert (SEX.value("F"), SEX.value("M")) == (0.0, 1.0)
    assert math.isnan(AGE.value("n/a"))
    assert math.isnan(SEX.value("n/a"))


@pytest.mark.parametrize("text", ["22", "-1", "ten", "", "nan", "inf", "1e999"])
def test_what_lies_outside_the_range_is_refused(text):
    with pytest.raises(DataError, match=r"must be 0 to 21 \(years\) or n/a, not"):
        AGE.value(text)


def test_another_code_is_refused():
    with pytest.raises(DataError, match="must be F or M or n/a, not 'female'"):
        SEX.value("female")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"kind": "number", "unit": "years"}, "a number has a unit and a range"),
        ({"kind": "number", "range": (0, 1)}, "a number has a unit and a range"),
        ({"kind": "number", "unit": "years", "range": (1, 1)}, "a range goes upwards"),
        ({"kind": "category", "codes": ("F",)}, "a category has two codes"),
        ({"kind": "category", "codes": ("F", "F")}, "a category has two codes"),
        ({"kind": "category", "codes": ("F", "M"), "unit": "years"}, "no unit or range"),
    ],
)
def test_an_incomplete_explanation_is_refused(rules, words):
    with pytest.raises(ValidationError, match=words):
        Phenotype.model_validate(rules)


@example(1.7e308, 0.0, 1.0)
@given(st.floats(allow_nan=False), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_scaled_values_lie_between_minus_one_and_one(value, low, width):
    (place,) = scaled(np.array([value]), (low, low + width))
    assert -1 <= place <= 1


def test_the_ends_and_the_middle_of_a_range_are_where_they_should_be():
    assert scaled(np.array([0.0, 10.5, 21.0]), AGE.span).tolist() == [-1.0, 0.0, 1.0]
    assert np.isnan(scaled(np.array([np.nan]), AGE.span)).all()
