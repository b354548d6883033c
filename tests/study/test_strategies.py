"""FedAvg, FedProx and FedAdam as a protocol chooses them: each is what its paper says, on all children."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from esn_client.approval.review import review
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ProtocolError, StudyError
from esn_core.gase import standardise_severity
from esn_core.learning.releases import local_update_release
from esn_core.learning.severity_model import as_matrices
from esn_core.learning.weights import from_vector, pretrained, to_vector
from esn_core.messages.question import Question, QuestionId
from esn_core.privacy.release import clip_rows
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.selection import masked_input
from esn_server.report.outcome import result_of
from esn_server.run.checkpoints import Checkpoints

RATE, ROUNDS = 0.02, 3


MASKED = {"exact": True, "trust": "secure-sum"}


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


def centrally(consortium, network, *, steps, proximal, places=None):
    """McMahan's algorithm 1, and Li's equation 2, by somebody who sees every child.

    `places` are those of the sites that take part; None: all.
    """
    weights = to_vector(pretrained(consortium.protocol.model.initial_weights))
    everybody = list(sites_of(consortium, network))
    for _round in range(ROUNDS):
        moved, children = np.zeros_like(weights), 0
        for x, y in everybody if places is None else [everybody[k] for k in places]:
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
    consortium = make_consortium(**MASKED, training=training)
    findings = consortium.study()
    expected = centrally(consortium, findings.network, steps=steps, proximal=proximal)
    start = to_vector(pretrained(consortium.protocol.model.initial_weights))
    # float32 and the grid of the sums; the weights move by far more.
    assert findings.weights == pytest.approx(expected, abs=2e-5)
    assert np.abs(expected - start).max() > 5e-3
    first = [
        (from_vector(start).eval()(x) - y).detach() ** 2 for x, y in sites_of(consortium, findings.network)
    ]
    assert findings.losses[0] == pytest.approx(torch.cat(first).clamp(max=4).mean().item(), abs=1e-4)
    result = result_of(consortium.protocol, findings, run="r1", timing_s={})
    named = {"fedavg": "FedAvg", "fedprox": "FedProx"}[training["strategy"]]
    assert result.training.startswith(f"{named}, 3 rounds")
    assert ("of 4 steps at each site" in result.training) == (steps == 4)
    asked = [phase.phase for phase in result.privacy.phases]
    assert ("local-update" if steps > 1 else "gradient") in asked


def test_several_steps_and_the_proximal_term_lead_elsewhere(make_consortium):
    consortium = make_consortium(exact=True, training=rules("fedavg"))
    network = consortium.study().network
    asked = ((1, 0.0), (4, 0.0), (4, 5.0))
    one, four, held = (centrally(consortium, network, steps=n, proximal=mu) for n, mu in asked)
    assert np.abs(one - four).max() > 1e-3
    assert np.abs(four - held).max() > 1e-4


def test_an_update_is_weighted_by_the_sites_children_and_held_to_the_bound(make_consortium):
    bound = 0.05
    training = rules("fedavg", local_steps=2, rounds=1, max_gradient_norm=bound)
    consortium = make_consortium(**MASKED, training=training)
    findings = consortium.study()
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
    findings = consortium.study()
    assert np.isfinite(findings.price.epsilon("training"))
    assert np.isfinite(findings.weights).all()


def test_local_steps_need_the_sites_consent_to_sums_without_noise(make_consortium):
    consortium = make_consortium(**MASKED, consent=False, training=rules("fedavg", local_steps=3))
    with pytest.raises(StudyError, match=r"roll-call.*north: refused \(GateError\)"):
        consortium.study()
    assert all(not ledger.entries() for ledger in consortium.ledgers.values())


def test_local_steps_without_masks_are_refused(make_consortium):
    with pytest.raises(ValidationError, match="several local steps need trust 'secure-sum'"):
        make_consortium(exact=True, trust="local", training=rules("fedavg", local_steps=3))


def test_a_site_that_drops_out_takes_its_weight_with_it(make_consortium):
    four = ("north", "south", "west", "east")
    consortium = make_consortium(**MASKED, sites=four, quorum=3, training=rules("fedavg", local_steps=4))
    # Missing from the first sum without noise, it is missing from all of them.
    consortium.link.down = {2: lambda q: q.id.phase == "centre"}
    findings = consortium.study()
    said = {"steps": 4, "proximal": 0.0}
    expected = centrally(consortium, findings.network, **said, places=(0, 2, 3))
    everybody = centrally(consortium, findings.network, **said)
    assert findings.weights == pytest.approx(expected, abs=2e-5)
    assert np.abs(expected - everybody).max() > 1e-3


def test_a_run_that_was_stopped_between_local_updates_goes_on(make_consortium):
    consortium = make_consortium(**MASKED, training=rules("fedprox", local_steps=3, proximal=1.0))
    checkpoints = Checkpoints(consortium.store, consortium.rounds)

    class Stops:
        roll_call = staticmethod(checkpoints.roll_call)

        @staticmethod
        def sum(question, kind):
            if question.id.phase == "local-update" and question.id.round == 2:
                raise KeyboardInterrupt
            return checkpoints.sum(question, kind)

    with pytest.raises(KeyboardInterrupt):
        consortium.study(Stops)
    findings = consortium.study(checkpoints)
    expected = centrally(consortium, findings.network, steps=3, proximal=1.0)
    assert findings.weights == pytest.approx(expected, abs=2e-5)
    # Nobody paid twice: centre, association, three updates, calibration, evaluation.
    assert {len(ledger.entries()) for ledger in consortium.ledgers.values()} == {7}


def test_a_private_study_has_no_question_for_a_local_update(make_consortium):
    consortium = make_consortium()
    protocol = consortium.protocol
    asked = QuestionId(protocol_sha256=protocol.sha256, run="r1", phase="local-update", round=0, attempt=0)
    start = to_vector(pretrained(protocol.model.initial_weights))
    question = Question(asked)
    with pytest.raises(StudyError, match=r"phase local-update.*refused \(ProtocolError\)"):
        consortium.rounds.sum(question, local_update_release(len(start), max_gradient_norm=1.0))
    with pytest.raises(ProtocolError, match="does not ask for the phase local-update"):
        price_of(protocol).of("local-update")


def test_the_review_names_the_strategy_and_what_it_mixes(make_consortium):
    text = review(make_consortium(**MASKED, training=rules("fedavg", local_steps=4)).protocol)
    assert "Training: FedAvg, 3 rounds of 4 steps at each site, learning rate 0.02." in text
    assert "depends on all of its training children at once" in text
    assert "NO differential privacy" in text


def test_the_review_of_a_private_study_has_one_step(protocol_content):
    text = review(Protocol.model_validate(protocol_content))
    assert "Training: FedAdam, 3 rounds, learning rate 0.001." in text
    assert "at once" not in text


def test_the_review_of_exact_sums_under_masks_speaks_of_no_noise(make_consortium):
    text = review(make_consortium(**MASKED).protocol)
    assert "it learns the sum of\n  the others" in text
    assert "share out the noise" not in text
    assert "figures below" not in text


def test_where_nothing_is_masked_and_nothing_noised_the_review_promises_neither(make_consortium):
    text = review(make_consortium(exact=True, trust="local").protocol)
    assert "The centre sees this site's own sums, exactly as they are." in text
    assert "adds all of the noise" not in text
