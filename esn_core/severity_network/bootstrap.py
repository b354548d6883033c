"""How stable the exact network is: each child's influence on the correlations, weighed by secret numbers.

The multiplier bootstrap (van der Vaart & Wellner 1996, section 2.9): correlations move as they would with
other children of the same kind. What the secret numbers are for: `esn_core.severity_network.exact_releases`.
"""

import math
from dataclasses import dataclass

import numpy as np

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.privacy.secret_normals import LARGEST
from esn_core.severity_network.exact import Moments
from esn_core.severity_network.exact_releases import COVARIATES, centred

# Largest root mean square of a child's influences on the correlations.
_INFLUENCE_RMS = 40.0


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
    u, v = centred(designs, scores)
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
