"""The evaluation by sex and by age, through a whole study."""

import numpy as np
import pytest

from esn_server.report.outcome import result_of

ASKED = {"subgroups": True}


def test_the_figures_of_groups_are_those_of_the_same_children(make_consortium):
    consortium = make_consortium(exact=True, analyses=ASKED)
    findings = consortium.study()
    held_out = [cohort.held_out for cohort in consortium.cohorts.values()]
    age, sex = (np.concatenate([getattr(s, name) for s in held_out]) for name in ("age_years", "sex"))
    girls, boys = findings.subgroups["girls"], findings.subgroups["boys"]
    assert girls.children.value == pytest.approx((sex == 0).sum())
    assert boys.children.value == pytest.approx((sex == 1).sum())
    # Both sexes together are all children: so are their absolute errors.
    errors = sum(group.mae.value * group.children.value for group in (girls, boys))
    assert errors == pytest.approx(findings.agreement.mae * findings.agreement.children, abs=1e-6)
    bands = {
        "younger than 6 years": age < 6,
        "6 to 11 years": (age >= 6) & (age < 12),
        "12 years and older": age >= 12,
    }
    for name, belongs in bands.items():
        told = findings.subgroups[name]
        assert told.children.value == pytest.approx(belongs.sum())
    result = result_of(consortium.protocol, findings, run="r1", timing_s={})
    assert [group.name for group in result.subgroups] == list(findings.subgroups)
    assert "subgroups" not in result.absent


def test_a_study_that_does_not_ask_says_so(make_consortium):
    consortium = make_consortium(exact=True)
    result = result_of(consortium.protocol, consortium.study(), run="r1", timing_s={})
    assert result.subgroups is None
    assert result.absent["subgroups"] == "the protocol did not ask for it"


def test_under_noise_the_groups_have_a_price_of_their_own(make_consortium):
    shares = {"centre": 0.05, "association": 0.7, "gradient": 0.1, "calibration": 0.15}
    split = {**shares, "evaluation": 0.5, "subgroup-evaluation": 0.5}
    consortium = make_consortium(analyses=ASKED, shares=split)
    findings = consortium.study()
    assert (
        findings.price.of("subgroup-evaluation").noise_multiplier
        == findings.price.of("evaluation").noise_multiplier
    )
    assert findings.price.epsilon("held-out") == pytest.approx(8.0, abs=0.01)
    told = [found for found in findings.subgroups.values() if found is not None]
    assert all(found.children.interval[0] > 4.5 for found in told)
