"""The exact severity network's sums as releases: moments, draws of its null, and draws of its uncertainty.

Every row is centred at the mean of its site's children, so that no site's mean
leaves, and a child's row depends on the site's other children: the bounds
below size the grid and are no sensitivities. Exact sums only, under masks only.

The draws. Resampling by weights that the centre knows would be as many linear
equations about the children as there are draws, and more of them than children
give every child's connectome away. So a site weighs its children by standard
normal numbers that it draws in secret and forgets. A sum of rows v_i with such
weights is normal with covariance sum v_i v_i' whatever else the children are
like: a thousand draws tell no more than this covariance of the edges does.

Null: GASE is replaced by the secret numbers, which leaves the t of every edge
and their dependence as they are without an effect (rotation test, Langsrud 2005,
Statistics and Computing 15:53; exact where GASE or the scores are normal).
Uncertainty: the multiplier bootstrap, which weighs each child's influence on the
edges' correlations (van der Vaart & Wellner 1996, section 2.9).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError
from esn_core.exact_network import Moments
from esn_core.multipliers import LARGEST
from esn_core.releases import ReleaseKind, clip_rows, standardise_severity

Floats = NDArray[np.float64]

COVARIATES = 2
"""Age and sex: their effects on edges and on severity are taken out."""

_SCORE_CLIP = 16.0
"""Largest score, raw or centred, that enters the sums."""
# A centred row of standardised severity (within 4), age (decades) and sex is no longer than this.
_DESIGN_NORM = 6.0
# Largest root mean square of a child's centred scores, and of its influences on the correlations.
_SCORE_RMS, _INFLUENCE_RMS = 6.0, 40.0


def design(gase: Floats, age_years: Floats, sex: Floats) -> Floats:
    """Return (n, 3): severity, and the covariates on scales that the sums hold; none changes a partial r."""
    return np.column_stack([standardise_severity(gase), (age_years - 10) / 10, sex - 0.5])


# --- the network ------------------------------------------------------------------------------------------


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
    u, v = _centred(designs, scores)
    products = (u[:, :, None] * v[:, None, :]).reshape(len(v), u.shape[1] * v.shape[1])
    return np.column_stack([np.ones(len(v)), u[:, i] * u[:, j], products, v**2 / _SCORE_CLIP])


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
        squares=total[7 + 3 * edges :] * _SCORE_CLIP,
    )


# --- draws of the null ------------------------------------------------------------------------------------


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
    u, v = _centred(designs, scores)
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


# --- draws of the uncertainty -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partial:
    """What takes age and sex out of the edges and of severity; public once the network is.

    Attributes
    ----------
    r : (E,) float64
        Partial correlation of each edge with severity; 0 for an edge that does not vary.
    edge_sd : (E,) float64
        Of each edge beyond the covariates; 0 where there is none.
    edge_effects : (2, E) float64
        Of the covariates on each edge.
    severity_sd : float
    severity_effects : (2,) float64

    """

    r: Floats
    edge_sd: Floats
    edge_effects: Floats
    severity_sd: float
    severity_effects: Floats

    @classmethod
    def of(cls, found: Moments, r: Floats) -> "Partial":
        """Compute it from the moments of all sites and the (E,) partial correlations."""
        inner = np.linalg.pinv(found.covariates[1:, 1:])
        edge_effects = inner @ found.edges[1:]
        severity_effects = inner @ found.covariates[1:, 0]
        left = found.squares - np.sum(found.edges[1:] * edge_effects, axis=0)
        severity_left = float(found.covariates[0, 0] - found.covariates[0, 1:] @ severity_effects)
        known = np.isfinite(r)
        return cls(
            r=np.where(known, r, 0.0),
            edge_sd=np.where(known, np.sqrt(np.maximum(left, 0.0) / found.children), 0.0),
            edge_effects=edge_effects,
            severity_sd=math.sqrt(severity_left / found.children),
            severity_effects=severity_effects,
        )

    @property
    def vector(self) -> Floats:
        """All of it as (4 E + 3,) numbers, as a question carries it."""
        severity = np.array([self.severity_sd, *self.severity_effects])
        return np.concatenate([self.r, self.edge_sd, self.edge_effects.ravel(), severity])

    @classmethod
    def from_vector(cls, vector: Floats, *, edges: int) -> "Partial":
        """Take `vector` apart again.

        Raises
        ------
        DataError
            It has another length, or holds a correlation or an sd that cannot be.

        """
        if vector.shape != (4 * edges + 1 + COVARIATES,):
            raise DataError(
                f"the partial correlations of {edges} edges are {4 * edges + 3} numbers, not {vector.shape}"
            )
        r, edge_sd, effects, severity = np.split(vector, [edges, 2 * edges, 4 * edges])
        if not (np.abs(r) <= 1).all() or not (edge_sd >= 0).all() or not severity[0] > 0:
            raise DataError("a correlation lies within -1 and 1, and an sd is not negative")
        return cls(r, edge_sd, effects.reshape(COVARIATES, edges), float(severity[0]), severity[1:])


def network_bootstrap(edges: int, draws: int) -> ReleaseKind:
    """Describe sums of the children's influences on the correlations, weighed by secret numbers.

    Row, for each draw: g w, for a number g within 6 and influences w, |w| <= 40 sqrt(E).
    """
    block = LARGEST * _INFLUENCE_RMS * math.sqrt(edges)
    return ReleaseKind("network-bootstrap", "training", draws * edges, math.sqrt(draws) * block)


def network_bootstrap_rows(scores: Floats, designs: Floats, numbers: Floats, partial: Partial) -> Floats:
    """Return the rows of `network_bootstrap` of all children of one site.

    Parameters
    ----------
    scores : (n, E) float64
    designs : (n, 3) float64
    numbers : (n, draws) float64
        By `multipliers.secret_normals`.
    partial : Partial

    """
    w = influences(scores, designs, partial)
    return np.concatenate([own[:, None] * w for own in numbers.T], axis=1)


def influences(scores: Floats, designs: Floats, partial: Partial) -> Floats:
    """Return what each child adds to N times each partial correlation, to first order: (n, E).

    a b - r (a^2 + b^2) / 2 for severity a and edge b beyond site and covariates, in their sd. They sum to
    zero over all sites.
    """
    u, v = _centred(designs, scores)
    a = (u[:, 0] - u[:, 1:] @ partial.severity_effects) / partial.severity_sd
    b = (v - u[:, 1:] @ partial.edge_effects) / np.where(partial.edge_sd > 0, partial.edge_sd, np.inf)
    w = a[:, None] * b - partial.r * (a[:, None] ** 2 + b**2) / 2
    return clip_rows(w, _INFLUENCE_RMS * math.sqrt(scores.shape[1]))


def bootstrap_r(total: Floats, partial: Partial, *, children: int) -> Floats:
    """Return (draws, E) correlations as other children would have given them.

    Parameters
    ----------
    total : (draws * E,) float64
        Sum of `network_bootstrap_rows`.
    partial : Partial
    children : int
        Of all sites.

    """
    moved = total.reshape(-1, len(partial.r)) / children
    # On Fisher's scale: a correlation stays within -1 and 1.
    inside = np.clip(partial.r, -1 + 1e-12, 1 - 1e-12)
    return np.tanh(np.arctanh(inside) + moved / (1 - inside**2))


def _centred(designs: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return design and scores less their means over the site's children, within their bounds."""
    return clip_rows(_less_mean(designs), _DESIGN_NORM), _held(_less_mean(_held(scores)))


def _less_mean(rows: Floats) -> Floats:
    return rows - rows.mean(axis=0) if len(rows) else rows


def _held(scores: Floats) -> Floats:
    """Hold scores, and a child's scores together, within the bound; a child without scores is all zero."""
    finite = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, 0.0)
    held = np.clip(finite, -_SCORE_CLIP, _SCORE_CLIP)
    return clip_rows(held, _SCORE_RMS * math.sqrt(scores.shape[1]))
