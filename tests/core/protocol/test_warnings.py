"""The facts that a reader of a protocol is warned of, and that every reader says each of them."""

import pytest
import tomli_w

from esn_client.approval.review import review
from esn_core.protocol.expected_noise import ExpectedNoise
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.warnings import Fact, cautions, expected_cautions
from esn_server.protocol.price_list import price_list
from esn_server.protocol.signing import validate

PAIRS = [["L_precentral", "L_postcentral"], ["R_precentral", "R_postcentral"]]
LOCAL = {"strategy": "fedavg", "local_steps": 4}
EXACT_MASKED = {"noise": "none", "trust": "secure-sum"}
SAID_BY_REVIEW = {
    Fact.SIMULATED: "All children are simulated.",
    Fact.NO_NOISE: "There is NO differential privacy",
    Fact.DECLARED_EXACT: "Declared EXACT: cohort.",
    Fact.LOCAL_STEPS: "depends on all of its training children at once",
    Fact.COMBAT: "ComBat: this site's other children enter a child's harmonised scores",
    Fact.PUBLISHED_LIST: "do NOT approve",
    Fact.WHOLE_NOISE: "is known to leave no usable result",
    Fact.NO_COLLUSION: "only while NO site tells what noise it added",
    Fact.FEW_DIRECTIONS: "The recipe takes scans of 15 directions.",
}


def make(content, **tables):
    changed = {
        name: {**content.get(name, {}), **table} if isinstance(table, dict) else table
        for name, table in tables.items()
    }
    return Protocol.model_validate({**content, **changed})


# What brings up each fact that a protocol says of itself, alone but for 'simulated'.
ALONE = {
    Fact.SIMULATED: {},
    Fact.NO_NOISE: {"privacy": {"noise": "none"}},
    Fact.DECLARED_EXACT: {"analyses": {"cohort": True, "exact": ["cohort"]}},
    Fact.PUBLISHED_LIST: {"severity_network": {"candidates": "list", "pairs": PAIRS}},
    Fact.WHOLE_NOISE: {"privacy": {"epsilon": 1.0}},
    Fact.NO_COLLUSION: {"privacy": {"trust": "secure-sum", "colluding_sites": 0}},
    Fact.FEW_DIRECTIONS: {"imaging": {"sh_order_max": 4}},
}
WITHOUT_NOISE = {
    Fact.LOCAL_STEPS: {"training": LOCAL, "privacy": EXACT_MASKED},
    Fact.COMBAT: {"cohort": {"harmonisation": "combat"}, "privacy": EXACT_MASKED},
}


@pytest.mark.parametrize("fact", ALONE)
def test_each_fact_is_known_by_itself(protocol_content, fact):
    assert {c.fact for c in cautions(make(protocol_content, **ALONE[fact]))} == {Fact.SIMULATED, fact}


@pytest.mark.parametrize("fact", WITHOUT_NOISE)
def test_what_mixes_children_is_known_beside_the_missing_noise(protocol_content, fact):
    found = {c.fact for c in cautions(make(protocol_content, **WITHOUT_NOISE[fact]))}
    assert found == {Fact.SIMULATED, Fact.NO_NOISE, fact}


def test_a_private_study_of_patients_has_no_caution(patients_content):
    assert cautions(make(patients_content)) == ()


@pytest.mark.parametrize("fact", {**ALONE, **WITHOUT_NOISE})
def test_every_reader_says_each_fact(protocol_content, tmp_path, fact):
    protocol = make(protocol_content, **{**ALONE, **WITHOUT_NOISE}[fact])
    (words,) = [c.words for c in cautions(protocol) if c.fact == fact]
    path = tmp_path / "protocol.toml"
    path.write_text(tomli_w.dumps(protocol.model_dump(exclude_none=True)), encoding="utf-8")
    assert f"warning: {words}" in validate(path).in_words
    listed = price_list(protocol, training_children=250, held_out_children=180).in_words
    assert (words in listed) == (fact != Fact.SIMULATED)
    assert SAID_BY_REVIEW[fact] in review(protocol)
    assert max(map(len, review(protocol).splitlines())) <= 110


def test_the_review_says_every_fact_that_a_protocol_says_of_itself():
    assert set(SAID_BY_REVIEW) == {*ALONE, *WITHOUT_NOISE}


def noise(r=0.05):
    return ExpectedNoise(children=1, edge_r=0.1, gradient=1, slope=0.1, r=r, mae=0.1)


def expected(protocol, *, r=0.05, training=2500, held_out=1800, candidates=100):
    found = expected_cautions(
        protocol,
        noise(r),
        training_children=training,
        held_out_children=held_out,
        candidates=candidates,
    )
    return {caution.fact for caution in found}


@pytest.fixture
def large(protocol_content, more_sites):
    """A protocol whose noise is small enough for a model of the neurocognitive children."""
    six = {"roster": more_sites[0], "rounds": {**protocol_content["rounds"], "quorum": 6}}
    return make({**protocol_content, **six}, privacy={"epsilon": 20.0, "trust": "secure-sum"})


def test_a_large_study_with_a_large_budget_has_no_caution(large):
    assert expected(large, training=450, held_out=450) == set()


@pytest.mark.parametrize(
    ("epsilon", "candidates", "warned"), [(3.0, 2500, True), (8.0, 2500, False), (3.0, 1000, False)]
)
def test_edges_by_the_thousand_need_more_than_epsilon_three(protocol_content, epsilon, candidates, warned):
    protocol = make(protocol_content, privacy={"epsilon": epsilon})
    assert (Fact.MANY_CANDIDATES in expected(protocol, candidates=candidates)) == warned


@pytest.mark.parametrize(("r", "warned"), [(0.1, False), (0.11, True), (None, True)])
def test_noise_in_r_is_warned_of_from_a_tenth(large, r, warned):
    assert (Fact.NOISE_IN_R in expected(large, r=r)) == warned


def test_delta_has_to_be_below_one_over_the_children(protocol_content):
    protocol = make(protocol_content)
    assert Fact.LARGE_DELTA in expected(protocol, training=600, held_out=400)
    assert Fact.LARGE_DELTA not in expected(protocol, training=600, held_out=399)


def test_without_noise_nothing_is_expected_of_it(protocol_content):
    assert (
        expected(make(protocol_content, privacy={"noise": "none"}), r=None, training=1, held_out=1) == set()
    )
