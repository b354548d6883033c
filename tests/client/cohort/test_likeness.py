"""Controls that differ from the children whom they judge are noticed, and those that do not are not."""

import pytest

from esn_client.cohort.likeness import differences, scanned_in_ways, standardised, strata
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
        "4 children are over 3 years younger or older than every control, 11.0 to 15.0",
        "80 % of the children are male, and 20 % of the controls",
    )
    assert told(children, []) == ()


def test_a_child_far_from_the_ages_of_all_controls_is_told_where_the_means_agree():
    controls = people("control", 10, age=9)  # 7 to 11
    children = [*people("dre", 20, age=9), *people("old", 1, age=16), *people("young", 1, age=6)]
    assert told(children, controls) == ()  # 14 and 4: three years off at most
    assert told([*children, *people("older", 1, age=16.5)], controls) == (
        "1 children are over 3 years younger or older than every control, 7.0 to 11.0",
    )


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


def test_people_who_are_judged_by_controls_that_were_scanned_otherwise_are_counted():
    def ways(few_in, controls_in=("A",) * 4):
        children = [*people("dre", 3, age=9, scanner="A"), *people("dreb", 2, age=9, scanner=few_in)]
        controls = [people(f"c{i}", 1, age=9, scanner=scanner)[0] for i, scanner in enumerate(controls_in)]
        scans = {p.label: ("64",) for p in (*children, *controls) if p.row["scanner"] == "A"}
        scans |= {p.label: ("15",) for p in children[3:]}
        scans |= {p.label: ("15",) for p in controls if p.row["scanner"] == "B"}
        return scanned_in_ways(
            [*children, *controls],
            scans,
            children={p.label for p in children},
            controls={p.label for p in controls},
            minimum_controls=3,
        )

    mixed = "3 children and 4 controls with 64; 2 children and 0 controls with 15"
    (words,) = ways("A")
    assert words.startswith("5 children and the 4 controls who judge them were scanned in 2 ways")
    assert words.endswith(mixed)
    # Too few controls of their own: all judge them.
    assert ways("B") == ways("A")
    # Enough: each is judged by people who were scanned alike.
    assert ways("B", ("A", "A", "A", "B", "B", "B")) == ()
