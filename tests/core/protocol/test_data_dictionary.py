"""The data dictionary: what a value may be, and where it lies in its public range."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from esn_core.protocol.data_dictionary import Phenotype, scaled

AGE = Phenotype(kind="number", unit="years", range=(0, 21))
SEX = Phenotype(kind="category", codes=("F", "M"))


def read(phenotype, *texts):
    return phenotype.values(pd.Series(texts, dtype=pd.StringDtype())).tolist()


def one_by_one(phenotype, text):
    """Read one field, one rule after the other."""
    if phenotype.kind == "category":
        return float(phenotype.codes.index(text)) if text in phenotype.codes else math.nan
    # Not all that Python takes for a number is one in a table: '1_0', ' 7', 'nan', digits of other scripts.
    if not text.isascii() or not set(text.lower()) <= set("0123456789.e+-"):
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return math.nan
    low, high = phenotype.range
    return number if low <= number <= high else math.nan


FIELD = st.text(st.sampled_from("0123456789.eE+-_ ,naif/FM٣"), max_size=7) | st.sampled_from(
    ["n/a", "F", "M"]
)


@example(
    ["10.5", "n/a", "22", "-1", "ten", "", "nan", "inf", "1e999", "1_0", " 7", "7,5", "٣", "0x5", "True"]
)
@given(st.lists(FIELD, max_size=20))
def test_a_column_is_read_as_field_by_field(texts):
    for phenotype in (AGE, SEX):
        expected = [one_by_one(phenotype, text) for text in texts]
        assert read(phenotype, *texts) == pytest.approx(expected, nan_ok=True, abs=0, rel=0)


def test_values_are_read_in_their_unit_and_missing_ones_are_not_a_number():
    assert read(AGE, "10.5", "0.1", "21") == [10.5, 0.1, 21.0]
    assert read(SEX, "F", "M") == [0.0, 1.0]
    assert np.isnan(read(AGE, "n/a") + read(SEX, "n/a")).all()


@pytest.mark.parametrize(
    "text", ["22", "-1", "ten", "", "nan", "inf", "1e999", "21.0001", "1_0", " 7", "7,5"]
)
def test_what_lies_outside_the_range_or_is_no_number_is_no_value(text):
    assert np.isnan(read(AGE, text)).all()


def test_another_code_is_no_value():
    assert np.isnan(read(SEX, "female", "f", "")).all()


def test_what_a_field_may_be_is_said_in_words():
    assert AGE.expected == "0 to 21 (years) or n/a"
    assert SEX.expected == "F or M or n/a"


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
