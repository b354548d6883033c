"""A whole study in one process, against what pooled software computes from the same children."""

import shutil

import numpy as np
import pytest
from scipy import stats

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import StudyError
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import from_vector
from esn_core.privacy.accounting import compose
from esn_core.privacy.fixed_point import noise_sd
from esn_core.protocol.price import price_of
from esn_core.protocol.signature import signed_with
from esn_core.severity_network.association import association_release
from esn_core.severity_network.selection import masked_input
from esn_core.statistics.agreement import EVALUATION
from esn_server.report.outcome import result_of
from esn_server.run.checkpoints import Checkpoints
from esn_server.study.study import run_study


def pooled_held_out(consortium, findings):
    """Predict every held-out child of all sites with the released model, as a pooled study would."""
    held = [cohort.held_out for cohort in consortium.cohorts.values()]
    scores = np.concatenate([split.scores for split in held])
    atlas = load_atlas("phantom-28")
    x = as_matrices(
        masked_input(scores[:, findings.network.edges], findings.network.weight),
        findings.network.edges,
        ends=atlas.edges,
        regions=len(atlas.regions),
    )
    raw = np.clip(predict(from_vector(findings.weights), x), -2.5, 2.5)
    intercept, slope = findings.calibration
    return np.clip(4 + 1.5 * (intercept + slope * raw), 1, 7), np.concatenate([s.gase for s in held])


@pytest.mark.parametrize("trust", ["local", "secure-sum"])
def test_without_noise_the_evaluation_equals_the_pooled_one(make_consortium, trust):
    consortium = make_consortium(exact=True, trust=trust)
    findings = consortium.study()
    prediction, gase = pooled_held_out(consortium, findings)
    found = findings.agreement
    line = stats.linregress(prediction, gase)
    # Each child is predicted alone, at its site as here; the grid of the sums is 2^-39, 2e-12.
    tolerance = {"rel": 1e-12, "abs": 1e-11}
    assert found.r == pytest.approx(stats.pearsonr(prediction, gase)[0], **tolerance)
    assert found.mae == pytest.approx(np.abs(prediction - gase).mean(), **tolerance)
    assert found.rmse == pytest.approx(np.sqrt(((prediction - gase) ** 2).mean()), **tolerance)
    assert found.slope == pytest.approx(line.slope, **tolerance)
    assert found.intercept == pytest.approx(line.intercept, **tolerance)
    assert found.children == len(gase)


def test_a_clear_network_is_found_and_predicts(make_consortium):
    findings = make_consortium(exact=True).study()
    retained = findings.network.edges[findings.network.retained]
    affected = set(findings.network.edges[:20])
    assert len(affected & set(retained)) >= 18
    assert findings.agreement.r > 0.8


def test_training_lowers_the_loss(make_consortium):
    findings = make_consortium(exact=True).study()
    assert findings.losses[-1] < findings.losses[0]


@pytest.mark.parametrize("trust", ["local", "secure-sum"])
def test_a_private_study_spends_its_budget_and_no_more(make_consortium, trust):
    consortium = make_consortium(trust=trust)
    findings = consortium.study()
    mu = findings.price.mu("training")
    assert findings.price.epsilon("training") == pytest.approx(8.0, rel=1e-9)
    assert findings.price.epsilon("held-out") == pytest.approx(8.0, rel=1e-9)
    for ledger in consortium.ledgers.values():
        spent = ledger.spent()
        assert len(spent) == 24
        assert max(compose(s.noisy) for s in spent.values()) == pytest.approx(mu, rel=1e-12)


def test_noise_makes_two_studies_of_the_same_children_differ(make_consortium, tmp_path):
    first = make_consortium().study()
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    second = make_consortium().study()
    assert not np.array_equal(first.network.weight, second.network.weight)


def test_shared_noise_is_smaller_than_everybodys_whole_noise(make_consortium):
    """With three sites, one of which may collude: half of three noises instead of three, in variance."""
    protocol = make_consortium().protocol
    rules = protocol.privacy.model_copy(update={"trust": "secure-sum"})
    masked = protocol.model_copy(update={"privacy": rules})
    assert price_of(masked) == price_of(protocol)
    multiplier = price_of(protocol).of("association").noise_multiplier
    kind = association_release(5)
    local, shared = (noise_sd(kind, multiplier, share=p.noise_share) for p in (protocol, masked))
    assert local / shared == pytest.approx(np.sqrt(2), rel=1e-12)


def test_nothing_but_sums_and_facts_crosses(make_consortium):
    consortium = make_consortium()
    consortium.study()
    for _, _, answer in consortium.link.carried:
        assert b"sub-" not in answer


def test_a_resumed_study_asks_nothing_twice_and_finds_the_same(make_consortium, tmp_path):
    consortium = make_consortium()
    first = consortium.study(Checkpoints(consortium.store, consortium.rounds))
    asked = len(consortium.link.carried)
    second = consortium.study(Checkpoints(consortium.store, consortium.rounds))
    assert len(consortium.link.carried) == asked + 3  # the roll call is repeated
    assert np.array_equal(first.weights, second.weights)
    assert first.agreement == second.agreement


def test_a_centre_that_lost_its_store_gets_the_same_bytes_again(make_consortium):
    consortium = make_consortium()
    first = consortium.study()
    charged = {site: len(ledger.entries()) for site, ledger in consortium.ledgers.items()}
    second = consortium.study()
    assert np.array_equal(first.weights, second.weights)
    assert {site: len(ledger.entries()) for site, ledger in consortium.ledgers.items()} == charged


def test_a_second_run_of_a_protocol_is_refused(make_consortium):
    consortium = make_consortium()
    consortium.study()
    with pytest.raises(StudyError, match=r"north: refused \(PrivacyBudgetError\)"):
        run_study(
            consortium.signed,
            run="r2",
            asking=consortium.rounds,
            rng=np.random.default_rng(0),
        )


def test_a_site_below_the_budget_refuses_and_the_study_names_it(make_consortium):
    consortium = make_consortium(epsilon_cap=2.0)
    with pytest.raises(StudyError, match=r"phase roll-call.*south: refused \(PrivacyBudgetError\)"):
        consortium.study()


def test_exact_sums_need_the_sites_consent(make_consortium, centre_key):
    consortium = make_consortium(noise=None)
    exact = consortium.protocol.model_copy(
        update={"privacy": consortium.protocol.privacy.model_copy(update={"noise": "none"})}
    )
    assert exact.sha256 != consortium.protocol.sha256
    with pytest.raises(StudyError, match=r"refused \(ProtocolError\)"):
        run_study(
            signed_with(centre_key, exact), run="r1", asking=consortium.rounds, rng=np.random.default_rng(0)
        )


def test_the_result_tells_the_price_of_every_phase(make_consortium):
    consortium = make_consortium()
    result = result_of(consortium.protocol, consortium.study(), run="r1", timing_s={})
    phases = {p.phase: p for p in result.privacy.phases}
    assert list(phases) == ["roll-call", "centre", "association", "gradient", "calibration", "evaluation"]
    assert phases["gradient"].releases == 3
    assert result.privacy.epsilon_training_child == pytest.approx(8.0, rel=1e-9)
    assert result.privacy.epsilon_replace_one_training_child > 8
    multipliers = {p.phase: p.noise_multiplier for p in price_of(consortium.protocol).phases}
    assert all(phases[name].noise_multiplier == value for name, value in multipliers.items())
    assert len(result.learning_curve) == 3
    assert EVALUATION.dimension == 28
