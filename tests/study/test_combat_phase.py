"""ComBat as a protocol asks for it: the study is the one on children harmonised together."""

import numpy as np
import pytest
from pydantic import ValidationError

from esn_client.approval.review import review
from esn_core.errors import StudyError
from esn_core.gase import standardise_severity
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import CENTRE
from esn_core.statistics.combat import COVARIATE_NORM, COVARIATES, ComBatSite, combat_model, combat_rows
from esn_server.report.outcome import result_of
from esn_server.run.checkpoints import Checkpoints

RERUN = {"cross_site": True, "folds": 3, "random_scores": 1, "explanation": True}


def with_scanners(consortium, rng):
    """Give each site's children a shift and a scale of their own, in place."""
    for cohort in consortium.cohorts.values():
        shift, scale = rng.normal(0, 1.0, cohort.training.scores.shape[1]), np.exp(rng.normal(0, 0.3))
        for split in (cohort.training, cohort.held_out):
            present = split.scores != 0
            split.scores[:] = np.where(present, split.scores * scale + shift, 0.0)
    return consortium


def covariates(split, severity):
    return np.column_stack([(split.age_years - 10) / 10, split.sex - 0.5, severity])


def harmonised_together(consortium):
    """Each site's candidate edges after ComBat, from sums formed of all children at one place.

    That these are the scores of neuroCombat is what `tests/core/statistics/test_combat.py` shows.
    """
    edges = consortium.protocol.candidates.edges
    found = {}
    trained = {}
    for site, cohort in consortium.cohorts.items():
        split = cohort.training
        trained[site] = (split.scores[:, edges], covariates(split, standardise_severity(split.gase)))
    total = sum(combat_rows(z, x, covariate_norm=COVARIATE_NORM).sum(axis=0) for z, x in trained.values())
    model = combat_model(total, edges=len(edges), covariates=COVARIATES)
    for site, cohort in consortium.cohorts.items():
        own = ComBatSite.estimate(*trained[site], model)
        held_out = cohort.held_out
        found[site] = (
            own.apply(trained[site][0], covariates(cohort.training, np.zeros(len(trained[site][0])))),
            own.apply(held_out.scores[:, edges], covariates(held_out, np.zeros(len(held_out.gase)))),
        )
    return found


def test_the_study_is_that_of_children_who_were_harmonised_together(make_consortium, tmp_path):
    rng = np.random.default_rng(5)
    asked = with_scanners(
        make_consortium(exact=True, harmonisation="combat", trust="secure-sum", analyses=RERUN), rng
    )
    found = asked.study()
    edges = asked.protocol.candidates.edges
    ready = harmonised_together(asked)
    # The same study without any harmonisation, of scores that somebody harmonised beforehand.
    (tmp_path / "again").mkdir()
    plain = make_consortium(
        exact=True,
        analyses=RERUN,
        disks=dict.fromkeys(("sites", "centre", "memory"), tmp_path / "again"),
    )
    for site, cohort in plain.cohorts.items():
        for split, scores in zip((cohort.training, cohort.held_out), ready[site], strict=True):
            split.scores[:, edges] = scores
    expected = plain.study()
    # The sums of ComBat and those after it pass the fixed-point grid.
    assert found.network.weight == pytest.approx(expected.network.weight, abs=1e-6)
    assert found.weights == pytest.approx(expected.weights, abs=1e-4)
    assert found.agreement.r == pytest.approx(expected.agreement.r, abs=1e-4)
    assert found.attribution.mean == pytest.approx(expected.attribution.mean, abs=1e-4)
    for ours, theirs in zip(reruns(found), reruns(expected), strict=True):
        assert ours.agreement.r == pytest.approx(theirs.agreement.r, abs=1e-4)


def reruns(found):
    """All that the reruns found: every site, all of them, the random score, and the parts."""
    again = found.reruns
    return [*again.by_site.values(), again.across_sites, *again.random, again.across_parts]


def test_a_study_that_was_stopped_after_combat_goes_on_and_nobody_pays_twice(make_consortium):
    consortium = make_consortium(exact=True, harmonisation="combat", trust="secure-sum")
    checkpoints = Checkpoints(consortium.store, consortium.rounds)

    class Stops:
        roll_call = staticmethod(checkpoints.roll_call)

        @staticmethod
        def sum(question, kind):
            if question.id.phase == "association":
                raise KeyboardInterrupt
            return checkpoints.sum(question, kind)

    with pytest.raises(KeyboardInterrupt):
        consortium.study(Stops)
    found = consortium.study(checkpoints)
    # Combat, centre, association, three gradients, calibration, evaluation.
    assert {len(ledger.entries()) for ledger in consortium.ledgers.values()} == {8}
    combat_questions = [
        consortium.link.read(body)
        for node, body, _ in consortium.link.carried
        if node == 1 and consortium.link.read(body).id.phase == "combat"
    ]
    assert len(combat_questions) == 1
    assert np.isfinite(found.agreement.r)


def test_no_mean_of_a_site_leaves_and_the_sum_is_exact(make_consortium):
    consortium = make_consortium(exact=True, harmonisation="combat", trust="secure-sum")
    found = consortium.study()
    price = {phase.phase: phase for phase in found.price.phases}
    assert price["combat"].noise_multiplier == 0
    result = result_of(consortium.protocol, found, run="r1", timing_s={})
    assert result.harmonisation.method == "ComBat"
    assert "no privacy budget holds" in result.harmonisation.note
    assert result.privacy.epsilon_training_child is None
    assert result.privacy.epsilon_held_out_child is None
    assert "no healthy control enters" in result.privacy.controls_note
    text = review(consortium.protocol)
    assert "No epsilon bounds what any of the sums tells about one child" in text
    assert "estimated from its own controls" not in text


def test_a_question_before_the_shared_model_is_refused(make_consortium):
    consortium = make_consortium(exact=True, harmonisation="combat", trust="secure-sum")
    protocol = consortium.protocol
    asked = QuestionId(protocol_sha256=protocol.sha256, run="r1", phase="centre", round=0, attempt=0)
    with pytest.raises(StudyError, match=r"phase centre.*refused \(StudyError\)"):
        consortium.rounds.sum(Question(asked), CENTRE)


def test_combat_needs_consent(make_consortium):
    consortium = make_consortium(exact=True, consent=False, harmonisation="combat", trust="secure-sum")
    with pytest.raises(StudyError, match=r"roll-call.*north: refused \(GateError\)"):
        consortium.study()


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"noise": "gaussian", "trust": "secure-sum"}, "other children enter a child's harmonised scores"),
        ({"noise": "none", "trust": "local"}, "a site's own sums would give its means away"),
    ],
)
def test_combat_without_its_conditions_is_refused(protocol_content, privacy, words):
    content = {**protocol_content, "cohort": {**protocol_content["cohort"], "harmonisation": "combat"}}
    content["privacy"] = {**content["privacy"], **privacy}
    with pytest.raises(ValidationError, match=words):
        Protocol.model_validate(content)
