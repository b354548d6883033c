"""What the price list expects of the noise is what the noise does."""

import math

import numpy as np
import pytest

from esn_core.privacy.fixed_point import noise_sd
from esn_core.protocol.expected_noise import expected_noise, log_odds_noise, noise_of_sum
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import CENTRE, RESIDUAL_CLIP, association_release
from esn_core.severity_network.centring import LEVELS, centre_of
from esn_core.statistics.agreement import EVALUATION, agreement, evaluation_rows
from esn_core.statistics.recalibration import CALIBRATION


def make(content, **privacy):
    return Protocol.model_validate({**content, "privacy": {**content["privacy"], **privacy}})


def expect(protocol, *, training=250, held_out=180, candidates=97, seed=0):
    return expected_noise(
        protocol,
        training_children=training,
        held_out_children=held_out,
        candidates=candidates,
        parameters=5000,
        rng=np.random.default_rng(seed),
    )


def test_the_noise_of_a_sum_is_that_of_its_sites(protocol_content):
    kind = CALIBRATION
    for trust, sites in (("local", 3), ("secure-sum", 3 / 2)):
        protocol = make(protocol_content, trust=trust)
        multiplier = price_of(protocol).of("calibration").noise_multiplier
        one = noise_sd(kind, multiplier, share=1.0)
        assert noise_of_sum(protocol, kind) == pytest.approx(one * math.sqrt(sites), rel=1e-12)


def test_the_noise_in_the_number_of_children_is_that_of_the_centres_release(protocol_content):
    mean = make(protocol_content)
    network = {**protocol_content["severity_network"], "centre": "levels"}
    levels = make({**protocol_content, "severity_network": network})
    rng, sd = np.random.default_rng(3), noise_of_sum(levels, LEVELS)
    drawn = [
        centre_of(np.full(7, 500.0) + rng.normal(0, sd, 7), centring="levels", fewest_children=15.0)[0]
        for _ in range(4000)
    ]
    # 4,000 draws give a standard deviation to 1.1 %.
    assert expect(levels).children == pytest.approx(np.std(drawn), rel=0.04)
    assert expect(mean).children == pytest.approx(noise_of_sum(mean, CENTRE), rel=1e-12)
    # Norm 1 and seven numbers, in place of root 5 and one.
    assert expect(levels).children == pytest.approx(expect(mean).children * math.sqrt(7 / 5), rel=1e-12)


def test_the_noise_in_r_is_what_noise_does_to_r(protocol_content):
    """Drawn anew: sums of children with r 0.8, noise added, r computed from them."""
    protocol = make(protocol_content, trust="secure-sum")
    rng = np.random.default_rng(1)
    sd = noise_of_sum(protocol, EVALUATION)
    errors = []
    for _ in range(400):
        y = rng.normal(size=180)
        gase = np.clip(np.rint(4 + 1.5 * y), 1, 7)
        x = np.clip(4 + 1.5 * 0.8 * (0.8 * y + 0.6 * rng.normal(size=180)), 1, 7)
        sums = evaluation_rows(x, gase).sum(axis=0)
        found = agreement(sums + rng.normal(0, sd, sums.shape)).r
        errors.append(found - agreement(sums).r)
    # 200 and 400 draws: relative standard errors of 5 % and 3.5 %, and one cohort differs from another.
    assert expect(protocol).r == pytest.approx(np.std(errors), rel=0.35)


def test_the_noise_in_an_edge_is_that_of_its_correlation(protocol_content):
    protocol = make(protocol_content, trust="secure-sum")
    rng = np.random.default_rng(2)
    sd = noise_of_sum(protocol, association_release(97))
    residual = rng.normal(0, 0.9, 200_000)
    score = 0.3 * residual / 0.9 + np.sqrt(1 - 0.3**2) * rng.normal(size=200_000)
    each = score * np.clip(residual, -RESIDUAL_CLIP, RESIDUAL_CLIP)
    # 200,000 products of sd .6 around .17: relative standard error 1 %.
    assert expect(protocol).edge_r == pytest.approx(sd / 250 / (each.mean() / 0.3), rel=0.04)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_more_budget_means_less_noise_in_everything(protocol_content, epsilon):
    less, more = (expect(make(protocol_content, epsilon=e)) for e in (epsilon, 8.0))
    for name in ("children", "edge_r", "gradient", "slope", "mae"):
        assert getattr(less, name) > getattr(more, name)


def test_without_noise_nothing_is_expected_and_without_rounds_no_gradient(protocol_content):
    exact = expect(make(protocol_content, noise="none"))
    assert (exact.children, exact.edge_r, exact.gradient, exact.slope, exact.r, exact.mae) == (0,) * 6
    shares = {"centre": 0.05, "association": 0.8, "calibration": 0.15, "evaluation": 1.0}
    content = {
        **protocol_content,
        "training": {**protocol_content["training"], "rounds": 0},
        "privacy": {**protocol_content["privacy"], "shares": shares},
    }
    assert expect(make(content)).gradient is None


def test_a_logistic_model_on_few_children_is_drowned_by_noise_and_one_on_many_is_not(protocol_content):
    """METHOD: at epsilon 3, 36 children, about 0.7 where the choice of children gives 0.5."""
    three = make(protocol_content, trust="secure-sum", colluding_sites=0, epsilon=3.0)
    noise, sampling = log_odds_noise(three, children=36)
    assert noise > sampling
    assert 0.3 < sampling < 0.6
    noise, sampling = log_odds_noise(make(protocol_content, epsilon=8.0, trust="secure-sum"), children=2000)
    assert noise < sampling
    assert log_odds_noise(make(protocol_content, noise="none"), children=36)[0] == 0


def test_the_noise_in_a_log_odds_ratio_is_what_noise_in_the_gradient_does(protocol_content):
    """One Newton step from the optimum of a drawn model, its gradient noised."""
    protocol = make(protocol_content, trust="secure-sum", epsilon=8.0)
    rng = np.random.default_rng(3)
    n, beta = 4000, np.array([-0.8, 0.5, 0.0, 0.0])
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    p = 1 / (1 + np.exp(-x @ beta))
    curvature = (x * (p * (1 - p))[:, None]).T @ x
    expected, _ = log_odds_noise(protocol, children=n)
    from esn_core.privacy.accounting import mu_for, noise_multiplier_for
    from esn_core.statistics.logistic_sums import newton

    multiplier = noise_multiplier_for(mu_for(8.0, 1e-3), share=1.0, releases=6)
    each = noise_sd(newton(4, feature_norm=2.5), multiplier, share=0.5)
    steps = np.linalg.solve(curvature, rng.normal(0, each * math.sqrt(3), (4, 500)))
    # The curvature of a standardised feature is taken as 0.2 n; here it is about 0.19 n.
    assert steps[1:].std() == pytest.approx(expected, rel=0.2)
