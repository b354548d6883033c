"""A study that counts its children by GASE: centred where residuals cancel; no exact cell is of a few."""

import numpy as np
import pytest

from esn_core.messages.question import Question
from esn_core.privacy.accounting import NO_NOISE, compose
from esn_core.severity_network.centring import centre_of, level_rows, without_small_levels


def asked_with(consortium, phase):
    """What the centre sent with the questions of a phase."""
    questions = [
        Question.from_bytes(body, consortium.link.centre_key.public_key())
        for _, body, _ in consortium.link.carried
    ]
    return [question for question in questions if question.id.phase == phase]


def test_an_exact_study_is_centred_by_levels_that_no_few_children_share(make_consortium):
    consortium = make_consortium(exact=True, centre="levels")
    consortium.study()
    rows = [level_rows(cohort.training.gase) for cohort in consortium.cohorts.values()]
    assert any(0 < count < 5 for site in rows for count in site.sum(axis=0))
    held = sum(without_small_levels(site, fewest=5).sum(axis=0) for site in rows)
    _, centre = centre_of(held, centring="levels", fewest_children=15.0)
    sent = {float(q.array("mean_severity", 1)[0]) for q in asked_with(consortium, "association")}
    assert sorted(sent) == pytest.approx([centre], abs=1e-9)


def test_a_private_study_counts_levels_within_its_budget(make_consortium):
    consortium = make_consortium(centre="levels")
    findings = consortium.study()
    assert np.isfinite(findings.network.weight).all()
    assert findings.price.of("centre").noise_multiplier > NO_NOISE
    for ledger in consortium.ledgers.values():
        spent = max(compose(each.noisy) for each in ledger.spent().values())
        assert spent == pytest.approx(findings.price.mu("training"), rel=1e-12)
