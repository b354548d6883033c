"""A hospital's own severity network: what the consortium released, merged with what the hospital itself sees.

A hospital knows its own children exactly, and the others' only through a noised sum. Each edge's effect is
estimated from both, each weighted by its precision; the more noise there is, the more the hospital is by
itself, and with endless noise it is exactly that. Nothing here leaves the hospital: every number may depend
on a raw record in full, so no sum, evaluation or explanation of it is a release (decision 0211).

Effects are slopes of an edge's score on standardised severity. Spike and slab as in
`esn_core.severity_network.selection`, but with a variance for each edge; the weights are the effects whitened
by the covariance of the hospital's own residuals and controls (Schäfer & Strimmer 2005, Statistical
Applications in Genetics and Molecular Biology 4:32), half of which is kept.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.severity_network.association import RESIDUAL_CLIP
from esn_core.severity_network.candidates import SCORE_CLIP

# How many children the median spread of all edges is worth, against an edge's own.
_PRIOR_CHILDREN = 8.0
# Residuals of neighbouring edges go together, so that a sum varies more than its edges alone would.
_SAMPLING_EXCESS = 1.15
_FEWEST_OTHERS = 5.0
_BLOCK_PRIOR_EDGES = 3.0
_MEAN_PRIOR_EDGES = 20.0
_EM_STEPS = 60
_KEPT_CORRELATION = 0.5
_LEAST_SD = 0.2
_LEAST_SHRINKAGE = 0.02


@dataclass(frozen=True)
class Effect:
    """Slope of each edge's score on standardised severity, and its variance.

    Attributes
    ----------
    slope, variance : (d,) float64
        The variance is positive.

    """

    slope: Floats
    variance: Floats

    def merged(self, other: "Effect") -> "Effect":
        """Return the mean of two independent estimates, weighted by their precision."""
        precision = 1 / self.variance + 1 / other.variance
        slope = (self.slope / self.variance + other.slope / other.variance) / precision
        return Effect(slope, 1 / precision)


@dataclass(frozen=True)
class OwnChildren:
    """What a hospital sees in its own training children.

    Attributes
    ----------
    effect : Effect
    residual : (n, d) float64
        Scores less what severity explains.

    """

    effect: Effect
    residual: Floats

    @classmethod
    def of(cls, scores: Floats, severity: Floats) -> Self:
        """Regress each edge on severity.

        Parameters
        ----------
        scores : (n, d) float64
            Of the candidates.
        severity : (n,) float64
            Standardised.

        Raises
        ------
        DataError
            There are fewer than three children, or all have one severity.

        """
        children = len(severity)
        centred = severity - severity.mean()
        information = float(centred @ centred)
        if children < 3 or not information > 0:
            raise DataError(
                f"a network of one's own takes three children and two severities among them, not {children} "
                f"of {len(np.unique(severity))}"
            )
        x = np.clip(scores, -SCORE_CLIP, SCORE_CLIP)
        x = x - x.mean(axis=0)
        slope = centred @ x / information
        residual = x - np.outer(centred, slope)
        freedom = children - 2
        variance = (residual**2).sum(axis=0) / freedom
        typical = np.median(np.sqrt(variance)) ** 2
        moderated = (_PRIOR_CHILDREN * typical + freedom * variance) / (_PRIOR_CHILDREN + freedom)
        return cls(Effect(slope, np.maximum(moderated, _LEAST_SD**2) / information), residual)


@dataclass(frozen=True)
class OthersSum:
    """What was released about the other hospitals' children: the sum less one's own exact part.

    Attributes
    ----------
    total : (d,) float64
        Of `association_rows`, noise included.
    children : float
        Whose rows it holds.
    noise_sd : float
        Of each number.

    """

    total: Floats
    children: float
    noise_sd: float

    def effect(self, residuals: Floats) -> Effect:
        """Return each edge's slope over the other hospitals' children.

        Parameters
        ----------
        residuals : (n,) float64
            Standardised severities less their mean, of children like those; not clipped. A clipped residual
            moves a sum by less than its slope: by E[clip(r) r] for each child.

        """
        clipped = np.clip(residuals, -RESIDUAL_CLIP, RESIDUAL_CLIP)
        per_child, second = float(np.mean(clipped * residuals)), float(np.mean(clipped**2))
        others = max(self.children, _FEWEST_OTHERS)
        variance = (self.noise_sd**2 + _SAMPLING_EXCESS * second * others) / (others * per_child) ** 2
        return Effect(self.total / (others * per_child), np.full(len(self.total), variance))


def posterior_mean(effect: Effect, blocks: NDArray[np.int64]) -> Floats:
    """Shrink effects by a spike and a slab; the blocks' shares of true edges by EM.

    Parameters
    ----------
    effect : Effect
    blocks : (d,) int64
        Pair of modules that each edge joins: 0 to B - 1, each in use.

    Returns
    -------
    (d,) float64

    """
    slope, variance = effect.slope, effect.variance
    sizes = np.bincount(blocks).astype(np.float64)
    share = np.full(len(sizes), 0.3)
    typical = float(np.median(variance))
    slab, centre = max(float(np.mean(slope**2 - variance)), typical), 0.0
    inclusion = np.zeros(len(slope))
    for _ in range(_EM_STEPS):
        log_odds = (
            np.log(share[blocks] / (1 - share[blocks]))
            - 0.5 * np.log1p(slab / variance)
            + 0.5 * (slope**2 / variance - (slope - centre) ** 2 / (variance + slab))
        )
        inclusion = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
        overall = float(np.clip(inclusion.mean(), 0.01, 0.99))
        share = (np.bincount(blocks, inclusion) + _BLOCK_PRIOR_EDGES * overall) / (sizes + _BLOCK_PRIOR_EDGES)
        weight = inclusion / (variance + slab)
        centre = float(weight @ slope) / (float(weight.sum()) + _MEAN_PRIOR_EDGES / (typical + slab))
        spread = float(inclusion @ ((slope - centre) ** 2 - variance)) / max(float(inclusion.sum()), 1e-9)
        slab = max(spread, 0.25 * typical)
    mean: Floats = inclusion * (centre + slab / (slab + variance) * (slope - centre))
    return mean


@dataclass(frozen=True)
class Whitening:
    """Covariance of a hospital's edges: shrunk correlations of own residuals and controls, and their sd.

    Attributes
    ----------
    sd : (d,) float64
    factor : (n, d) float64
        Its square is the correlations before they are shrunk.
    kept : float
        The share of them that is kept beside the diagonal.

    """

    sd: Floats
    factor: Floats
    kept: float

    @classmethod
    def of(cls, residual: Floats, controls: Floats) -> Self:
        """Estimate it from (n, d) residuals of children and (m, d) scores of controls."""
        rows = np.concatenate([residual, controls - controls.mean(axis=0)]) if len(controls) else residual
        n = len(rows)
        sd = np.maximum(rows.std(axis=0, ddof=1), _LEAST_SD)
        z = rows / sd
        squares = float(((z @ z.T) ** 2).sum()) / (n - 1) ** 2 - z.shape[1]
        fourth = float(((z**2).sum(axis=1) ** 2).sum() - (z**4).sum())
        variance = n / (n - 1) ** 3 * (fourth - (n - 1) ** 2 / n * squares)
        shrinkage = float(np.clip(variance / max(squares, 1e-9), _LEAST_SHRINKAGE, 1))
        return cls(sd, z / np.sqrt(n - 1), 1 - shrinkage)

    def weights(self, mean: Floats) -> Floats:
        """Return the inverse of the covariance, half of its correlations kept, times (d,) `mean`."""
        kept = _KEPT_CORRELATION * self.kept
        u, diagonal = self.factor * np.sqrt(kept), 1 - kept
        q = mean / self.sd
        inner = np.eye(len(u)) + u @ u.T / diagonal
        solved: Floats = (q / diagonal - u.T @ np.linalg.solve(inner, u @ q) / diagonal**2) / self.sd
        return solved

    def variance_of(self, weights: Floats) -> float:
        """Return the variance of a sum of scores by (d,) `weights`."""
        v = weights * self.sd
        return float((1 - self.kept) * (v @ v) + self.kept * np.sum((self.factor @ v) ** 2))
