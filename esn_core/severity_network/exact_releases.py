"""The exact severity network's sums as releases: its moments, and draws of its null.

Every row is centred at the mean of its site's children, so that no site's mean
leaves, and a child's row depends on the site's other children: the bounds
below size the grid and are no sensitivities. Exact sums only, under masks only.

Resampling by weights that the centre knows would be as many linear equations
about the children as there are draws, and as many draws as children give every
child's connectome away. So a site weighs its children by standard normal
numbers that it draws in secret and forgets: a sum of rows v_i with such weights
is normal with covariance sum v_i v_i' whatever else the children are like. And
there are fewer draws than children (`esn_core.protocol.analyses.NetworkRules`), so that
what they span holds no child.

Null: GASE is replaced by the secret numbers, which leaves the t of every edge
and their dependence as they are without an effect (rotation test, Langsrud 2005,
Statistics and Computing 15:53; exact where GASE or the scores are normal).
"""

import math

import numpy as np

from esn_core.arrays import Floats
from esn_core.gase import standardise_severity
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.privacy.secret_normals import LARGEST
from esn_core.severity_network.exact import Moments
from esn_core.statistics.combat import age_and_sex

COVARIATES = 2
"""Age and sex: their effects on edges and on severity are taken out."""

SCORE_CLIP = 16.0
"""Largest score, raw or centred, that enters the sums."""
# A centred row of standardised severity (within 4), age (decades) and sex is no longer than this.
_DESIGN_NORM = 6.0
# Largest root mean square of a child's centred scores.
_SCORE_RMS = 6.0


def design(gase: Floats, age_years: Floats, sex: Floats) -> Floats:
    """Return (n, 3): severity, and the covariates on scales that the sums hold; none changes a partial r."""
    return np.column_stack([standardise_severity(gase), age_and_sex(age_years, sex)])


def network(edges: int) -> ReleaseKind:
    """Describe the cross-moments of severity, covariates and edges.

    Row: (1, u_i u_j for i <= j, u v', v^2 / 16) for centred design u, |u| <= 6, and centred scores v, each at
    most 16 and |v| <= 6 sqrt(E).
    """
    longest = _SCORE_RMS**2 * edges
    bound = math.sqrt(1 + _DESIGN_NORM**4 + (_DESIGN_NORM**2 + 1) * longest)
    return ReleaseKind("network", "training", 7 + 4 * edges, bound)


def network_rows(scores: Floats, designs: Floats) -> Floats:
    """Return the (n, 7 + 4 E) rows of `network` of all children of one site.

    Parameters
    ----------
    scores : (n, E) float64
    designs : (n, 3) float64
        By `design`.

    """
    i, j = np.triu_indices(1 + COVARIATES)
    u, v = centred(designs, scores)
    products = (u[:, :, None] * v[:, None, :]).reshape(len(v), u.shape[1] * v.shape[1])
    return np.column_stack([np.ones(len(v)), u[:, i] * u[:, j], products, v**2 / SCORE_CLIP])


def moments_of(total: Floats, *, edges: int, sites: int) -> Moments:
    """Read a sum of `network_rows` over all sites."""
    i, j = np.triu_indices(1 + COVARIATES)
    covariates = np.zeros((1 + COVARIATES, 1 + COVARIATES))
    covariates[i, j] = covariates[j, i] = total[1:7]
    return Moments(
        children=round(float(total[0])),
        sites=sites,
        covariates=covariates,
        edges=total[7 : 7 + 3 * edges].reshape(1 + COVARIATES, edges).copy(),
        squares=total[7 + 3 * edges :] * SCORE_CLIP,
    )


def network_null(edges: int, draws: int) -> ReleaseKind:
    """Describe the moments of secret numbers in the place of severity.

    Row, for each draw: (g^2, g x, g v) for the centred number g, at most 12, centred covariates x and scores
    v.
    """
    largest = 2 * LARGEST
    block = largest * math.sqrt(largest**2 + _DESIGN_NORM**2 + _SCORE_RMS**2 * edges)
    width = draws * (1 + COVARIATES + edges)
    return ReleaseKind("network-null", "training", width, math.sqrt(draws) * block)


def network_null_rows(scores: Floats, designs: Floats, numbers: Floats) -> Floats:
    """Return the rows of `network_null` of all children of one site.

    Parameters
    ----------
    scores : (n, E) float64
    designs : (n, 3) float64
        The severity in it is not looked at.
    numbers : (n, draws) float64
        By `multipliers.secret_normals`. With a permutation of the children's severities in their place, this
        is the permutation test within sites.

    """
    u, v = centred(designs, scores)
    g = _less_mean(numbers)
    blocks = [np.column_stack([own**2, own[:, None] * u[:, 1:], own[:, None] * v]) for own in g.T]
    return np.concatenate(blocks, axis=1)


def null_moments(total: Floats, found: Moments) -> list[Moments]:
    """Read a sum of `network_null_rows`: the moments of each draw.

    Parameters
    ----------
    total : (draws * (3 + E),) float64
    found : Moments
        Of the same children, with their severity.

    """
    read = []
    for block in total.reshape(-1, 1 + COVARIATES + len(found.squares)):
        covariates, edges = found.covariates.copy(), found.edges.copy()
        covariates[0] = covariates[:, 0] = block[: 1 + COVARIATES]
        edges[0] = block[1 + COVARIATES :]
        read.append(Moments(found.children, found.sites, covariates, edges, found.squares))
    return read


def centred(designs: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return (n, 3) design and scores less their means over the site's children, within their bounds."""
    return clip_rows(_less_mean(designs), _DESIGN_NORM), _held(_less_mean(_held(scores)))


def _less_mean(rows: Floats) -> Floats:
    return rows - rows.mean(axis=0) if len(rows) else rows


def _held(scores: Floats) -> Floats:
    """Hold scores, and a child's scores together, within the bound; a child without scores is all zero."""
    finite = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, 0.0)
    held = np.clip(finite, -SCORE_CLIP, SCORE_CLIP)
    return clip_rows(held, _SCORE_RMS * math.sqrt(scores.shape[1]))
