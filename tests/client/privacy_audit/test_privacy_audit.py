"""The audit at a site: it passes what holds, and finds what does not."""

import math

import numpy as np
import pytest
import torch

from esn_client.answers.study import Study
from esn_client.cohort.cohort import Cohort, Split
from esn_client.gate import gate as egress
from esn_client.gate.gate import Rows
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_client.privacy_audit import audit, rehearsal
from esn_client.privacy_audit.attacks import area_bound
from esn_client.privacy_audit.audit import audit_kind
from esn_client.privacy_audit.rehearsal import Rehearsal, scratch_directory
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template
from esn_core.errors import DataError, GateError, ProtocolError
from esn_core.privacy.accounting import epsilon_of
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import CENTRE, centre_rows

PHASES = ("centre", "association", "gradient", "calibration", "evaluation")


def limits(**changes):
    policy = {
        "epsilon_cap": 8.01,
        "delta": 1e-3,
        "minimum_children": 5,
        "trust": "secure-sum",
        "colluding_sites": 1,
        "exact_sums": False,
    }
    return Limits(**{**policy, **changes})


def draw_split(rng, children, first):
    template = load_template("phantom-28", simulated=True)
    scores = np.where(template.present, rng.normal(size=(children, len(load_atlas("phantom-28").edges))), 0.0)
    labels = tuple(f"sub-{i:03d}" for i in range(first, first + children))
    gase, age, sex = rng.integers(1, 8, children), rng.uniform(5, 17, children), rng.integers(0, 2, children)
    return Split(labels, scores, gase.astype(float), age_years=age, sex=sex.astype(float))


@pytest.fixture
def protocol_of(protocol_content, more_sites):
    """A function that makes a protocol under certain rules of privacy."""

    def make(*, sites=3, quorum=3, rounds=1, centre="mean", **privacy):
        network = {**protocol_content["severity_network"], "centre": centre}
        return Protocol.model_validate(
            {
                **protocol_content,
                "severity_network": network,
                "roster": more_sites[0][:sites],
                "training": {**protocol_content["training"], "rounds": rounds},
                "privacy": {**protocol_content["privacy"], **privacy},
                "rounds": {**protocol_content["rounds"], "quorum": quorum},
            }
        )

    return make


@pytest.fixture
def scratch():
    with scratch_directory() as directory:
        yield directory


@pytest.fixture
def rehearse(scratch, monkeypatch):
    """A function that prepares the rehearsal of a protocol at the site north."""

    def make(protocol, *, noise=discrete_gaussian, **changes):
        monkeypatch.setattr(rehearsal, "discrete_gaussian", noise)
        return Rehearsal(protocol, site="north", limits=limits(**changes), scratch=scratch)

    return make


def audited(rehearsed, *phases, children=12, held_out=12, repeats=20):
    rng = np.random.default_rng(0)
    cohort = Cohort(draw_split(rng, children, 1), draw_split(rng, held_out, 101), controls=8)
    study = Study("north", rehearsed.protocol, cohort, torch.device("cpu"))
    price = price_of(rehearsed.protocol)
    return {
        phase: audit_kind(
            rehearsed, study, price.of(phase), repeats=repeats, rng=rng, progress=lambda *_: None
        )
        for phase in phases
    }


def scaled(factor):
    def noise(dimension, scale):
        if factor == 0:
            return np.zeros(dimension, dtype=np.int64)
        return discrete_gaussian(dimension, factor * scale)

    return noise


# --- the rehearsal ---------------------------------------------------------------------------------------


CENTRE_ROWS = Rows(CENTRE, centre_rows(np.arange(1.0, 7.0)), tuple(f"sub-{i}" for i in range(6)))


