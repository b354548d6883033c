"""The exact network over a federation, against the same children on one table."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from statsmodels.stats.multitest import multipletests

from esn_client.answers.hospital import rows_of
from esn_client.answers.study import Study
from esn_client.approval.review import review
from esn_core.analyses.planned_sums import kind_of
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError, StudyError
from esn_core.gase import standardise_severity
from esn_core.protocol.analyses import DRAWS_AT_ONCE, Analyses, NetworkRules
from esn_core.severity_network.bootstrap import SEVERITY_SD
from esn_core.severity_network.components import components
from esn_core.severity_network.exact import ExactNetwork
from esn_core.severity_network.exact_releases import centred, design
from esn_core.transcript.arguments import Arguments
from esn_core.transcript.course import Course
from esn_core.transcript.released import Released
from esn_server.report.analyses_outcome import exact_network_of
from esn_server.study.exact_network import _retained, run_network

SITES = ("north", "south", "west", "east")
# Four sites of 16 children, one of which may collude: 3 (16 - 1) - 3 = 42 draws would be too many.
RULES = {"t_threshold": 2.5, "null_draws": 18, "bootstrap_draws": 15, "minimum_children": 16}
ANALYSES = {"network": RULES, "exact": ["network"]}
MASKED = {"trust": "secure-sum", "sites": SITES}


@pytest.fixture(scope="module")
def rules():
    return Analyses.model_validate(ANALYSES).network


@pytest.fixture
def consortium(make_consortium):
    """Three sites that consent to exact sums, under masks."""
    return make_consortium(exact=True, analyses=ANALYSES, **MASKED)


def one_table(consortium):
    """Scores of the candidates, severity, and covariates with indicators of the sites."""
    edges = consortium.protocol.candidates.edges
    scores, severity, others = [], [], []
    for k, cohort in enumerate(consortium.cohorts.values()):
        split = cohort.training
        scores.append(split.scores[:, edges])
        severity.append(standardise_severity(split.gase))
        where = [cohort.people.participants.index(label) for label in split.participants]
        indicator = np.zeros((len(split.gase), len(SITES)))
        indicator[:, k] = 1
        others.append(np.column_stack([cohort.people.age_years[where], cohort.people.sex[where], indicator]))
    return np.concatenate(scores), np.concatenate(severity), np.concatenate(others)


def test_the_network_equals_regressions_on_one_table(consortium):
    findings = consortium.study()
    found = findings.exact_network
    scores, severity, others = one_table(consortium)
    x = np.column_stack([severity, others])
    fits = [sm.OLS(scores[:, e], x).fit() for e in range(scores.shape[1])]
    # The grid of the sums is 2^-27 here; sums are of order 10.
    assert found.network.t == pytest.approx([fit.tvalues[0] for fit in fits], abs=1e-6)
    p = [fit.pvalues[0] for fit in fits]
    assert found.network.p == pytest.approx(p, abs=1e-7)
    assert np.array_equal(found.network.retained, multipletests(p, alpha=0.05, method="fdr_bh")[0])
    assert found.children == len(severity)
    ends = load_atlas("phantom-28").edges[found.edges]
    expected = components(np.array([fit.tvalues[0] for fit in fits]), ends, threshold=RULES["t_threshold"])
    assert [part.edges.tolist() for part in found.components] == [edges.tolist() for edges in expected]

    summary = exact_network_of(consortium.protocol, findings)
    assert summary.retained == found.network.retained.sum() > 10
    # Twenty edges fall with severity by .8 sd: they hang together, and no draw without an effect is as large.
    assert summary.components[0].p == pytest.approx(1 / (1 + RULES["null_draws"]))
    assert len(found.largest) == summary.null_draws == RULES["null_draws"]
    assert np.array_equal(found.frequency * 15, np.rint(found.frequency * 15))
    frequency = {frozenset((e.region_a, e.region_b)): e.frequency for e in summary.edges}
    assert len(frequency) == len(summary.edges)
    retained = [e.frequency for e in summary.edges if e.retained]
    others = [e.frequency for e in summary.edges if not e.retained]
    assert np.mean(retained) > 0.8 > 0.4 > np.mean(others)


def test_an_effect_that_is_not_there_has_no_small_p(consortium, rules):
    """Severities that belong to other children: the largest component is like those of the null."""
    rng = np.random.default_rng(3)
    said = []
    for _ in range(30):
        tables = []
        for cohort in consortium.cohorts.values():
            split = cohort.training
            order = rng.permutation(len(split.gase))
            # Under the null scores and severity know nothing of each other: the rows are exchanged.
            tables.append((split.scores[order], split, cohort))
        said.append(_first_p(consortium, tables, rules))
    # Binomial of 30 at .1: three are expected, eight would be beyond three sd.
    assert sum(p <= 0.1 for p in said) < 8


def _first_p(consortium, tables, rules):
    """Run the centre's part over sites that answer in this process, without gate or grid."""
    studies = []
    for scores, split, cohort in tables:
        other = replace(cohort, training=replace(split, scores=scores))
        studies.append(Study("north", consortium.protocol, other, "cpu"))

    course = Course(consortium.protocol)

    def ask(phase, round_=0):
        rows = [rows_of(course.arguments(phase, round_), study) for study in studies]
        assert {answer.kind for answer in rows} == {kind_of(phase, consortium.protocol)}
        return course.take(
            phase, round_, Released(sum(answer.values.sum(axis=0) for answer in rows), SITES, 0.0)
        )

    found = run_network(course, ask, rules.model_copy(update={"bootstrap_draws": 0}))
    assert found.frequency is None
    return found.components[0].p if found.components else 1.0


