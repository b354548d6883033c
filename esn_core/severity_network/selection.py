"""The epilepsy severity network: edges whose strength goes with GASE, with their uncertainty.

Sites release one sum per candidate edge, of edge score times severity. What
follows here is computed from that sum alone, so it costs no privacy: an
empirical-Bayes model in which an edge belongs to the network with a
probability that its block of modules shares, and then has an effect drawn from
one normal distribution, whose mean need not be zero: most connections weaken
with severity (spike and slab; Johnstone & Silverman 2004, Annals of Statistics
32:1594, with a normal slab). The known variance of the noise enters the
likelihood, so that a noisier release is shrunk more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError

# Variance that one child gives to an edge's sum when the edge is unrelated to
# severity: that of a residual clipped to 0.8 (0.42 in the simulated consortium) times
# that of a score, and half as much again, as the scores of neighbouring edges go together.
_SAMPLING_VARIANCE = 0.6

# A block's share of network edges is pulled to the overall share, and the mean of
# their effects to zero, by so many pseudo-edges.
_BLOCK_PRIOR_EDGES = 3.0
_MEAN_PRIOR_EDGES = 20.0
_EM_STEPS = 200
_SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class SeverityNetwork:
    """Effect of severity on each candidate edge.

    Attributes
    ----------
    edges : (d,) int64
        Index of each candidate among the atlas's edges.
    weight : (d,) float64
        Posterior mean of the product of a child's edge score and severity residual, which is clipped to 0.8:
        a covariance, a half to a fifth of what the score changes per unit of standardised severity.
    posterior_sd : (d,) float64
    inclusion : (d,) float64
        Posterior probability that the edge belongs to the network, were edges independent of each other.
        Edges that go together without any effect are included together: no error rate follows from it.

    """

    edges: NDArray[np.int64]
    weight: NDArray[np.float64]
    posterior_sd: NDArray[np.float64]
    inclusion: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.edges, self.weight, self.posterior_sd, self.inclusion)}
        if len(shapes) != 1 or self.edges.ndim != 1:
            raise DataError(f"a severity network needs four vectors of one length, not {sorted(shapes)}")
        if not all(np.isfinite(a).all() for a in (self.weight, self.posterior_sd, self.inclusion)):
            raise DataError("a severity network's weights must be finite")

    @property
    def retained(self) -> NDArray[np.bool_]:
        """(d,) Edges that are more likely in the network than not."""
        return self.inclusion >= 0.5


def select(
    total: NDArray[np.float64],
    *,
    edges: NDArray[np.int64],
    blocks: NDArray[np.int64],
    children: float,
    noise_sd: float,
) -> SeverityNetwork:
    """Estimate the severity network from the association sum.

    Parameters
    ----------
    total : (d,) float64
        Sum of `association_rows` over all children, noise included.
    edges : (d,) int64
        Candidate edges, as indices into the atlas's edges.
    blocks : (d,) int64
        Pair of modules that each candidate joins, as any integer code.
    children : float
        How many children were summed; noisy, positive.
    noise_sd : float
        Standard deviation of the noise in each number of `total`.

    """
    if not children > 0:
        raise DataError(f"the number of children must be positive, not {children}")
    if not (total.shape == edges.shape == blocks.shape):
        raise DataError(f"{len(edges)} candidate edges need as many sums and blocks, not {total.shape}")
    effect = total / children
    variance = (noise_sd**2 + _SAMPLING_VARIANCE * children) / children**2
    codes, block = np.unique(blocks, return_inverse=True)
    share = np.full(len(codes), 0.3)
    slab, centre = max(float(np.mean(effect**2)) - variance, variance), 0.0
    inclusion = np.full(len(effect), 0.3)
    sizes = np.bincount(block, minlength=len(codes)).astype(np.float64)
    for _ in range(_EM_STEPS):
        # E step: odds of slab N(centre, slab + variance) against spike N(0, variance).
        log_odds = (
            np.log(share[block] / (1 - share[block]))
            - 0.5 * np.log1p(slab / variance)
            + 0.5 * (effect**2 / variance - (effect - centre) ** 2 / (variance + slab))
        )
        inclusion = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
        # M step. The slab stays at least as wide as half the noise: narrower ones cannot be told from none.
        overall = float(np.clip(inclusion.mean(), _SMALLEST_SHARE, 1 - _SMALLEST_SHARE))
        share = (np.bincount(block, inclusion, minlength=len(codes)) + _BLOCK_PRIOR_EDGES * overall) / (
            sizes + _BLOCK_PRIOR_EDGES
        )
        included = float(inclusion.sum())
        centre = float(inclusion @ effect) / (included + _MEAN_PRIOR_EDGES)
        weighted = float(inclusion @ (effect - centre) ** 2) / max(included, 1e-9)
        slab = max(weighted - variance, 0.25 * variance)
    shrink = slab / (slab + variance)
    mean = centre + shrink * (effect - centre)
    spread = shrink * variance
    weight = inclusion * mean
    second_moment = inclusion * (spread + mean**2)
    return SeverityNetwork(
        edges=edges,
        weight=weight,
        posterior_sd=np.sqrt(np.maximum(second_moment - weight**2, 0)),
        inclusion=inclusion,
    )


def masked_input(scores: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh the edge scores for the network's input.

    Parameters
    ----------
    scores : (n, d) float64
        Edge z-scores of the candidate edges, clipped here to [-4, 4].
    weight : (d,) float64
        Weights of the severity network; only their ratios matter.

    Returns
    -------
    (n, d) float64
        Scores times weights, the weights scaled to a mean absolute value of
        100 / d, so that the input's size depends neither on the atlas nor on the noise.

    Raises
    ------
    DataError
        All weights are zero, or so small or large that they cannot be scaled.

    """
    with np.errstate(over="ignore"):
        size = float(np.abs(weight).sum())
    if size == 0:
        raise DataError("all weights of the severity network are zero")
    if not 1e-200 < size < 1e200:
        raise DataError(f"the weights of the severity network cannot be scaled: their sizes sum to {size:g}")
    return np.clip(scores, -4, 4) * (weight * (100.0 / size))