@pytest.mark.parametrize(
    "rules",
    [
        {"trust": "local"},
        {"trust": "secure-sum"},
        {"trust": "secure-sum", "colluding_sites": 0},
        {"trust": "secure-sum", "sites": 6, "quorum": 5, "colluding_sites": 2},
    ],
)
def test_the_attackers_view_is_the_sites_sum_with_the_claimed_noise(protocol_of, rehearse, rules):
    protocol = protocol_of(**rules)
    rehearsed = rehearse(protocol, colluding_sites=0)
    question = rehearsed.question("centre")
    exact = CENTRE_ROWS.values.sum(axis=0)
    seen = np.array([rehearsed.view(question, CENTRE_ROWS) for _ in range(100)])
    claimed = price_of(protocol).of("centre").noise_multiplier * math.sqrt(5)
    # 200 numbers: the mean's standard error is 1/14, that of the spread 1/20; four of each.
    assert abs((seen - exact).mean()) < 4 / 14 * claimed
    assert (seen - exact).std() == pytest.approx(claimed, rel=4 / 20)


def test_a_rehearsal_uses_other_keys_and_so_another_hash(protocol_of, rehearse):
    protocol = protocol_of()
    found = rehearse(protocol).protocol
    assert found.sites == protocol.sites
    assert found.sha256 != protocol.sha256
    assert price_of(found) == price_of(protocol)


def test_a_rehearsal_leaves_nothing_but_lines_in_a_directory_that_goes(protocol_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with scratch_directory() as scratch:
        rehearsed = Rehearsal(
            protocol_of(trust="secure-sum"),
            site="north",
            limits=limits(),
            scratch=scratch,
        )
        rehearsed.view(rehearsed.question("centre"), CENTRE_ROWS)
        assert {path.name for path in scratch.iterdir()} == {"north.jsonl", "south.jsonl", "west.jsonl"}
    assert not scratch.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_the_sites_policy_forbids_is_refused_in_rehearsal_too(protocol_of, rehearse):
    rehearsed = rehearse(protocol_of(noise="none"))
    with pytest.raises(GateError, match="this site demands masks"):
        rehearsed.view(rehearsed.question("centre"), CENTRE_ROWS)
    rehearsed = rehearse(protocol_of(trust="secure-sum"), trust="local")
    with pytest.raises(GateError, match=r"limits\.trust"):
        rehearsed.view(rehearsed.question("centre"), CENTRE_ROWS)


def test_a_site_that_is_not_on_the_roster_cannot_rehearse(protocol_of, tmp_path):
    with pytest.raises(ProtocolError, match="site far is not on the roster: north, south, west"):
        Rehearsal(protocol_of(), site="far", limits=limits(), scratch=tmp_path)


# --- the audit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "phases"),
    [
        ({"trust": "local"}, PHASES),
        ({"trust": "secure-sum", "sites": 4, "quorum": 3}, ("association", "evaluation")),
    ],
)
def test_a_protocol_that_keeps_its_promise_passes(protocol_of, rehearse, rules, phases):
    protocol = protocol_of(**rules)
    found = audited(rehearse(protocol), *phases)
    for phase, kind in found.items():
        assert kind.faults == ()
        claimed = 1 / price_of(protocol).of(phase).noise_multiplier
        canaries, membership = kind.canaries, kind.membership
        assert canaries.mu_claimed == claimed
        assert canaries.epsilon_claimed == epsilon_of(claimed, 1e-6)
        # A sum of two numbers holds two canaries, and is formed four times as often at most.
        assert canaries.canaries >= min(20 * 20, 4 * 20 * min(kind.numbers, 400))
        assert canaries.mu_low < claimed
        assert 0 <= canaries.smallest_fault < 1
        assert membership.children == 12
        assert 5 <= membership.summed < 8
        assert membership.area_bound == area_bound(claimed)
        assert membership.area_exact > 0.6


@pytest.mark.parametrize("factor", [0.1, 0.0])
@pytest.mark.parametrize("rules", [{"trust": "local"}, {"trust": "secure-sum"}])
def test_noise_that_is_far_too_small_fails(protocol_of, rehearse, rules, factor):
    phases = PHASES if factor == 0 else ("centre", "association", "evaluation")
    found = audited(rehearse(protocol_of(**rules), noise=scaled(factor)), *phases)
    for kind in found.values():
        assert any("the noise is at most" in fault for fault in kind.faults)
    # The bound for any mechanism is weaker: 400 canaries tell too little of the larger claims.
    assert any("prove epsilon" in fault for fault in found["centre"].faults)