def test_a_question_that_is_asked_again_is_answered_with_the_same_draws(consortium, more_sites):
    consortium.study()
    asked = [
        (node, body, answer)
        for node, body, answer in consortium.link.carried
        if consortium.link.read(body).id.phase.startswith("network-")
        and not consortium.link.read(body).reveal
    ]
    rounds = {
        (consortium.link.read(body).id.phase, consortium.link.read(body).id.round) for _, body, _ in asked
    }
    assert rounds == {("network-null", 0), ("network-bootstrap", 0)}
    for node, body, answer in asked:
        assert consortium.link.hospitals[node].reply(body) == answer


def test_draws_leave_in_whole_sums(rules):
    assert rules.releases == (1, 1)
    assert rules.model_copy(update={"null_draws": 21}).releases == (2, 1)
    assert rules.model_copy(update={"null_draws": 0}).releases == (0, 1)


def test_as_many_draws_as_children_are_refused(make_consortium):
    many = {"network": {**RULES, "bootstrap_draws": 21}, "exact": ["network"]}
    words = "as 60, in sums of 20; 3 sites of 16 training children .* may collude left out, allow 41"
    with pytest.raises(ValidationError, match=words):
        make_consortium(exact=True, analyses=many, **MASKED)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(3, 60), st.integers(3, 8))
def test_draws_that_are_allowed_leave_directions_that_no_sum_has(null, bootstrap, minimum, sites):
    """All that is linear in the children's scores, against the dimensions that they have within sites."""
    asked = NetworkRules(t_threshold=3, null_draws=null, bootstrap_draws=bootstrap, minimum_children=minimum)
    if asked.too_many_draws(sites) is None:
        equations = 3 + DRAWS_AT_ONCE * sum(asked.releases)
        assert equations < sites * minimum - sites


def test_a_site_with_fewer_children_refuses_at_roll_call(make_consortium):
    more = {"network": {**RULES, "minimum_children": 17}, "exact": ["network"]}
    consortium = make_consortium(exact=True, analyses=more, **MASKED)
    with pytest.raises(StudyError, match=r"phase roll-call.*refused \(GateError\)"):
        consortium.study()
    assert not any(ledger.entries() for ledger in consortium.ledgers.values())


