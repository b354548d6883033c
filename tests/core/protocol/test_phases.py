"""The table of phases is whole: every phase has words, and a part of the budget or a reason for none."""

from typing import get_args

import pytest

from esn_core.protocol.analyses import Analyses
from esn_core.protocol.phases import PHASES, Asked, PhaseName, planned_phases

NEUROCOGNITION = {
    "rounds": 6,
    "models": [["gase"]],
    "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 85.0}],
}
NETWORK = {"t_threshold": 3.0, "null_draws": 60, "bootstrap_draws": 30, "minimum_children": 50}
ALL = {
    "cohort": True,
    "cross_site": True,
    "folds": 3,
    "random_scores": 2,
    "subgroups": True,
    "explanation": True,
    "network": NETWORK,
    "neurocognition": NEUROCOGNITION,
    "exact": ["network", "neurocognition"],
}


def asked(analyses, *, training_rounds=3, local_steps=1, combat=False, votes=False, reference=False):
    return Asked(
        training_rounds=training_rounds,
        local_steps=local_steps,
        combat=combat,
        analyses=Analyses.model_validate(analyses),
        votes=votes,
        reference=reference,
    )


def planned(analyses, **rules):
    return {phase.phase: phase.releases for phase in planned_phases(asked(analyses, **rules))}


def test_every_name_has_its_entry_in_the_same_order():
    assert tuple(PHASES) == get_args(PhaseName)


@pytest.mark.parametrize("name", PHASES)
def test_what_leaves_is_said_in_one_line_of_the_review(name):
    assert 20 <= len(PHASES[name].leaves) <= 106  # of 110, behind an indent of four


@pytest.mark.parametrize("name", [name for name in PHASES if PHASES[name].children is not None])
def test_a_phase_has_a_part_of_the_budget_unless_it_never_has_noise(name):
    phase = PHASES[name]
    assert (phase.share is None) == (phase.exact == "always")
    assert phase.share is None or 0 < phase.share <= 1


def test_the_roll_call_alone_touches_no_child_and_is_not_planned():
    assert [name for name, phase in PHASES.items() if phase.children is None] == ["roll-call"]
    assert "roll-call" not in planned(ALL)


def test_a_plain_study_has_five_phases_and_one_of_everything_has_all():
    assert planned({}) == {"centre": 1, "association": 1, "gradient": 3, "calibration": 1, "evaluation": 1}
    assert planned(ALL, votes=True) == {"votes": 1}
    everything = {
        **planned(ALL, combat=True),
        **planned(ALL, local_steps=4),
        **planned({}, votes=True, reference=True),
    }
    assert set(everything) == set(PHASES) - {"roll-call"}
    assert {name: n for name, n in everything.items() if n > 1} == {
        "gradient": 3,
        "local-update": 3,
        "network-null": 3,
        "network-bootstrap": 2,
        "newton": 6,
    }


def test_phases_are_planned_in_the_order_of_the_table():
    names = list(planned(ALL, combat=True))
    assert names == [name for name in PHASES if name in names]


@pytest.mark.parametrize(
    ("analyses", "rules", "exact"),
    [
        ({"cohort": True, "explanation": True}, {}, set()),
        ({"cohort": True, "exact": ["cohort"]}, {}, {"cohort"}),
        ({"explanation": True, "exact": ["explanation"]}, {}, {"attribution"}),
        ({"neurocognition": NEUROCOGNITION}, {}, set()),
        (
            {"neurocognition": NEUROCOGNITION, "exact": ["neurocognition"]},
            {},
            {"linear", "newton", "comparison", "ranking"},
        ),
        (
            {"network": NETWORK, "exact": ["network"]},
            {},
            {"network", "network-null", "network-bootstrap"},
        ),
        ({}, {"combat": True, "local_steps": 3}, {"combat", "local-update"}),
    ],
)
def test_what_is_exact_is_what_was_declared_or_can_be_nothing_else(analyses, rules, exact):
    assert {p.phase for p in planned_phases(asked(analyses, **rules)) if p.exact} == exact


def test_reruns_are_evaluated_by_those_whom_they_left_out():
    assert "fold-evaluation" not in planned({"cross_site": True})
    assert "rerun-evaluation" not in planned({"folds": 3})
    assert set(planned({"folds": 3})) - set(planned({})) == {
        "rerun-association",
        "rerun-calibration",
        "fold-evaluation",
    }
