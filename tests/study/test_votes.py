"""Sites that vote on candidates: real gates and ledgers in one process."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from esn_client.approval.review import review
from esn_client.gate.ledger_report import LedgerReport
from esn_client.gate.limits import Limits
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ConfigError, StudyError
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_server.protocol.price_list import price_list
from esn_server.study.votes import run_votes

ATLAS = load_atlas("phantom-28")
MASKED = {"trust": "secure-sum", "colluding_sites": 1}


def vote(consortium):
    return run_votes(consortium.signed, run="r1", asking=consortium.rounds)


@pytest.fixture
def voting(make_consortium):
    return make_consortium(votes=True, **MASKED)


def test_the_list_is_what_the_controls_of_most_sites_have(voting):
    found = vote(voting)
    mine = np.array([(c.control_strengths > 0).mean(axis=0) >= 0.95 for c in voting.cohorts.values()])
    expected = ATLAS.edges[mine.sum(axis=0) >= 2]
    assert list(found.pairs) == [(ATLAS.names[a], ATLAS.names[b]) for a, b in expected]
    assert 0 < len(found.pairs) < len(ATLAS.edges)
    assert (found.origin.kind, found.origin.people) == ("votes", 9)
    assert voting.protocol.sha256[:16] in found.origin.note
    assert found.recipe_sha256 == voting.protocol.imaging.sha256


def test_controls_alone_are_charged_and_the_sum_is_exact(voting):
    vote(voting)
    for site, ledger in voting.ledgers.items():
        ((entry,), spent) = ledger.entries(), ledger.spent()
        assert (entry.charge.release, entry.charge.noise_multiplier) == ("votes", 0)
        assert len(entry.charge.patients) == voting.cohorts[site].controls == len(spent)
        assert {s.exact_releases for s in spent.values()} == {1}


def test_the_ledger_tells_controls_from_children(voting, make_consortium):
    """A hospital that voted still sees what its children have spent, and that controls have no epsilon."""
    vote(voting)
    limits = Limits(
        epsilon_cap=8.0, delta=1e-3, minimum_children=5, trust="local", colluding_sites=1, exact_sums=False
    )
    ledger = voting.ledgers["north"]
    report = LedgerReport(ledger, site="north", limits=limits)
    assert (report.facts["patients"], report.facts["controls"], report.facts["largest_epsilon"]) == (0, 8, 0)
    assert "8 healthy controls in exact sums, who have no epsilon" in report.in_words
    (entry,) = ledger.entries()
    both = replace(entry.charge, question="q2", release="cohort", noise_multiplier=2.0)
    child = replace(both, question="q3", release="centre", patients=("c" * 32,))
    for charge in (both, child):
        total = np.zeros(charge.dimension, dtype=np.int64)
        ledger.charge(charge, total, content_sha256="0" * 64, epsilon_cap=8.0, delta=1e-3)
    report = LedgerReport(ledger, site="north", limits=limits)
    assert (report.facts["patients"], report.facts["controls"]) == (1, 8)
    assert 1 < report.facts["largest_epsilon"] < 3


def test_the_study_takes_the_list_over_and_runs(voting, make_consortium, protocol_content, tmp_path):
    found = vote(voting)
    rules = {"candidates": "list", "pairs": found.pairs, "origin": found.origin.model_dump()}
    protocol = Protocol.model_validate(protocol_content | {"severity_network": rules})
    assert protocol.template is None
    assert len(protocol.candidates.edges) == len(found.pairs)
    assert "by the votes of sites" in review(protocol)


@pytest.mark.parametrize(
    ("settings", "error"), [({"control_sums": False}, "GateError"), ({"controls": 4}, "GateError")]
)
def test_a_site_without_consent_or_with_few_controls_refuses_and_nothing_is_charged(
    make_consortium, settings, error
):
    consortium = make_consortium(votes=True, **MASKED, **settings)
    with pytest.raises(StudyError, match=error):
        vote(consortium)
    assert not any(ledger.entries() for ledger in consortium.ledgers.values())


def test_a_protocol_of_votes_asks_for_nothing_else(voting, protocol_content):
    protocol = voting.protocol
    assert [phase.phase for phase in protocol.phases] == ["votes"]
    price = price_of(protocol)
    assert (price.exact, [p.phase for p in price.about_controls]) == ((), ["votes"])
    assert price.epsilon("training") == price.epsilon("held-out") == 0
    text = review(protocol)
    assert "There is NO epsilon. Of fewer than twenty controls, one who lacks" in text
    assert "No child with epilepsy is read" in text
    assert max(map(len, text.splitlines())) <= 110
    with pytest.raises(ConfigError, match="no child pays"):
        price_list(protocol, training_children=100, held_out_children=50)
    with pytest.raises(ConfigError, match="are voted on"):
        protocol.candidates  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"analyses": {"cohort": True}}, "asks for nothing else"),
        ({"privacy": {"trust": "local"}}, "votes need trust 'secure-sum'"),
        ({"privacy": {"shares": {"centre": 1.0}}}, "a share for centre, which is not asked"),
        ({"format": 1, "cohort": {"harmonisation": "own-controls"}}, "'votes' is of format 2"),
    ],
)
def test_what_does_not_go_with_votes_is_refused(voting, changes, words):
    content = voting.protocol.model_dump()
    for name, table in changes.items():
        content[name] = {**content[name], **table} if isinstance(table, dict) else table
    with pytest.raises(ValidationError, match=words):
        Protocol.model_validate(content)
