"""Controls that differ from the children whom they judge are noticed, and those that do not are not."""

import pytest

from esn_client.cohort.likeness import differences, standardised, strata
from esn_client.cohort.participants import Participant


def people(group, count, *, age, sex=0.5, **row):
    return [
        Participant(f"sub-{group}{i}", age + (i % 5) - 2, float(i / count >= 1 - sex), group, None, row=row)
        for i in range(count)
    ]


def told(children, controls, least=3):
    return differences(
        [*children, *controls],
        children={p.label for p in children},
        controls={p.label for p in controls},
        minimum_controls=least,
    )


def test_the_difference_is_in_standard_deviations_of_the_groups():
    assert standardised([1, 3], [4, 6]) == pytest.approx(-3.0)
    assert standardised([2, 2], [2, 2]) == 0
    assert standardised([2, 2], [1, 1]) == float("inf")


def test_age_and_sex_are_told_where_they_differ():
    children = people("dre", 20, age=9, sex=0.8)
    assert told(children, people("control", 10, age=9.2, sex=0.7)) == ()
    assert told(children, people("control", 10, age=13, sex=0.2)) == (
        "children are 9.0 years old and controls 13.0, 2.8 sd apart",
        "80 % of the children are male, and 20 % of the controls",
    )
    assert told(children, []) == ()


def test_a_scanner_that_too_few_controls_were_in_is_named():
    def scanners(children, controls):
        return [words for words in told(children, controls) if "scanner" in words]

    children = [*people("dre", 6, age=9, scanner="A"), *people("dreb", 4, age=9, scanner="B")]
    alike = people("control", 10, age=9, scanner="A")
    assert scanners(children, alike) == [
        "4 children have scanner B, and 0 controls: they are judged by all controls together"
    ]
    assert scanners(children, [*alike, *people("controlb", 3, age=9, scanner="B")]) == []
    # One scanner for all, or none said: there is nothing to compare.
    assert scanners(people("dre", 6, age=9, scanner="A"), people("control", 2, age=9, scanner="A")) == []
    assert scanners(people("dre", 6, age=9), people("control", 9, age=9)) == []


def test_strata_with_controls_of_their_own_are_named_where_there_are_several():
    def named(*controls):
        children = [*people("dre", 6, age=9, scanner="A"), *people("dreb", 4, age=9, scanner="B")]
        return strata(
            [*children, *controls],
            children={p.label for p in children},
            controls={p.label for p in controls},
            minimum_controls=3,
        )

    a, b = people("control", 10, age=9, scanner="A"), people("controlb", 3, age=9, scanner="B")
    assert named(*a, *b) == ("scanner A by 10", "scanner B by 3")
    assert named(*a, *b[:2]) == ("scanner A by 10",)
