"""How stable the exact network is: each child's influence on the correlations, weighed by secret numbers.

The multiplier bootstrap (van der Vaart & Wellner 1996, section 2.9): correlations move as they would with
other children of the same kind. What the secret numbers are for: `esn_core.severity_network.exact_releases`.
"""

import math
from dataclasses import dataclass

import numpy as np

from esn_core.arrays import Floats, product_by_rows
from esn_core.errors import DataError, StudyError
from esn_core.gase import SEVERITY_CLIP
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.privacy.secret_normals import LARGEST
from esn_core.severity_network.exact import Moments
from esn_core.severity_network.exact_releases import COVARIATES, SCORE_CLIP, centred

# Largest root mean square of a child's influences on the correlations.
_INFLUENCE_RMS = 40.0

LARGEST_R = 0.999
"""Largest partial correlation that is asked with; one of 1 leaves an edge nothing of its own to vary."""

SEVERITY_SD = (0.1, SEVERITY_CLIP)
"""Of severity beyond site and covariates.

Standardised severity lies within 2, so that its sd is 2 at most; one child in 44 that is a step of GASE from
the others gives 0.1."""

EDGE_SD = (0.01, SCORE_CLIP)
"""Of an edge beyond them: scores lie within 16, in units of the template's sd between healthy children."""

# An effect is no more than the sd of what it is on over that of the covariate, beyond site and the other one:
# at least an eighth, as 15 months of age, or one child in 60 of the other sex.
_SMALLEST_COVARIATE_SD = 1 / 8
LARGEST_SEVERITY_EFFECT = SEVERITY_SD[1] / _SMALLEST_COVARIATE_SD
LARGEST_EDGE_EFFECT = EDGE_SD[1] / _SMALLEST_COVARIATE_SD


@dataclass(frozen=True)
class Partial:
    """What takes age and sex out of the edges and of severity; public once the network is.

    Attributes
    ----------
    r : (E,) float64
        Partial correlation of each edge with severity, held to `LARGEST_R`; 0 for an edge that does not vary.
    edge_sd : (E,) float64
        Of each edge beyond the covariates, within `EDGE_SD`; 0 where it is smaller: such an edge is not
        followed.
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
        """Compute it from the moments of all sites and the (E,) partial correlations.

        Raises
        ------
        StudyError
            A number lies beyond what sites accept: severity or a covariate hardly varies.

        """
        inner = np.linalg.pinv(found.covariates[1:, 1:])
        edge_effects = inner @ found.edges[1:]
        severity_effects = inner @ found.covariates[1:, 0]
        left = found.squares - np.sum(found.edges[1:] * edge_effects, axis=0)
        severity_left = float(found.covariates[0, 0] - found.covariates[0, 1:] @ severity_effects)
        edge_sd = np.minimum(np.sqrt(np.maximum(left, 0.0) / found.children), EDGE_SD[1])
        known = np.isfinite(r) & (edge_sd >= EDGE_SD[0])
        partial = cls(
            r=np.where(known, np.clip(r, -LARGEST_R, LARGEST_R), 0.0),
            edge_sd=np.where(known, edge_sd, 0.0),
            edge_effects=edge_effects,
            severity_sd=min(math.sqrt(max(severity_left, 0.0) / found.children), SEVERITY_SD[1]),
            severity_effects=severity_effects,
        )
        if (beyond := partial.beyond()) is not None:
            raise StudyError(f"the exact network cannot be drawn again: {beyond}")
        return partial

    def beyond(self) -> str | None:
        """Say which number is none that a site accepts, or None."""
        if not (np.abs(self.r) <= LARGEST_R).all():
            return f"a partial correlation lies within -{LARGEST_R} and {LARGEST_R}"
        if not _within(self.severity_sd, SEVERITY_SD):
            return f"the sd of severity is {SEVERITY_SD[0]:g} to {SEVERITY_SD[1]:g}, not {self.severity_sd:g}"
        followed = self.edge_sd != 0
        if not _within(self.edge_sd[followed], EDGE_SD) or self.r[~followed].any():
            return f"the sd of an edge is {EDGE_SD[0]:g} to {EDGE_SD[1]:g}, or 0 where its correlation is 0"
        if not (np.abs(self.severity_effects) <= LARGEST_SEVERITY_EFFECT).all():
            return f"an effect on severity is at most {LARGEST_SEVERITY_EFFECT:g} in size"
        if not (np.abs(self.edge_effects) <= LARGEST_EDGE_EFFECT).all():
            return f"an effect on an edge is at most {LARGEST_EDGE_EFFECT:g} in size"
        return None

    @property
    def vector(self) -> Floats:
        """All of it as (4 E + 3,) numbers, as a question is asked with it."""
        severity = np.array([self.severity_sd, *self.severity_effects])
        return np.concatenate([self.r, self.edge_sd, self.edge_effects.ravel(), severity])

    @classmethod
    def from_vector(cls, vector: Floats, *, edges: int) -> "Partial":
        """Take `vector` apart again.

        Raises
        ------
        DataError
            It has another length, or holds a number that the moments of children cannot give. That follows
            from the numbers alone: a refusal says nothing about a child.

        """
        if vector.shape != (4 * edges + 1 + COVARIATES,):
            raise DataError(
                f"the partial correlations of {edges} edges are {4 * edges + 3} numbers, not {vector.shape}"
            )
        r, edge_sd, effects, severity = np.split(vector, [edges, 2 * edges, 4 * edges])
        given = cls(r, edge_sd, effects.reshape(COVARIATES, edges), float(severity[0]), severity[1:])
        if (beyond := given.beyond()) is not None:
            raise DataError(beyond)
        return given


def _within(numbers: Floats | float, bounds: tuple[float, float]) -> bool:
    return bool(np.all((np.asarray(numbers) >= bounds[0]) & (np.asarray(numbers) <= bounds[1])))


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

    Whatever the children are, no number overflows and no row becomes zero by arithmetic. `centred` gives
    finite u and v with |u| <= 6 and |v_e| <= 16. Within the bounds of `Partial`, therefore,
    |a| <= (6 + 6 * 16 sqrt(2)) / 0.1 < 1.5e3 and |b| <= (16 + 6 * 128 sqrt(2)) / 0.01 < 1.2e5, so that
    |w| <= (|a| + |b|)^2 / 2 < 1e10, far from the largest float64. The clip then only shortens a row. It is
    zero where a b = r (a^2 + b^2) / 2 for every edge that is followed: as for a child whose severity is
    exactly what the effects say, at r = 0.
    """
    u, v = centred(designs, scores)
    a = (u[:, 0] - product_by_rows(u[:, 1:], partial.severity_effects)) / partial.severity_sd
    b = (v - product_by_rows(u[:, 1:], partial.edge_effects)) / np.where(
        partial.edge_sd > 0, partial.edge_sd, np.inf
    )
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
    return np.tanh(np.arctanh(partial.r) + moved / (1 - partial.r**2))
