"""FedAvg, FedProx and FedAdam as a protocol chooses them: each is what its paper says, on all children."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from esn_core.atlas import load_atlas
from esn_core.errors import StudyError
from esn_core.learning.severity_model import as_matrices
from esn_core.learning.weights import from_vector, pretrained, to_vector
from esn_core.releases import clip_rows, standardise_severity
from esn_core.severity_network import masked_input
from esn_server.outcome import result_of
from esn_server.study import run_study

RATE, ROUNDS = 0.02, 3


def run(consortium):
    return run_study(
        consortium.protocol,
        run=consortium.store.run,
        asking=consortium.rounds,
        progress=lambda *_: None,
        rng=np.random.default_rng(0),
    )


def rules(strategy, **others):
    found = {"strategy": strategy, "rounds": ROUNDS, "learning_rate": RATE, "max_gradient_norm": 1000.0}
    return {**found, **others}


def sites_of(consortium, network):
    """Each site's inputs and targets, as its own training sees them."""
    protocol = consortium.protocol
    atlas, edges = load_atlas(protocol.imaging.atlas), protocol.candidates.edges
    for cohort in consortium.cohorts.values():
        split = cohort.training
        values = masked_input(split.scores[:, edges], network.weight)
        x = as_matrices(values, edges, ends=atlas.edges, regions=len(atlas.regions))
        yield x, torch.from_numpy(standardise_severity(split.gase)).float()


def gradient(weights, x, y):
    """Of the mean squared error at a point, by autograd."""
    model = from_vector(weights).train()
    loss = functional.mse_loss(model(x), y)
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts]).double().numpy()


def centrally(consortium, network, *, steps, proximal):
    """McMahan's algorithm 1, and Li's equation 2, by somebody who sees every child."""
    weights = to_vector(pretrained(consortium.protocol.model.initial_weights))
    for _ in range(ROUNDS):
        moved, children = np.zeros_like(weights), 0
        for x, y in sites_of(consortium, network):
            local = weights
            for _ in range(steps):
                local = local - RATE * (gradient(local, x, y) + proximal * (local - weights))
            moved += len(y) * (local - weights)
            children += len(y)
        weights = weights + moved / children
    return weights


@pytest.mark.parametrize(
    ("training", "steps", "proximal"),
    [
        (rules("fedavg"), 1, 0.0),
        (rules("fedavg", local_steps=4), 4, 0.0),
        (rules("fedprox", local_steps=4, proximal=5.0), 4, 5.0),
    ],
    ids=["fedavg, one step", "fedavg", "fedprox"],
)
def test_the_weights_are_those_of_the_algorithm_on_all_children(make_consortium, training, steps, proximal):
    consortium = make_consortium(exact=True, training=training)
    findings = run(consortium)
    expected = centrally(consortium, findings.network, steps=steps, proximal=proximal)
    start = to_vector(pretrained(consortium.protocol.model.initial_weights))
    # float32 and the grid of the sums; the weights move by far more.
    assert findings.weights == pytest.approx(expected, abs=2e-5)
    assert np.abs(expected - start).max() > 5e-3
    assert findings.losses[-1] < findings.losses[0]
    result = result_of(consortium.protocol, findings, run="r1", timing_s={})
    named = {"fedavg": "FedAvg", "fedprox": "FedProx"}[training["strategy"]]
    assert result.training.startswith(f"{named}, 3 rounds")
    assert ("of 4 steps at each site" in result.training) == (steps == 4)
    asked = [phase.phase for phase in result.privacy.phases]
    assert ("local-update" if steps > 1 else "gradient") in asked


def test_several_steps_and_the_proximal_term_lead_elsewhere(make_consortium):
    consortium = make_consortium(exact=True, training=rules("fedavg"))
    network = run(consortium).network
    asked = ((1, 0.0), (4, 0.0), (4, 5.0))
    one, four, held = (centrally(consortium, network, steps=n, proximal=mu) for n, mu in asked)
    assert np.abs(one - four).max() > 1e-3
    assert np.abs(four - held).max() > 1e-4


def test_an_update_is_weighted_by_the_sites_children_and_held_to_the_bound(make_consortium):
    bound = 0.05
    training = rules("fedavg", local_steps=2, rounds=1, max_gradient_norm=bound)
    consortium = make_consortium(exact=True, training=training)
    findings = run(consortium)
    start = to_vector(pretrained(consortium.protocol.model.initial_weights))
    moved, children = np.zeros_like(start), 0
    for x, y in sites_of(consortium, findings.network):
        first = gradient(start, x, y)
        total = first + gradient(start - RATE * first, x, y)
        assert np.linalg.norm(total) > bound
        moved += len(y) * clip_rows(total[None], bound)[0]
        children += len(y)
    assert findings.weights == pytest.approx(start - RATE * moved / children, abs=1e-6)


def test_one_step_of_fedavg_may_be_private(make_consortium):
    consortium = make_consortium(training=rules("fedavg", max_gradient_norm=1.0))
    findings = run(consortium)
    assert np.isfinite(findings.price.epsilon("training"))
    assert np.isfinite(findings.weights).all()


def test_local_steps_need_the_sites_consent_to_sums_without_noise(make_consortium):
    consortium = make_consortium(exact=True, consent=False, training=rules("fedavg", local_steps=3))
    with pytest.raises(StudyError, match=r"roll-call.*north: refused \(GateError\)"):
        run(consortium)
    assert all(not ledger.entries() for ledger in consortium.ledgers.values())