def test_a_centre_cannot_choose_whose_connectome_the_draws_are(consortium):
    """An sd so small that squares overflow for all children but one left the draws with that child alone.

    0 times infinity is not a number, and the clip made zeros of the others' rows: twenty draws of rank 1,
    each the child's connectome times a number.
    """
    edges = consortium.protocol.candidates.edges
    studies = [Study(site, consortium.protocol, c, "cpu") for site, c in consortium.cohorts.items()]
    splits = [study.cohort.training for study in studies]
    parts = [centred(design(s.gase, s.age_years, s.sex), s.scores[:, edges]) for s in splits]
    # Severity less an effect of age, which tells children of one severity apart; the centre knows neither.
    slope = 0.01
    distance = np.concatenate([np.abs(u[:, 0] - slope * u[:, 1]) for u, _ in parts])
    nearest, next_one = np.sort(distance)[:2]
    smallest = np.sqrt(nearest * next_one) / np.sqrt(np.finfo(float).max)
    target = np.concatenate([v for _, v in parts])[distance.argmin()]

    def draws(severity_sd):
        nothing = np.zeros(len(edges))
        vector = np.concatenate([nothing, nothing + 1, nothing, nothing, [severity_sd, slope, 0]])
        rows = [
            rows_of(Arguments("network-bootstrap", {"partial": vector}), study).values for study in studies
        ]
        there = sum(int(np.abs(part).max(axis=1).astype(bool).sum()) for part in rows)
        return there, sum(part.sum(axis=0) for part in rows).reshape(DRAWS_AT_ONCE, len(edges))

    def said(there, found):
        r = abs(np.corrcoef(found[0], target)[0, 1])
        return f"{there} child in draws of rank {np.linalg.matrix_rank(found)}, r = {r:.9f} with it"

    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"sd of severity is 0\.1 to 2"):
        pytest.fail(said(*draws(smallest)))
    # What the smallest accepted sd leaves: everybody, and draws that span all that draws can.
    there, found = draws(SEVERITY_SD[0])
    assert there == len(distance)
    assert np.linalg.matrix_rank(found) == DRAWS_AT_ONCE


def test_draws_of_other_sites_than_the_network_are_refused(consortium, rules):
    course = Course(consortium.protocol)

    def ask(phase, round_=0):
        kind = kind_of(phase, consortium.protocol)
        if phase == "network":
            return course.take(phase, round_, Released(_sums(consortium, kind), SITES, 0.0))
        return Released(np.zeros(kind.dimension), ("north", "west"), 0.0)

    with pytest.raises(
        StudyError, match="network is that of north, south, west, east; its draws came from north, west"
    ):
        run_network(course, ask, rules)


def _sums(consortium, kind):
    rows = [
        rows_of(Arguments("network", {}), Study(site, consortium.protocol, cohort, "cpu"))
        for site, cohort in consortium.cohorts.items()
    ]
    assert {answer.kind for answer in rows} == {kind}
    return sum(answer.values.sum(axis=0) for answer in rows)


def test_a_network_that_is_not_declared_exact_is_refused():
    with pytest.raises(ValidationError, match="'network' needs to be declared exact"):
        Analyses.model_validate({"network": RULES})


@pytest.mark.parametrize("exact", [False, True], ids=["beside noise", "without noise"])
def test_a_network_without_masks_is_refused(make_consortium, exact):
    with pytest.raises(ValidationError, match="the exact network needs trust 'secure-sum'"):
        make_consortium(analyses=ANALYSES, trust="local", exact=exact)


def test_a_site_without_consent_refuses_it(make_consortium):
    consortium = make_consortium(analyses=ANALYSES, **MASKED)
    with pytest.raises(StudyError, match=r"refused \(GateError\)"):
        consortium.study()


def test_edges_that_do_not_vary_are_no_tests_that_others_pay_for():
    r = np.array([0.21, *np.zeros(20)])
    known = np.array([0.21, *np.full(20, np.nan)])
    exact = ExactNetwork(r=known, t=known, p=known, retained=np.zeros(21, dtype=bool), freedom=100)
    # p of .21 at 100 degrees of freedom is .034: one test of one, and not one of twenty-one.
    assert _retained(r, exact).tolist() == [True, *[False] * 20]


def test_the_design_takes_ages_sexes_and_severities_on_scales_that_fit():
    rows = design(np.array([1.0, 4.0, 7.0]), np.array([4.0, 10.0, 18.0]), np.array([0.0, 1.0, 1.0]))
    assert rows == pytest.approx(np.array([[-2, -0.6, -0.5], [0, 0, 0.5], [2, 0.8, 0.5]]))


def test_the_review_says_what_the_network_asks_of_a_site(consortium):
    said = review(consortium.protocol)
    assert "network-null, once from the training children" in said
    assert "The exact network asks for 16 training children at each site" in said
