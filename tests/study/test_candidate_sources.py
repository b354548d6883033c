"""A whole study under each source of candidates."""

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template
from esn_core.severity_network.candidates import candidates_of
from esn_server.report.outcome import result_of
from esn_server.study.study import run_study

ATLAS, TEMPLATE = load_atlas("phantom-28"), load_template("phantom-28", simulated=True)
AFFECTED = np.flatnonzero(TEMPLATE.present)[:20]  # as tests/study/conftest.py draws them
LISTED = np.flatnonzero(TEMPLATE.present)[10:50]
PAIRS = [[ATLAS.names[a], ATLAS.names[b]] for a, b in ATLAS.edges[LISTED]]


@pytest.fixture
def study_with(make_consortium, protocol_content, monkeypatch):
    """A function that runs a study without noise under the given selection."""

    def run(**selection):
        monkeypatch.setitem(protocol_content, "severity_network", selection)
        consortium = make_consortium(exact=True)
        findings = run_study(
            consortium.signed,
            run="r1",
            asking=consortium.rounds,
            rng=np.random.default_rng(0),
        )
        return consortium, findings

    return run


def association_dimensions(consortium):
    """The numbers in each site's association release, as its ledger has them."""
    kinds = [
        (entry.charge.release, entry.charge.dimension)
        for ledger in consortium.ledgers.values()
        for entry in ledger.entries()
    ]
    return {dimension for release, dimension in kinds if release == "association"}


def note_of(consortium, findings):
    return result_of(consortium.protocol, findings, run="r1", timing_s={}).severity_network.note


def test_modules_release_one_number_for_each_pair_of_modules(study_with):
    consortium, findings = study_with(candidates="modules")
    chosen = candidates_of("modules", ATLAS, TEMPLATE.present)
    assert association_dimensions(consortium) == {chosen.released}
    assert chosen.released < len(chosen.edges) == len(findings.network.edges)
    for block in range(chosen.released):
        assert len(set(findings.network.weight[chosen.blocks == block].tolist())) == 1
    assert findings.agreement.r > 0.5
    assert (
        "by pairs of modules"
        in result_of(consortium.protocol, findings, run="r1", timing_s={}).severity_network.note
    )


def test_a_list_releases_one_number_for_each_listed_pair(study_with):
    consortium, findings = study_with(candidates="list", pairs=PAIRS)
    assert association_dimensions(consortium) == {40}
    assert np.array_equal(findings.network.edges, LISTED)
    found = findings.network.edges[findings.network.retained]
    assert len(np.intersect1d(found, AFFECTED)) >= 8
    assert "public only for children who were not in its study" in note_of(consortium, findings)
