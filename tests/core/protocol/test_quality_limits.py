"""Tests of quality limits."""

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from esn_core.protocol.imaging_recipe import recipe_settings
from esn_core.protocol.newer_settings import canonical_content
from esn_core.protocol.quality_limits import AtLeast, AtMost, QualityLimits, overall, quantity

SETTINGS = tomllib.loads(
    files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text()
)
LIMITS = QualityLimits(**SETTINGS["quality"])
NUMBERS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("limit", "value", "verdict"),
    [
        (AtLeast(warn=2, fail=1), 2.0, "pass"),
        (AtLeast(warn=2, fail=1), 1.9, "warn"),
        (AtLeast(warn=2, fail=1), 1.0, "warn"),
        (AtLeast(warn=2, fail=1), 0.9, "fail"),
        (AtMost(warn=1, fail=2), 1.0, "pass"),
        (AtMost(warn=1, fail=2), 1.1, "warn"),
        (AtMost(warn=1, fail=2), 2.1, "fail"),
        (AtMost(warn=1, fail=2), None, "not measured"),
        (AtMost(warn=1, fail=2), float("nan"), "fail"),
        (AtLeast(warn=1, fail=0), float("inf"), "fail"),
    ],
)
def test_a_number_is_judged(limit, value, verdict):
    assert limit.judge(value) == verdict


@given(NUMBERS, NUMBERS, NUMBERS)
def test_more_is_never_worse_for_least_and_never_better_for_most(low, high, value):
    low, high = sorted((low, high))
    rank = ["fail", "warn", "pass"].index
    least, most = AtLeast(warn=high, fail=low), AtMost(warn=low, fail=high)
    assert rank(least.judge(value)) <= rank(least.judge(value + 1))
    assert rank(most.judge(value)) >= rank(most.judge(value + 1))


def test_limits_in_the_wrong_order_are_refused_together():
    wrong = SETTINGS["quality"] | {
        "assigned_percent": {"warn": 20, "fail": 40},
        "displacement_mm": {"warn": 3, "fail": 1},
    }
    with pytest.raises(ValidationError) as caught:
        QualityLimits(**wrong)
    assert [error["msg"] for error in caught.value.errors()] == [
        "Value error, more is worse: fail 1 must not be below warn 3",
        "Value error, less is worse: fail 40 must not be above warn 20",
    ]


@pytest.mark.parametrize("name", sorted(SETTINGS["quality"]))
def test_no_limit_has_a_default(name):
    with pytest.raises(ValidationError, match="Field required"):
        QualityLimits(**{key: value for key, value in SETTINGS["quality"].items() if key != name})


def test_two_limits_bracket_one_number():
    names = [quantity(name) for name in LIMITS.limits()]
    assert names.count("brain_ml") == 2
    verdicts = LIMITS.judge({"brain_ml": 100.0, "assigned_percent": 30.0})
    assert verdicts["brain_ml_least"] == "fail"
    assert verdicts["brain_ml_most"] == "pass"
    assert verdicts["assigned_percent"] == "warn"
    assert verdicts["displacement_mm"] == "not measured"


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        (("pass", "fail", "warn"), "fail"),
        (("pass", "warn", "not measured"), "warn"),
        (("pass", "not measured"), "pass"),
        (("not measured",), "not measured"),
        ((), "not measured"),
    ],
)
def test_the_worst_verdict_counts(verdicts, worst):
    assert overall(dict(enumerate(verdicts))) == worst


def test_labels_outside_of_the_brain_are_judged_where_a_protocol_has_a_limit_for_them():
    settings = recipe_settings("desikan-killiany-83")["quality"]
    numbers = {"labels_outside_percent": 28.0}
    assert QualityLimits(**settings).judge(numbers)["labels_outside_percent"] == "warn"
    del settings["labels_outside_percent"]
    older = QualityLimits(**settings)
    assert "labels_outside_percent" not in older.judge(numbers)
    assert "labels_outside_percent" not in canonical_content(older)