def test_without_any_noise_members_are_found_as_in_exact_sums(protocol_of, rehearse):
    for kind in audited(rehearse(protocol_of(), noise=scaled(0.0)), *PHASES).values():
        assert kind.membership.area == pytest.approx(
            kind.membership.area_exact, abs=0.02
        )  # ties, broken by the grid


def test_a_row_that_is_not_clipped_fails(protocol_of, rehearse, monkeypatch):
    monkeypatch.setattr(egress, "clip_rows", lambda rows, bound: rows)
    # Sixty repeats prove a mu of about 2.5, where 1.74 is claimed; twenty about 2.05, once in sixty less.
    found = audited(rehearse(protocol_of(trust="local")), "association", repeats=60)["association"]
    assert any("the noise is at most" in fault for fault in found.faults)


def test_exact_sums_have_no_claim_to_test_and_their_members_are_shown(protocol_of, rehearse):
    found = audited(rehearse(protocol_of(noise="none"), exact_sums=True, trust="local"), *PHASES)
    for kind in found.values():
        assert kind.canaries is None
        assert kind.faults == ()
        assert kind.membership.area_bound == 1.0
        assert kind.membership.area == pytest.approx(kind.membership.area_exact, abs=0.02)


@pytest.mark.parametrize("centre", ["levels", "adjusted"])
def test_levels_that_few_children_share_are_no_fault_of_exact_counts(protocol_of, rehearse, centre):
    """Twelve children at seven levels: the gate counts most of them at another level than their own."""
    exact = protocol_of(noise="none", trust="local", centre=centre)
    found = audited(rehearse(exact, exact_sums=True, trust="local"), "centre", "association")
    assert found["centre"].faults == ()
    assert found["centre"].influence is None
    assert found["association"].influence == pytest.approx(1.0, abs=1e-6)


def test_the_exact_network_can_be_audited_phase_by_phase(protocol_content, more_sites, rehearse):
    rules = {"t_threshold": 2.5, "null_draws": 5, "bootstrap_draws": 5, "minimum_children": 16}
    content = {**protocol_content, "analyses": {"network": rules, "exact": ["network"]}}
    content["roster"] = more_sites[0][:4]
    content["privacy"] = {**content["privacy"], "trust": "secure-sum"}
    content["rounds"] = {**content["rounds"], "quorum": 4}
    phases = ("network", "network-null", "network-bootstrap")
    rehearsed = rehearse(Protocol.model_validate(content), exact_sums=True)
    for kind in audited(rehearsed, *phases, children=20).values():
        assert kind.canaries is None
        assert kind.faults == ()


def test_with_too_few_children_nobody_is_left_out(protocol_of, rehearse):
    found = audited(rehearse(protocol_of()), "association", children=5)
    assert found["association"].membership is None
    assert found["association"].canaries is not None


def test_fewer_repeats_than_the_attacks_need_are_refused(protocol_of, rehearse):
    with pytest.raises(DataError, match="needs 20 repeats or more, not 5"):
        audited(rehearse(protocol_of()), "centre", repeats=5)


def test_a_site_with_too_few_children_is_told_that_it_would_refuse(protocol_of, rehearse):
    with pytest.raises(GateError, match="fewer held-out children than the minimum of 5: it would refuse"):
        audited(rehearse(protocol_of()), "evaluation", held_out=4)


@pytest.mark.parametrize("seed", range(20))
def test_every_child_is_left_out_of_sums_enough_to_compare_it_with(seed):
    """Eight children of whom the gate asks for five: by coins alone, half of the audits lack the attack."""
    rng = np.random.default_rng(seed)
    members = audit._members(8, audit.FEWEST_REPEATS, fewest=5, rng=rng)
    assert (~members).sum(axis=0).min() >= audit.FEWEST_LEFT_OUT
    assert members.sum(axis=1).min() >= 5
    # Where the gate lets nobody be left out, nobody is, and the draw ends.
    assert audit._members(5, audit.FEWEST_REPEATS, fewest=5, rng=rng).all()
