"""The severity network as the paper selects it: partial correlations from sums, and a false discovery rate.

Exact sums only: every number of a site's sum is a moment about the site's own means, so a child's part of it
depends on the other children, and no bounded noise would protect it. For simulation, for a site's own
children, for studies whose sites consent to exact sums, and as the reference that private selection is held
against.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from esn_core.arrays import Floats
from esn_core.errors import DataError, StudyError

# What rounding leaves of no variance, against one that is there.
_NOTHING_LEFT = 1e-9


@dataclass(frozen=True)
class Moments:
    """Cross-moments about a site's means; those of sites add up.

    Attributes
    ----------
    children, sites : int
    covariates : (k + 1, k + 1) float64
        Of GASE, then of the covariates.
    edges : (k + 1, E) float64
        Of GASE and the covariates with each edge.
    squares : (E,) float64
        Of each edge with itself.

    """

    children: int
    sites: int
    covariates: Floats
    edges: Floats
    squares: Floats

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both together."""
        return Moments(
            self.children + other.children,
            self.sites + other.sites,
            self.covariates + other.covariates,
            self.edges + other.edges,
            self.squares + other.squares,
        )


def moments(scores: Floats, gase: Floats, covariates: Floats) -> Moments:
    """Compute one site's moments.

    Parameters
    ----------
    scores : (n, E) float64
    gase : (n,) float64
    covariates : (n, k) float64
        Such as age and sex; their effects are taken out.

    """
    if not len(scores) == len(gase) == len(covariates) or len(gase) < 2:
        raise DataError(f"a site's moments need two children or more, alike in all parts, not {len(gase)}")
    d = np.column_stack([gase, covariates])
    d, z = d - d.mean(axis=0), scores - scores.mean(axis=0)
    return Moments(len(gase), 1, d.T @ d, d.T @ z, (z**2).sum(axis=0))


@dataclass(frozen=True)
class ExactNetwork:
    """Partial correlation of each edge with GASE.

    Attributes
    ----------
    r, t, p : (E,) float64
        NaN for an edge that does not vary beyond the covariates.
    retained : (E,) bool
        Below the false discovery rate.
    freedom : int
        Children less sites, one, and the covariates that vary within sites.

    """

    r: Floats
    t: Floats
    p: Floats
    retained: NDArray[np.bool_]
    freedom: int


def exact_network(sums: Moments, *, false_discovery_rate: float = 0.05) -> ExactNetwork:
    """Select edges by partial correlation, with a mean of its own for each site.

    By Frisch & Waugh the moments about the sites' means give the same as indicator variables of the sites
    among the covariates. Benjamini & Hochberg 1995 as statsmodels computes it.

    Raises
    ------
    StudyError
        Too few children, or GASE does not vary beyond the covariates.

    """
    k = len(sums.covariates) - 1
    inner = sums.covariates[1:, 1:]
    # A covariate that is the same for all children of each site, as sex is where sites have one sex alone,
    # is a sum of the sites' own means, and takes nothing more.
    freedom = sums.children - sums.sites - _rank(inner) - 1
    if freedom < 1:
        raise StudyError(f"{sums.children} children at {sums.sites} sites are too few for {k} covariates")
    take_out = np.linalg.pinv(inner, rcond=_NOTHING_LEFT, hermitian=True) if k else np.zeros((0, 0))
    with_gase = sums.covariates[0, 1:]
    gase_left = float(sums.covariates[0, 0] - with_gase @ take_out @ with_gase)
    if gase_left <= 1e-12 * max(float(sums.covariates[0, 0]), 1e-300):
        raise StudyError("GASE does not vary beyond the covariates")
    with_edges = sums.edges[1:]
    product = sums.edges[0] - with_gase @ take_out @ with_edges
    left = sums.squares - np.einsum("ie,ij,je->e", with_edges, take_out, with_edges)
    varies = left > 1e-12 * np.maximum(sums.squares, 1e-300)
    r = np.full(len(left), math.nan)
    r[varies] = np.clip(product[varies] / np.sqrt(left[varies] * gase_left), -1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = r * np.sqrt(freedom / (1 - r**2))
    p = 2 * stdtr(freedom, -np.abs(t))
    return ExactNetwork(r, t, p, discovered(p, false_discovery_rate), freedom)


def _rank(moments: Floats) -> int:
    """Return how many of the covariates vary, and are no line in the others."""
    scale = np.sqrt(np.maximum(np.diag(moments), np.finfo(float).tiny))
    return (
        int(np.sum(np.linalg.eigvalsh(moments / np.outer(scale, scale)) > _NOTHING_LEFT)) if len(scale) else 0
    )


def discovered(p: Floats, rate: float = 0.05) -> NDArray[np.bool_]:
    """Return which (E,) edges Benjamini & Hochberg's procedure retains; none whose p is NaN."""
    # Imported here: statsmodels takes a second, and most programs select nothing.
    from statsmodels.stats.multitest import multipletests

    found = np.zeros(len(p), dtype=np.bool_)
    known = np.isfinite(p)
    if known.any():
        found[known] = multipletests(p[known], alpha=rate, method="fdr_bh")[0]
    return found
