"""Areas under ROC curves from histograms equal their definition on the pooled children."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from esn_core.errors import DataError
from esn_core.statistics.roc import auc, delong, delong_areas, delong_rows, histogram, histogram_rows

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
BINS = 1000


def area_by_pairs(values, ill):
    """The definition: of all pairs, how many are the right way round, ties a half."""
    pairs = [(a > b) + 0.5 * (a == b) for a in values[ill] for b in values[~ill]]
    return sum(pairs) / len(pairs)


def delong_by_pairs(scores, ill):
    """DeLong, DeLong & Clarke-Pearson (1988), with loops."""
    of_ill = [[np.mean([(a > b) + 0.5 * (a == b) for b in s[~ill]]) for a in s[ill]] for s in scores]
    of_well = [[np.mean([(a > b) + 0.5 * (a == b) for a in s[ill]]) for b in s[~ill]] for s in scores]
    return np.mean(of_ill, axis=1), np.cov(of_ill) / ill.sum() + np.cov(of_well) / (~ill).sum()


@st.composite
def cohorts(draw, levels=None):
    n = draw(st.integers(6, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ill = rng.random(n) < 0.4
    assume(2 <= ill.sum() <= n - 2)
    values = np.clip(rng.normal(0.4 + 0.15 * ill, 0.2, n), 0, 1)
    return (values if levels is None else np.minimum(np.floor(values * levels), levels - 1) / levels), ill


@given(cohorts(), st.integers(1, 5), st.sampled_from([10, 100, 1000]))
def test_the_area_is_that_of_all_pairs_within_the_certified_bound(cohort, sites, bins):
    values, ill = cohort
    total = sum(histogram_rows(values[k::sites], ill[k::sites], bins=bins).sum(axis=0) for k in range(sites))
    found = auc(total)
    exact = area_by_pairs(values, ill)
    assert abs(found.value - exact) <= found.binning_bound + 1e-12
    # Without a bin that holds children of both outcomes nothing is lost.
    if found.binning_bound == 0:
        assert found.value == pytest.approx(exact, abs=1e-12)
    # Of the scores rounded to their bins it is exact.
    rounded = np.minimum(np.floor(values * bins), bins - 1)
    assert found.value == pytest.approx(area_by_pairs(rounded, ill), abs=1e-12)
    assert found.value == pytest.approx(
        stats.mannwhitneyu(rounded[ill], rounded[~ill]).statistic / ill.sum() / (~ill).sum(), abs=1e-12
    )


@given(cohorts(levels=7))
def test_the_area_of_a_score_with_levels_is_exact(cohort):
    levels, ill = cohort
    found = auc(histogram_rows(levels + 0.01, ill, bins=7).sum(axis=0), levels=True)
    assert found.binning_bound == 0
    assert found.value == pytest.approx(area_by_pairs(levels, ill), abs=1e-12)


def test_the_curve_runs_from_corner_to_corner_and_holds_the_area():
    rng = np.random.default_rng(0)
    ill = rng.random(80) < 0.3
    found = auc(histogram_rows(np.clip(rng.normal(0.4 + 0.2 * ill, 0.2), 0, 1), ill, bins=50).sum(axis=0))
    x, y = found.false_positive_rate, found.true_positive_rate
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, pytest.approx(1), pytest.approx(1))
    assert np.trapezoid(y, x) == pytest.approx(found.value, abs=1e-12)


# Hanley & McNeil (1982), equation 2, by hand: A .8, 20 and 30 children: Q1 .666667, Q2 .711111,
# (.16 + 19 * .026667 + 29 * .071111) / 600 = .0045481, root .067440.
def test_the_standard_error_has_the_known_value():
    total = np.zeros(10)
    # Of 30 without: 18 in bin 0, 12 in bin 2; of 20 with: 20 in bin 1 or 3, so that the area is .8.
    total[0], total[2], total[5 + 1], total[5 + 3] = 18, 12, 10, 10
    found = auc(total, levels=True)
    assert found.value == pytest.approx(0.8, abs=1e-15)
    assert found.standard_error == pytest.approx(0.067440, abs=5e-7)
    # Not far from Wald's, 0.668 and 0.932, in the middle of the scale; further from 1.
    assert found.interval == pytest.approx((0.652, 0.895), abs=0.01)
    # Its ends are where the area lies 1.96 of their own standard errors away.
    for t in found.interval:
        spread = 1 + 24 * ((1 - t) / (2 - t) + t / (1 + t))
        assert abs(0.8 - t) == pytest.approx(1.959964 * math.sqrt(t * (1 - t) * spread / 600), abs=1e-6)


def test_an_area_of_one_has_an_interval():
    total = np.array([12.0, 0, 0, 12])
    assert auc(total).interval == (pytest.approx(0.80, abs=0.06), 1.0)
    values, ill = np.repeat([0.1, 0.9], 12), np.repeat([False, True], 12)
    counts = histogram_rows(values, ill, bins=2).sum(axis=0)
    found = delong_areas(delong_rows(values[:, None], ill, histograms=(counts,)).sum(axis=0), 1)
    assert found.areas == [1.0]
    assert found.intervals[0] == pytest.approx(auc(total).interval, abs=1e-12)


@pytest.mark.parametrize("shift", [1.0, 2.48])
def test_intervals_of_areas_hold_the_true_area_near_one_too(shift):
    true, rng, held = stats.norm.cdf(shift / math.sqrt(2)), np.random.default_rng(0), []
    for _ in range(300):
        ill = np.arange(36) < 12
        values = stats.norm.cdf(rng.normal(size=36) + shift * ill, loc=shift / 2, scale=1.5)
        counts = histogram_rows(values, ill, bins=BINS).sum(axis=0)
        rows = delong_rows(values[:, None], ill, histograms=(counts,))
        held.append(
            [
                low <= true <= high
                for low, high in (auc(counts).interval, delong_areas(rows.sum(axis=0), 1).intervals[0])
            ]
        )
    # Nominal .95; of 300 draws, within three standard errors. Wald's held .755 at .96.
    assert (np.mean(held, axis=0) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)).all()


def test_an_area_that_noise_took_beyond_what_can_be_true_is_lost():
    rng = np.random.default_rng(0)
    # A score that tells all children apart: noise takes the area to either side of 1.
    without, with_it = np.repeat([1.5, 0.0], [20, 180]), np.repeat([0.0, 1.5], [180, 20])
    counts = np.concatenate([without, with_it])
    found = [auc(counts + rng.normal(0, 0.4, 400), noise_sd=0.4) for _ in range(200)]
    assert all(each is None or 0 <= each.value <= 1 for each in found)
    assert 50 < sum(each is None for each in found) < 150


def test_noise_widens_the_interval_by_what_it_does_to_the_area():
    rng = np.random.default_rng(1)
    ill = rng.random(300) < 0.4
    total = histogram_rows(np.clip(rng.normal(0.4 + 0.15 * ill, 0.2), 0, 1), ill, bins=20).sum(axis=0)
    drawn = [auc(total + rng.normal(0, 1.5, total.shape)).value for _ in range(1000)]
    found = auc(total, noise_sd=1.5)
    assert found.noise_sd == pytest.approx(np.std(drawn), rel=0.1)  # 2 % of the draws, and first order
    assert found.interval[0] < auc(total).interval[0]


@given(cohorts(levels=40), cohorts(levels=7), st.integers(1, 4))
def test_delongs_areas_covariance_and_test_equal_their_definition(first, second, sites):
    n = min(len(first[0]), len(second[0]))
    scores, ill = np.column_stack([first[0][:n], second[0][:n]]) + 0.001, first[1][:n]
    assume(2 <= ill.sum() <= n - 2)
    histograms = tuple(
        histogram_rows(scores[:, k], ill, bins=bins).sum(axis=0) for k, bins in enumerate((40, 7))
    )
    total = sum(
        delong_rows(scores[s::sites], ill[s::sites], histograms=histograms).sum(axis=0) for s in range(sites)
    )
    found = delong_areas(total, 2)
    areas, covariance = delong_by_pairs(scores.T, ill)
    assert found.areas == pytest.approx(areas, abs=1e-12)
    assert found.covariance == pytest.approx(covariance, abs=1e-12)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance > 1e-9 and (areas > 0.001).all() and (areas < 0.999).all():
        difference = found.difference(0, 1)
        z = (areas[0] - areas[1]) / math.sqrt(variance)
        assert difference.z == pytest.approx(z, abs=1e-8)
        assert difference.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-8)


def test_a_score_against_itself_does_not_differ():
    rng = np.random.default_rng(3)
    values, ill = rng.random(30), rng.random(30) < 0.5
    counts = histogram_rows(values, ill, bins=BINS).sum(axis=0)
    rows = delong_rows(np.column_stack([values, values]), ill, histograms=(counts, counts))
    difference = delong_areas(rows.sum(axis=0), 2).difference(0, 1)
    assert (difference.value, difference.p_value) == (0, 1)


def test_an_area_at_its_end_is_compared_by_its_own_interval_and_without_a_test():
    ill = np.repeat([False, True], 4)
    perfect, none = np.linspace(0.1, 0.9, 8), np.full(8, 0.5)
    scores = np.column_stack([perfect, none, perfect**2])
    histograms = tuple(histogram_rows(x, ill, bins=BINS).sum(axis=0) for x in scores.T)
    found = delong_areas(delong_rows(scores, ill, histograms=histograms).sum(axis=0), 3)
    assert found.areas == pytest.approx([1.0, 0.5, 1.0])
    for other, value in ((1, 0.5), (2, 0.0)):
        difference = found.difference(0, other)
        assert (difference.value, difference.p_value) == (pytest.approx(value), None)
        low, high = difference.interval
        # Eight children: both areas' own intervals are .4 wide, or more.
        assert low < value - 0.3
        assert high == pytest.approx(value + (found.areas[other] - found.intervals[other, 0]))
        assert found.difference(other, 0).interval == pytest.approx((-high, -low))


@given(
    arrays(np.float64, (5, 2), elements=ANY),
    arrays(np.float64, 5, elements=st.sampled_from([0.0, 1.0, math.nan])),
    st.integers(1, 30),
    st.data(),
)
def test_no_row_is_longer_than_its_bound(values, outcome, bins, data):
    counts = histogram_rows(values[:, 0], outcome, bins=bins)
    assert set(np.unique(counts)) <= {0.0, 1.0}
    known = ~np.isnan(values[:, 0]) & ~np.isnan(outcome)
    assert np.array_equal(counts.sum(axis=1), known)
    assert counts.shape == (5, histogram(bins).dimension)
    for row, value, ill, complete in zip(counts, values[:, 0], outcome, known, strict=True):
        if complete:
            # By the definition: the bin that holds the value, held at the ends.
            place = min(int(min(max(value, 0.0), 1.0) * bins), bins - 1)
            assert row[place + bins * int(ill)] == 1
    noisy = tuple(data.draw(arrays(np.float64, 2 * bins, elements=st.floats(-1e6, 1e6))) for _ in range(2))
    rows = delong_rows(values, outcome, histograms=noisy)
    assert rows.shape == (5, delong(2).dimension)
    assert np.isfinite(rows).all()
    assert max(math.hypot(*row) for row in rows) <= delong(2).l2_bound * (1 + 1e-14)  # one norm


def test_what_no_area_can_be_computed_of_is_refused_with_words():
    assert auc(np.array([0.2, 0.1, 5.0, 6.0])) is None
    with pytest.raises(DataError, match="an even number of finite counts"):
        auc(np.zeros(3))
    with pytest.raises(DataError, match=r"two children with the outcome, not 1\.0"):
        delong_areas(np.array([5.0, 1, 1, 1, 0.5, 0.5]), 1)
    with pytest.raises(DataError, match="of 2 scores hold 12 finite numbers"):
        delong_areas(np.zeros(3), 2)
