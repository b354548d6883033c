"""A site without controls, judged by the others' pooled controls: real gates and ledgers in one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from esn_client.answers.study import Study
from esn_client.approval.review import review
from esn_client.cohort.scoring import scoring
from esn_client.gate.gate import Rows
from esn_client.gate.limits import Limits
from esn_client.privacy_audit.audit import audit_kind
from esn_client.privacy_audit.cheats import cheats
from esn_client.privacy_audit.rehearsal import Rehearsal, scratch_directory
from esn_core.analyses.planned_sums import kind_of
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.own_controls import ControlMoments, ControlReference
from esn_core.errors import ControlsError, GateError, ProtocolError, StudyError
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.candidates import listed_positions
from esn_core.severity_network.pooled_reference import reference_rows
from esn_server.report.outcome import result_of
from esn_server.study.votes import run_votes

ATLAS = load_atlas("phantom-28")
MASKED = {"trust": "secure-sum", "colluding_sites": 1}
FOUR = ("north", "south", "west", "east")


def no_noise(size, _sd):
    return np.zeros(size, dtype=np.int64)


@pytest.fixture
def pooling(make_consortium):
    return make_consortium(votes=True, pool_controls=True, **MASKED)


def found_by(consortium):
    return run_votes(consortium.signed, run="r1", asking=consortium.rounds)


def test_what_is_pooled_is_what_one_place_would_compute(pooling):
    found = found_by(pooling)
    at = listed_positions(ATLAS, found.pairs)
    added = []
    for cohort in pooling.cohorts.values():
        own = cohort.control_strengths
        added.append(np.where((own > 0).sum(axis=0) >= 5, own, np.nan))
    strengths = np.concatenate(added)
    assert np.isfinite(strengths[:, at]).mean() > 0.95
    moments = ControlMoments.of_controls(strengths[:, at])
    plain = ControlReference.of_moments(replace(moments, with_streamlines=moments.people))
    assert (found.reference.controls, found.reference.sites) == (len(strengths), 3) == (24, 3)
    # Four decimals are published.
    assert found.reference.mean == pytest.approx(np.nanmean(strengths[:, at], axis=0), abs=6e-5)
    assert found.reference.sd == pytest.approx(plain.sd, abs=6e-5)
    reference = found.reference.reference(ATLAS, found.pairs)
    child = np.nan_to_num(strengths[0]) + 1.0
    assert reference.scores(child)[at] == pytest.approx(plain.scores(child[at]), abs=1e-2)
    assert not reference.scores(child)[np.setdiff1d(np.arange(len(ATLAS.edges)), at)].any()


def test_no_edge_that_few_controls_of_a_site_have_is_summed_whoever_voted_for_it():
    strengths = np.full((9, 4), 2.0)
    strengths[4:, 0] = np.nan
    strengths[1:, 1] = 0.0
    strengths[5:, 2] = 0.0
    people, total, _ = reference_rows(strengths, np.ones(4, dtype=np.bool_)).sum(axis=0).reshape(3, 4)
    assert people.tolist() == [0, 0, 9, 9]
    assert (total > 0).tolist() == [False, False, True, True]


def test_controls_are_charged_for_votes_and_reference_and_nobody_else_is(pooling):
    found_by(pooling)
    for site, ledger in pooling.ledgers.items():
        assert [entry.charge.release for entry in ledger.entries()] == ["votes", "reference"]
        spent = ledger.spent()
        assert len(spent) == pooling.cohorts[site].controls
        assert {s.exact_releases for s in spent.values()} == {2}
    text = review(pooling.protocol)
    assert "becomes PUBLIC" in text
    assert "(limits.control_reference)" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("settings", [{"control_reference": False}, {"control_sums": False}, {"controls": 4}])
def test_a_site_without_its_own_consent_or_with_few_controls_refuses(make_consortium, settings):
    consortium = make_consortium(votes=True, pool_controls=True, **MASKED, **settings)
    with pytest.raises(StudyError, match="GateError"):
        found_by(consortium)
    assert not any(ledger.entries() for ledger in consortium.ledgers.values())


def test_a_centre_cannot_single_out_a_sites_controls(make_consortium, more_sites):
    """No sum of fewer sites than three, and for one set alone the seed that opens it."""
    consortium = make_consortium(votes=True, pool_controls=True, sites=FOUR, quorum=3, **MASKED)
    found_by(consortium)
    digest = consortium.protocol.sha256
    (asked,) = {
        body
        for node, body, _ in consortium.link.carried
        if node == 1
        and (q := consortium.link.read(body)).id.phase == "reference"
        and not q.reveal
        and not q.more
    }
    question = consortium.link.read(asked)
    hospital = consortium.link.hospitals[1]
    approved = hospital._approved(digest)
    for few in (("north",), ("north", "south")):
        with pytest.raises(ProtocolError, match="the protocol allows 3 or more"):
            hospital._gate.answered(replace(question, participants=few), approved)
    with pytest.raises(ProtocolError, match="was revealed for"):
        hospital._gate.reveal(replace(question, participants=FOUR[:3], reveal=True), approved)
    number = QuestionId(protocol_sha256=digest, run="r2", phase="reference", round=0, attempt=0)
    answer = hospital.reply(Question(number, FOUR).to_bytes(consortium.link.centre_key))
    assert b"Error" in answer


@pytest.fixture
def study_of(make_consortium, pooled_rules):
    """A function that makes the study of four sites, the last of which is judged by a pooled reference."""

    def make(**settings):
        settings = {**pooled_rules, "without_controls": ("east",), **MASKED, **settings}
        return make_consortium(sites=FOUR, **settings)

    return make


def test_a_site_without_controls_trains_nothing_and_its_held_out_children_are_predicted(study_of):
    analyses = {"cohort": True, "exact": ["cohort"]}
    consortium = study_of(noise=no_noise, analyses=analyses, consents=True)
    findings = consortium.study()
    cohorts = consortium.cohorts
    training = sum(len(c.training.participants) for c in cohorts.values())
    assert len(cohorts["east"].training.participants) == 0
    assert findings.agreement.children == pytest.approx(
        sum(len(c.held_out.participants) for c in cohorts.values()), abs=1e-4
    )
    assert findings.matching.children.people == pytest.approx(training, abs=1e-4)
    charged = {e.charge.release: len(e.charge.patients) for e in consortium.ledgers["east"].entries()}
    assert {name for name, people in charged.items() if people} == {"evaluation"}
    assert set(charged) == {e.charge.release for e in consortium.ledgers["north"].entries()}
    result = result_of(consortium.protocol, findings, run="r1", timing_s={})
    assert any("pooled controls: east" in words for words in result.warnings)
    assert "east" in result.harmonisation.note


def test_no_training_child_of_such_a_site_passes_its_gate(study_of):
    consortium = study_of()
    hospital, kind = consortium.link.hospitals[4], kind_of("centre", consortium.protocol)
    number = QuestionId(
        protocol_sha256=consortium.protocol.sha256, run="r1", phase="centre", round=0, attempt=0
    )
    labels = tuple(f"sub-{i:03d}" for i in range(9))
    rows = Rows(kind, np.zeros((9, kind.dimension)), labels)
    approved = hospital._approved(consortium.protocol.sha256)
    with pytest.raises(GateError, match="judges by other sites' controls"):
        hospital._gate.release(Question(number, FOUR), rows, approved)
    assert consortium.ledgers["east"].entries() == []


def test_every_analysis_goes_to_its_end_with_such_a_site(study_of):
    analyses = {
        "cohort": True,
        "cross_site": True,
        "folds": 2,
        "random_scores": 1,
        "explanation": True,
        "network": {"t_threshold": 2.5, "null_draws": 18, "bootstrap_draws": 0, "minimum_children": 16},
        "exact": ["cohort", "explanation", "network"],
    }
    findings = study_of(exact=True, analyses=analyses, centre="levels").study()
    assert findings.left_out == {}
    assert findings.exact_network.children == 3 * 16


def test_the_audit_plays_such_a_site_and_can_be_made_there(study_of):
    consortium = study_of()
    limits = Limits(
        epsilon_cap=8.01,
        delta=1e-3,
        minimum_children=5,
        trust="secure-sum",
        colluding_sites=1,
        exact_sums=False,
    )
    for site, phases in (("north", ("association", "evaluation")), ("east", ("evaluation",))):
        with scratch_directory() as scratch:
            rehearsed = Rehearsal(consortium.protocol, site=site, limits=limits, scratch=scratch)
            study = Study(site, rehearsed.protocol, consortium.cohorts[site], torch.device("cpu"))
            for phase in phases:
                found = audit_kind(
                    rehearsed,
                    study,
                    price_of(rehearsed.protocol).of(phase),
                    repeats=20,
                    rng=np.random.default_rng(0),
                    progress=lambda *_: None,
                )
                assert found.faults == ()
            attempts = cheats(rehearsed, study)
        assert {attempt.phase for attempt in attempts} == {p.phase for p in consortium.protocol.phases}
        assert not [attempt for attempt in attempts if attempt.answered and not attempt.covered]


def test_it_is_shown_to_whoever_reads_the_protocol(study_of):
    text = review(study_of().protocol)
    assert "WITHOUT OWN CONTROLS, judged by it: east." in text
    assert "the absolute score may be off by half a step" in text
    assert max(map(len, text.splitlines())) <= 110


def test_a_site_that_is_not_named_is_refused_by_name_and_told_what_to_do(study_of):
    protocol = study_of().protocol
    assert scoring([], protocol, site="east") is not None
    with pytest.raises(ControlsError, match=r"site north: 0 healthy controls .*cohort\.without_controls"):
        scoring([], protocol, site="north")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cohort": {"reference": None}}, "names east, and there is no pooled 'reference'"),
        ({"cohort": {"without_controls": ("elsewhere",)}}, "names sites of the roster"),
        ({"cohort": {"without_controls": ("east", "east")}}, "names sites of the roster, each once"),
        ({"cohort": {"without_controls": ("east", "west")}}, "may hold 2 sites that train"),
        ({"cohort": {"pool_controls": True}}, "belongs to a protocol by which the sites vote"),
        ({"cohort": {"harmonisation": "public-template"}}, "harmonisation 'site-controls'"),
        ({"rounds": {"quorum": 3}}, "may hold 2 sites that train"),
        ({"format": 1}, "is a setting of format 2"),
    ],
)
def test_what_does_not_go_together_is_refused(study_of, changes, words):
    content = study_of().protocol.model_dump()
    for name, table in changes.items():
        content[name] = {**content[name], **table} if isinstance(table, dict) else table
    with pytest.raises(ValidationError, match=words):
        Protocol.model_validate(content)


def test_pooling_asks_for_five_controls_of_each_site(pooling):
    content = pooling.protocol.model_dump()
    content["cohort"]["minimum_controls"] = 3
    with pytest.raises(ValidationError, match="minimum_controls of 5 or more"):
        Protocol.model_validate(content)
