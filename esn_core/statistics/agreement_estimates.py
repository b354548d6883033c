"""Estimates of agreement: what sums tell of r and the errors, with intervals for children and noise together.

Noised sums are read as what they are: true sums of some children, and noise of a known standard deviation.
All sums together, those by level included, have a posterior distribution over what can be true: a number of
children that the sites' minima allow, means within the scale, variances above zero, and r between -1 and 1.
It is drawn from; each draw then gets the sampling error of as many children. So there is an estimate and an
interval whatever the noise did, and they become those of exact sums as the noise becomes small.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from esn_core.arrays import Floats
from esn_core.gase import GASE_LEVELS, GASE_MIDDLE, HALF_RANGE
from esn_core.statistics.agreement import FEWEST_CHILDREN, agreement
from esn_core.statistics.intervals import Z_95

_CHAINS, _STEPS, _FORGOTTEN, _EVERY = 60, 900, 300, 6
# A child's place on the scale, from -1 to 1: standard deviations below this are of no scores, and of no
# predictions.
_SMALLEST_SD = 0.02
_LEVELS = (np.array(GASE_LEVELS) - GASE_MIDDLE) / HALF_RANGE


@dataclass(frozen=True)
class Estimate:
    """A figure.

    Attributes
    ----------
    value : float
        Under noise the median of the posterior.
    interval : (float, float)
        95 %, for the choice of children and the noise together.

    """

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Estimates:
    """Agreement of predicted with clinical GASE.

    Attributes
    ----------
    children : Estimate
    r, mae, rmse, slope, intercept : Estimate or None
        Errors in steps of GASE; slope and intercept of clinical on predicted GASE. None where exact sums
        allow none: a prediction that does not vary, or fewer than four children.

    """

    children: Estimate
    r: Estimate | None
    mae: Estimate | None
    rmse: Estimate | None
    slope: Estimate | None
    intercept: Estimate | None


def estimates(
    total: Floats, *, noise_sd: float, fewest_children: float, rng: np.random.Generator
) -> Estimates:
    """Estimate the agreement from a sum of `agreement.evaluation_rows`.

    Parameters
    ----------
    total : (28,) float64
    noise_sd : float
        Standard deviation of the noise in each number of `total`.
    fewest_children : float
        A public lower bound on how many children were summed.
    rng : numpy Generator
        For the draws from the posterior; nothing private.

    """
    if noise_sd == 0:
        return _of_exact(total)
    return estimates_of_all(total[None], noise_sd=noise_sd, fewest_children=fewest_children, rng=rng)[0]


def estimates_of_all(
    totals: Floats, *, noise_sd: float, fewest_children: float, rng: np.random.Generator
) -> list[Estimates]:
    """Return `estimates` of (m, 28) noised sums at once, which takes little longer than one."""
    drawn = posterior(totals, noise_sd=noise_sd, fewest_children=fewest_children, rng=rng)
    n, mean_a, mean_b, sd_a, sd_b, r = drawn
    z = rng.normal(size=n.shape)
    # Fisher's transformation, as for exact sums.
    true_r = np.tanh(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) + z / np.sqrt(n - 3))
    square = (sd_a - sd_b) ** 2 + 2 * (1 - r) * sd_a * sd_b + (mean_a - mean_b) ** 2
    apart = _apart(totals[:, 6], n, square, noise_sd, rng)
    rmse = np.sqrt(square * n / rng.chisquare(n))
    mae = apart + rng.normal(size=n.shape) * np.sqrt(np.maximum(square - apart**2, 0.0) / n)
    leave = np.sqrt((1 - r**2) * n / rng.chisquare(n - 2)) * sd_b
    slope = r * sd_b / sd_a + leave / sd_a / np.sqrt(n) * z
    # The line through the means: its height there, and the slope, are independent.
    height = mean_b + leave / np.sqrt(n) * rng.normal(size=n.shape)
    intercept = (height - slope * mean_a) * HALF_RANGE + GASE_MIDDLE * (1 - slope)
    figures = (n, true_r, np.maximum(mae, 0.0) * HALF_RANGE, rmse * HALF_RANGE, slope, intercept)
    told = [_told(values) for values in figures]
    return [Estimates(*(each[i] for each in told)) for i in range(len(totals))]


def posterior(
    totals: Floats, *, noise_sd: float, fewest_children: float, rng: np.random.Generator
) -> tuple[Floats, ...]:
    """Draw what the true sums may be.

    By random walks of Metropolis, whose steps are as the noise is and, in turns, as what can be true is. All
    values are equally likely before the sums are seen, on the scales that people think on: children,
    both means, both standard deviations, r.

    Parameters
    ----------
    totals : (m, 28) float64
    noise_sd, fewest_children, rng
        As for `estimates`.

    Returns
    -------
    six (m, draws) float64
        Children, mean prediction, mean score, their standard deviations, r; means and standard deviations
        on the scale from -1 to 1.

    """
    middle, covariance = _moments(totals, noise_sd)
    precision, root = np.linalg.inv(covariance), np.linalg.cholesky(covariance)
    fewest = max(fewest_children, float(FEWEST_CHILDREN))
    state = np.repeat(_start(middle, fewest)[:, None], _CHAINS, axis=1)  # (m, chains, 6)
    # What can be true about as far away as a step goes: n by its noise, the others by their own ranges.
    ranges = np.array([math.sqrt(covariance[0, 0]), 0.3, 0.3, 0.2, 0.2, 0.5])

    def density(figures: Floats) -> Floats:
        away = _moments_of(figures) - middle[:, None]
        likelihood = -np.einsum("mci,ij,mcj->mc", away, precision, away) / 2
        return np.where(_possible(figures, fewest), likelihood, -np.inf)

    at = density(state)
    kept = []
    for step in range(_STEPS):
        scale = (0.1, 0.4, 1.0)[step // 2 % 3]
        if step % 2:
            # By the noise, along the moments: where the noise is small against what is there.
            moved = _moments_of(state) + scale * (rng.normal(size=state.shape) @ root.T)
            proposed = _figures(moved)
            there = density(proposed)
            ahead = there - _log_volume(proposed) - at + _log_volume(state)
        else:
            # By what there is, some figures at a time: where it is not.
            some = rng.random(state.shape) < 0.5
            proposed = state + scale * ranges * some * rng.normal(size=state.shape)
            there = density(proposed)
            ahead = there - at
        taken = np.log(rng.random(at.shape)) < np.where(there > -np.inf, ahead, -np.inf)
        state, at = np.where(taken[..., None], proposed, state), np.where(taken, there, at)
        if step >= _FORGOTTEN and step % _EVERY == 0:
            kept.append(state)
    n, *means, sd_a, sd_b, r = np.moveaxis(np.concatenate(kept, axis=1), -1, 0)
    return (n, *means, sd_a, sd_b, r)


def _moments(totals: Floats, noise_sd: float) -> tuple[Floats, Floats]:
    """Return n and the sums of a, b, a^2, b^2, ab, each from both places that have it; their covariance."""
    direct = totals[:, :6] * np.array([2.0, 1, 1, 1, 1, 1])
    counts, sums, squares = 2 * totals[:, 7:].reshape(len(totals), -1, 3).transpose(2, 0, 1)
    one, b = np.ones(len(_LEVELS)), _LEVELS
    by_level = np.column_stack([counts @ one, sums @ one, counts @ b, squares @ one, counts @ b**2, sums @ b])
    first = noise_sd**2 * np.diag([4.0, 1, 1, 1, 1, 1])
    # Each is a combination of the levels' counts (0), sums (1) or squares (2).
    of, weights = np.array([0, 1, 0, 2, 0, 1]), np.array([one, one, b, one, b**2, b])
    second = 4 * noise_sd**2 * np.where(of[:, None] == of, weights @ weights.T, 0.0)
    inverses = np.linalg.inv(first), np.linalg.inv(second)
    covariance = np.linalg.inv(inverses[0] + inverses[1])
    return (direct @ inverses[0] + by_level @ inverses[1]) @ covariance, covariance


def _start(middle: Floats, fewest: float) -> Floats:
    """Return figures (m, 6) that can be true, near to those that were released."""
    n = np.maximum(middle[:, 0], fewest + 1)
    mean_a, mean_b = np.clip(middle[:, 1:3] / n[:, None], -0.8, 0.8).T
    sd_a, sd_b = (
        np.sqrt(np.clip(square / n - mean**2, 0.05**2, (1 - mean**2) * 0.9))
        for square, mean in ((middle[:, 3], mean_a), (middle[:, 4], mean_b))
    )
    r = np.clip((middle[:, 5] / n - mean_a * mean_b) / (sd_a * sd_b), -0.9, 0.9)
    return np.column_stack([n, mean_a, mean_b, sd_a, sd_b, r])


def _moments_of(figures: Floats) -> Floats:
    """Return n and the sums of a, b, a^2, b^2, ab of (..., 6) figures: n, both means, both sds, r."""
    n, mean_a, mean_b, sd_a, sd_b, r = np.moveaxis(figures, -1, 0)
    each = [np.ones_like(n), mean_a, mean_b, sd_a**2 + mean_a**2, sd_b**2 + mean_b**2]
    return np.stack([n * part for part in (*each, r * sd_a * sd_b + mean_a * mean_b)], axis=-1)


def _figures(moments: Floats) -> Floats:
    """Return the figures of (..., 6) moments; NaN where there are none."""
    n, a, b, aa, bb, ab = np.moveaxis(moments, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_a, mean_b = a / n, b / n
        sd_a, sd_b = np.sqrt(aa / n - mean_a**2), np.sqrt(bb / n - mean_b**2)
        return np.stack([n, mean_a, mean_b, sd_a, sd_b, (ab / n - mean_a * mean_b) / (sd_a * sd_b)], axis=-1)


def _possible(figures: Floats, fewest: float) -> NDArray[np.bool_]:
    """Tell which figures can be true; all that can are equally likely before sums are seen."""
    n, mean_a, mean_b, sd_a, sd_b, r = np.moveaxis(figures, -1, 0)
    possible = (n >= fewest) & (np.abs(r) < 1) & (sd_a > _SMALLEST_SD) & (sd_b > _SMALLEST_SD)
    return np.asarray(possible & (sd_a**2 + mean_a**2 <= 1) & (sd_b**2 + mean_b**2 <= 1))


def _log_volume(figures: Floats) -> Floats:
    """Return the log of by how much the moments' volume grows with the figures': n^5 sd_a^2 sd_b^2."""
    n, _, _, sd_a, sd_b, _ = np.moveaxis(figures, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(5 * np.log(n) + 2 * np.log(sd_a) + 2 * np.log(sd_b))


def _apart(released: Floats, n: Floats, square: Floats, noise_sd: float, rng: np.random.Generator) -> Floats:
    """Draw the (m, draws) mean of |a - b|, which lies between half of the mean square and its root."""
    middle, sd = 2 * released[:, None] / n, 2 * noise_sd / n
    low, high = ndtr((square / 2 - middle) / sd), ndtr((np.sqrt(square) - middle) / sd)
    drawn = middle + sd * ndtri(low + (high - low) * rng.random(n.shape))
    held: Floats = np.clip(drawn, square / 2, np.sqrt(square))
    return held


def _told(values: Floats) -> list[Estimate]:
    ends = np.quantile(values, [0.025, 0.5, 0.975], axis=1).T
    return [Estimate(float(middle), (float(low), float(high))) for low, middle, high in ends]


def _of_exact(total: Floats) -> Estimates:
    found = agreement(total)
    n = found.children
    children = Estimate(n, (n, n))
    if found.mae is None or found.rmse is None:
        return Estimates(children, None, None, None, None, None)
    error = Z_95 * math.sqrt(max(found.rmse**2 - found.mae**2, 0.0) / n)
    mae = Estimate(found.mae, (max(found.mae - error, 0.0), found.mae + error))
    # Of normal errors; the root of n times the mean square over chi-squared.
    low, high = (found.rmse * math.sqrt(n / float(chdtri(n, 1 - p))) for p in (0.975, 0.025))
    rmse = Estimate(found.rmse, (low, high))
    if found.r is None or found.slope is None or found.intercept is None or found.r_interval is None:
        return Estimates(children, None, mae, rmse, None, None)
    sum_a, sum_b, sum_aa, sum_bb = (float(x) * HALF_RANGE for x in total[1:5])
    around = (sum_aa * HALF_RANGE) - sum_a**2 / n
    around_score = (sum_bb * HALF_RANGE) - sum_b**2 / n
    mean = sum_a / n + GASE_MIDDLE
    leave = math.sqrt(max(around_score * (1 - found.r**2), 0.0) / (n - 2))
    slope_error = leave / math.sqrt(around)
    intercept_error = leave * math.sqrt(1 / n + mean**2 / around)
    quantile = float(stdtrit(n - 2, 0.975))
    return Estimates(
        children,
        Estimate(found.r, found.r_interval),
        mae,
        rmse,
        _around(found.slope, quantile * slope_error),
        _around(found.intercept, quantile * intercept_error),
    )


def _around(value: float, half: float) -> Estimate:
    return Estimate(value, (value - half, value + half))
