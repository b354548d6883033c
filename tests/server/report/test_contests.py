"""Verdicts on predicted and clinical severity are no surer than their one test, noise and number included."""

import itertools

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from esn_core.analyses.neurocognition import Model
from esn_core.protocol.analyses import Comparison, Outcome
from esn_core.statistics.model_comparison import Vuong
from esn_server.report.contests import contests_of, verdict_of
from esn_server.study.neurocognition import ModelFound, Neurocognition, Rivalry


def vuong(z, p, **more):
    rules = {"z_aic": z, "p_value_aic": p, "z_bic": z, "p_value_bic": p, "children": 100.0}
    return Vuong(z=z, p_value=p, **{**rules, "noise_sd_of_z": 0.0, "detectable": 6.0, **more})


def rivalry(aic=-8.0, z=3.0, p=0.003, *, noise=0.0, wrong=(), separated=(), failed=None, at=0):
    return Rivalry(
        predicted=2 * at,
        clinical=2 * at + 1,
        aic_difference=aic,
        bic_difference=aic,
        criterion_noise_sd=noise,
        wrong_way=wrong,
        separated=separated,
        vuong=None if z is None else vuong(z, p),
        area=None,
        added=None,
        failed=failed,
    )


def test_a_sure_verdict_names_its_test_and_its_p():
    said = verdict_of(rivalry(), 0.006)
    assert said == (
        "The predicted severity fits better by 8.0 units of AIC; Vuong's test agrees "
        "(p 0.003, 0.006 among all comparisons)."
    )
    assert "clinical severity fits better" in verdict_of(rivalry(aic=8.0, z=-3.0), 0.006)


def test_agreement_needs_the_same_sign():
    said = verdict_of(rivalry(aic=8.0, z=3.0), 0.006)
    assert "agrees" not in said
    assert "these children do not decide" in said


def test_a_difference_within_its_noise_is_no_verdict():
    said = verdict_of(rivalry(aic=-8.0, noise=5.0), 0.001)
    assert said.startswith("The privacy noise hides which severity fits better: the difference of -8.0")
    assert "agrees" in verdict_of(rivalry(aic=-11.0, noise=5.0), 0.001)


def test_what_the_study_could_have_seen_is_said_where_it_saw_nothing():
    assert "finds differences of 12.0 units of AIC or more" in verdict_of(rivalry(p=0.3, z=1.0), 0.3)


def test_a_better_fit_in_the_wrong_direction_speaks_against_a_severity():
    said = verdict_of(rivalry(wrong=("predicted_gase",)), 0.001)
    assert said.startswith("The predicted severity runs the wrong way")
    assert "agrees" not in said
    # The other one's direction takes nothing from the better one.
    assert "agrees" in verdict_of(rivalry(wrong=("gase",)), 0.001)


def test_two_separated_models_are_a_tie_and_one_is_no_test():
    assert "a tie" in verdict_of(rivalry(aic=0.0, z=None, separated=("predicted_gase", "gase")), None)
    assert "No test of this holds" in verdict_of(rivalry(z=None, separated=("gase",)), None)


def test_a_comparison_that_cannot_be_made_says_why():
    assert "cannot be compared: one of them could not be fitted" in verdict_of(rivalry(z=None), None)
    assert "cannot be compared: too few" in verdict_of(rivalry(z=None, failed="too few"), None)


@pytest.mark.parametrize("primary", [None, Comparison(outcome="o1")])
def test_p_are_held_to_the_comparisons_that_share_five_percent(primary):
    p = [0.001, 0.02, 0.03, 0.2]
    models = [
        ModelFound(
            Model(Outcome(name=f"o{i}", column="verbal_score", impaired_below=85.0), (s,)), *[None] * 6
        )
        for i, s in itertools.product(range(4), ("predicted_gase", "gase"))
    ]
    found = Neurocognition(tuple(models), tuple(rivalry(p=x, at=i) for i, x in enumerate(p)))
    held = [contest.vuong_p_held for contest in contests_of(found, primary)]
    others = [i for i in range(4) if primary is None or i != 1]
    assert np.array(held)[others] == pytest.approx(multipletests(np.array(p)[others], method="holm")[1])
    if primary is not None:
        assert held[1] == p[1]
        assert [contest.primary for contest in contests_of(found, primary)] == [False, True, False, False]


def test_no_comparison_needs_no_holding():
    assert contests_of(Neurocognition((), ()), None) == []
