"""A hospital's own network: own effects, others' effects, their merge, and the whitened weights."""

import math

import numpy as np
import pytest
from scipy import stats

from esn_core.errors import DataError
from esn_core.learning.personal_network import Effect, OthersSum, OwnChildren, Whitening, posterior_mean
from esn_core.severity_network.association import association_rows


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def drawn(rng, *, children, slope, noise=0.7):
    """GASE, standardised severity, and scores that go with it by known slopes."""
    gase = rng.integers(1, 8, children).astype(np.float64)
    severity = (gase - 4) / 1.5
    return gase, severity, severity[:, None] * slope + noise * rng.normal(size=(children, len(slope)))


def test_an_own_slope_is_that_of_least_squares(rng):
    _, severity, scores = drawn(rng, children=30, slope=np.array([0.5, 0.0, -0.8]))
    own = OwnChildren.of(scores, severity)
    for edge, column in enumerate(scores.T):
        line = stats.linregress(severity, column)
        assert own.effect.slope[edge] == pytest.approx(line.slope)
        assert own.residual[:, edge] == pytest.approx(column - line.intercept - line.slope * severity)
    # Each edge's variance is pulled to that of the median edge, by eight children.
    own_sd2 = np.array([stats.linregress(severity, c).stderr ** 2 for c in scores.T])
    expected = (8 * np.median(own_sd2) + 28 * own_sd2) / 36
    assert own.effect.variance == pytest.approx(expected)


def test_scores_beyond_the_clip_count_as_the_clip(rng):
    _, severity, scores = drawn(rng, children=30, slope=np.array([0.5, 0.0]))
    scores[3, 0] = 1e6
    held = scores.copy()
    held[3, 0] = 4.0
    found = [OwnChildren.of(x, severity).effect.slope for x in (scores, held)]
    assert np.array_equal(*found)


def test_the_others_slope_comes_back_from_their_released_sum(rng):
    slope = np.array([0.4, 0.0, -0.25])
    gase, severity, scores = drawn(rng, children=20_000, slope=slope)
    total = association_rows(scores, gase, mean_severity=float(severity.mean())).sum(axis=0)
    noisy = total + rng.normal(0, 30.0, 3)
    found = OthersSum(noisy, 20_000.0, 30.0).effect(severity - severity.mean())
    # Some rows are longer than their clip, which takes a little of the slope away; the sd is .006.
    assert found.slope == pytest.approx(slope, abs=0.03)
    assert found.variance.max() < 0.01**2


def test_a_merge_weighs_by_precision_and_endless_noise_says_nothing():
    own = Effect(np.array([0.3, -0.2]), np.array([0.01, 0.04]))
    other = Effect(np.array([0.6, 0.2]), np.array([0.04, 0.01]))
    merged = own.merged(other)
    assert merged.slope == pytest.approx([0.36, 0.12])
    assert merged.variance == pytest.approx([0.008, 0.008])
    lost = OthersSum(np.array([1e3, -1e3]), 200.0, 1e9).effect(np.linspace(-2, 2, 40))
    assert own.merged(lost).slope == pytest.approx(own.slope, abs=1e-6)


def slow_posterior(slope, variance, blocks):
    """The same expectation maximisation, number by number."""
    d, codes = len(slope), sorted(set(blocks))
    share = dict.fromkeys(codes, 0.3)
    typical = float(np.median(variance))
    slab, centre = max(float(np.mean(slope**2 - variance)), typical), 0.0
    inside = [0.0] * d
    for _ in range(60):
        for e in range(d):
            q = share[blocks[e]]
            slab_density = stats.norm.pdf(slope[e], centre, math.sqrt(variance[e] + slab))
            spike_density = stats.norm.pdf(slope[e], 0, math.sqrt(variance[e]))
            inside[e] = q * slab_density / (q * slab_density + (1 - q) * spike_density)
        overall = sum(inside) / d
        for code in codes:
            own = [inside[e] for e in range(d) if blocks[e] == code]
            share[code] = (sum(own) + 3 * overall) / (len(own) + 3)
        weight = [inside[e] / (variance[e] + slab) for e in range(d)]
        centre = sum(w * s for w, s in zip(weight, slope, strict=True)) / (
            sum(weight) + 20 / (typical + slab)
        )
        spread = sum(i * ((s - centre) ** 2 - v) for i, s, v in zip(inside, slope, variance, strict=True))
        slab = max(spread / sum(inside), 0.25 * typical)
    return [
        i * (centre + slab / (slab + v) * (s - centre))
        for i, s, v in zip(inside, slope, variance, strict=True)
    ]


def test_the_posterior_mean_is_that_of_the_slow_definition(rng):
    variance = rng.uniform(0.01, 0.03, 40)
    slope = np.where(rng.random(40) < 0.3, -0.5, 0.0) + np.sqrt(variance) * rng.normal(size=40)
    blocks = np.repeat(np.arange(4), 10)
    found = posterior_mean(Effect(slope, variance), blocks)
    assert found == pytest.approx(slow_posterior(slope, variance, blocks.tolist()), abs=1e-9)


def slow_shrinkage(rows):
    """Schäfer and Strimmer's: the variance of the correlations over their squares, pair by pair."""
    n = len(rows)
    z = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    above = below = 0.0
    for a in range(rows.shape[1]):
        for b in range(rows.shape[1]):
            if a != b:
                w = z[:, a] * z[:, b]
                above += n / (n - 1) ** 3 * float(((w - w.mean()) ** 2).sum())
                below += float(w.sum() / (n - 1)) ** 2
    return above / below


def test_whitening_is_the_inverse_of_the_shrunk_covariance(rng):
    shared = rng.normal(size=(24, 1))
    rows = rng.normal(size=(24, 9)) + shared
    rows -= rows.mean(axis=0)
    residual, controls = rows[:15] - rows[:15].mean(axis=0), rows[15:]
    whitening = Whitening.of(residual, controls)
    together = np.concatenate([residual, controls - controls.mean(axis=0)])
    kept = 1 - slow_shrinkage(together)
    assert whitening.kept == pytest.approx(kept)
    sd = together.std(axis=0, ddof=1)
    correlation = np.corrcoef(together.T)

    def covariance(share):
        return np.outer(sd, sd) * (share * correlation + (1 - share) * np.eye(9))

    mean = rng.normal(size=9)
    weights = whitening.weights(mean)
    assert weights == pytest.approx(np.linalg.solve(covariance(kept / 2), mean))
    assert whitening.variance_of(weights) == pytest.approx(weights @ covariance(kept) @ weights)


def test_an_edge_without_spread_and_no_controls_are_no_trouble(rng):
    residual = rng.normal(size=(12, 4))
    residual[:, 2] = 0.0
    weights = Whitening.of(residual - residual.mean(axis=0), np.empty((0, 4))).weights(np.ones(4))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("gase", [[4.0, 4.0, 4.0, 4.0], [1.0, 7.0]])
def test_children_that_say_nothing_of_a_slope_are_refused(gase):
    with pytest.raises(DataError, match="three children and two severities"):
        OwnChildren.of(np.zeros((len(gase), 3)), np.array(gase))
