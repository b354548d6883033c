"""ComBat: scanner effects on edge scores, removed with sums that hold no site's mean.

Johnson, Li & Rabinovic 2007 (Biostatistics 8:118), as neuroCombat computes it (Fortin et al. 2018,
NeuroImage 167:104). Its pooled covariate effects are those of the scores centred within sites (Frisch &
Waugh), and its grand mean, the mean of the sites' intercepts by their sizes, is that of all scores less the
effects at the mean of all covariates. Both are sums over children. A site's own shift and
scale, and the priors over edges that shrink them, are computed at the site and never leave it.

Not differentially private: a child centred at the mean of its site's children depends on the others, and
so do its harmonised scores. Exact sums only, with the sites' consent.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats, product_by_rows
from esn_core.errors import DataError, StudyError
from esn_core.privacy.release import ReleaseKind, clip_rows


def age_and_sex(age_years: NDArray[np.float64], sex: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 2): age in decades from 10 years, and sex as -1/2 (girls) and 1/2: covariates of edges."""
    return np.column_stack([(age_years - 10) / 10, sex - 0.5])


COVARIATES = 3
"""Age, sex and severity: the covariates of a study's ComBat, whose effects on the edges are kept."""
COVARIATE_NORM = 6.0
"""Longest row of `covariates_of`, raw or centred, that enters the sums."""

SCORE_CLIP = 16.0
"""Largest edge score, raw or centred, that enters the sums."""
_MEAN_SQUARE = 36.0
"""Largest mean square of a child's edge scores that enters the sums."""

# Where neuroCombat stops its iteration; another rule would differ in the fifth place.
_STOP_AT = 1e-4
_MOST_ITERATIONS = 1000
# Of an edge's variance, in units of the template's: below, the edge has no streamlines anywhere.
_SMALLEST_VARIANCE = 1e-9
# Scores within 16 have an sd of 16 at most. A covariate that differs by an eighth beyond site and the others
# (15 months of age; one child in 60 of the other sex) has then an effect of no more than this.
_LARGEST_EFFECT = 128.0
# Of a mean score within 16, less the effects of covariates of norm 6.
_LARGEST_MEAN = SCORE_CLIP + 3**0.5 * COVARIATE_NORM * _LARGEST_EFFECT


def covariates_of(age_years: Floats, sex: Floats, severity: Floats) -> Floats:
    """Return (n, 3): age, sex and standardised severity, centred and scaled with public numbers.

    A site's shift and scale are estimated with the training children's severity: without it, ComBat takes
    away what sites differ in by their patients. They are removed with 0 in its place from all children, so
    that held-out and training children are treated alike.
    """
    return np.column_stack([age_and_sex(age_years, sex), severity])


def combat_dimension(edges: int, covariates: int) -> int:
    """Return the length of a row of `combat`."""
    return 1 + covariates + edges + covariates * (covariates + 1) // 2 + covariates * edges + edges


def combat(edges: int, covariates: int, *, covariate_norm: float, name: str = "combat") -> ReleaseKind:
    """Describe the sums from which ComBat is estimated.

    Row: (1, x, z, u_i u_j for i <= j, u v', v^2 / 16) for a child with covariates x and edge scores z, and
    both centred at its site, u and v: |x|, |u| <= c = covariate_norm, and z and v each at most 16 and
    |z|, |v| <= 6 sqrt(E). The parts are at most 1, c, 6 sqrt(E), c^2, 6 c sqrt(E) and 6 sqrt(E), the last as
    v^2 / 16 <= |v|. The bound holds for each row and sizes the grid; as u and v depend on the site's other
    children, it is no sensitivity, and the release is for exact sums only.
    """
    longest = _MEAN_SQUARE * edges
    bound = math.sqrt(1 + covariate_norm**2 + covariate_norm**4 + (2 + covariate_norm**2) * longest)
    return ReleaseKind(name, "training", combat_dimension(edges, covariates), bound)


def combat_rows(scores: Floats, covariates: Floats, *, covariate_norm: float) -> Floats:
    """Return the rows of `combat` of all children of one site.

    Parameters
    ----------
    scores : (n, E) float64
        Against the public template, without any offset of the site's.
    covariates : (n, p) float64
        Whose effects are kept, such as age and sex, centred and scaled with public numbers; no intercept.
    covariate_norm : float

    """
    i, j = np.triu_indices(covariates.shape[1])
    x, z = clip_rows(covariates, covariate_norm), _held(scores)
    u, v = clip_rows(_centred(x), covariate_norm), _held(_centred(z))
    products = (u[:, :, None] * v[:, None, :]).reshape(len(z), -1)
    return np.column_stack([np.ones(len(z)), x, z, u[:, i] * u[:, j], products, v**2 / SCORE_CLIP])


@dataclass(frozen=True)
class ComBatModel:
    """What all sites share; public once released.

    Attributes
    ----------
    coefficients : (p, E) float64
        Effects of the covariates on each edge, within sites.
    grand_mean : (E,) float64
        Mean of the sites' intercepts, weighed by their children.
    variance : (E,) float64
        Pooled over the sites, within them; 0 where an edge does not vary, and is left as it is.

    """

    coefficients: Floats
    grand_mean: Floats
    variance: Floats

    def __post_init__(self) -> None:
        edges = self.grand_mean.shape
        if self.coefficients.shape[1:] != edges or self.variance.shape != edges or len(edges) != 1:
            raise DataError(
                f"a ComBat model has one mean, one variance and one effect of each covariate for each edge, "
                f"not {self.grand_mean.shape}, {self.variance.shape} and {self.coefficients.shape}"
            )

    @property
    def vector(self) -> Floats:
        """The model as ((p + 2) E,) numbers, as a question is asked with it."""
        return np.concatenate([self.coefficients.ravel(), self.grand_mean, self.variance])

    @classmethod
    def from_vector(cls, vector: Floats, *, edges: int) -> "ComBatModel":
        """Take `vector` apart again.

        Raises
        ------
        DataError
            Its length fits no number of covariates, a number is not finite, a variance is negative, or a
            number is none that the sums of children can give.

        """
        if vector.ndim != 1 or len(vector) % edges or len(vector) < 2 * edges:
            raise DataError(
                f"a ComBat model of {edges} edges holds (p + 2) {edges} numbers, not {vector.shape}"
            )
        rows = vector.reshape(-1, edges)
        if not np.isfinite(rows).all() or (rows[-1] < 0).any():
            raise DataError("a ComBat model holds finite numbers, and variances that are not negative")
        model = cls(rows[:-2], rows[-2], rows[-1])
        if (beyond := model.beyond()) is not None:
            raise DataError(beyond)
        return model

    def beyond(self) -> str | None:
        """Say which number no sums of children give; a site would be dividing by nothing, or overflow."""
        if (np.abs(self.coefficients) > _LARGEST_EFFECT).any():
            return f"an effect of ComBat lies within {_LARGEST_EFFECT:g} and its negative"
        if (np.abs(self.grand_mean) > _LARGEST_MEAN).any():
            return f"a mean of ComBat lies within {_LARGEST_MEAN:g} and its negative"
        varying = self.variance[self.variance > 0]
        if ((varying < _SMALLEST_VARIANCE) | (varying > SCORE_CLIP**2)).any():
            return f"a variance of ComBat is 0, or {_SMALLEST_VARIANCE:g} to {SCORE_CLIP**2:g}"
        return None


def combat_model(total: Floats, *, edges: int, covariates: int) -> ComBatModel:
    """Compute the shared part of ComBat from a sum of `combat_rows` over all sites.

    Parameters
    ----------
    total : (`combat_dimension`,) float64
    edges, covariates : int

    Raises
    ------
    DataError
        The sum has another length, or is not finite.
    StudyError
        There are too few children, or the covariates cannot be told apart within the sites.

    """
    dimension = combat_dimension(edges, covariates)
    if total.shape != (dimension,) or not np.isfinite(total).all():
        raise DataError(f"a ComBat sum holds {dimension} finite numbers, not {total.shape}")
    pairs = covariates * (covariates + 1) // 2
    ends = np.cumsum([1, covariates, edges, pairs, covariates * edges])
    count, sum_x, sum_z, upper, products, squares = np.split(total, ends)
    n = float(count[0])
    if n < covariates + 2:
        raise StudyError(f"ComBat with {covariates} covariates needs {covariates + 2} children, not {n:.0f}")
    moments = np.zeros((covariates, covariates))
    moments[np.triu_indices(covariates)] = upper
    moments += np.triu(moments, 1).T
    products = products.reshape(covariates, edges)
    if covariates and np.linalg.cond(moments) > 1e12:
        raise StudyError("ComBat: some covariates are the same, or do not vary within any site")
    coefficients: Floats = np.linalg.solve(moments, products).astype(np.float64)
    variance = (squares * SCORE_CLIP - np.sum(coefficients * products, axis=0)) / n
    varying = variance > _SMALLEST_VARIANCE
    model = ComBatModel(
        coefficients=coefficients,
        grand_mean=(sum_z - sum_x @ coefficients) / n,
        variance=np.where(varying, np.minimum(variance, SCORE_CLIP**2), 0.0),
    )
    if (beyond := model.beyond()) is not None:
        raise StudyError(f"{beyond}: the covariates hardly vary within the sites")
    return model


@dataclass(frozen=True)
class ComBatSite:
    """One site's shift and scale; they stay at the site.

    Attributes
    ----------
    model : ComBatModel
    shift, scale : (V,) float64
        gamma* and delta* of each edge that varies (Johnson et al. 2007, section 3.2): posterior mean of the
        site's shift, and of its variance, both in the pooled standard deviation.

    """

    model: ComBatModel
    shift: Floats
    scale: Floats

    @classmethod
    def estimate(cls, scores: Floats, covariates: Floats, model: ComBatModel) -> "ComBatSite":
        """Estimate the effects of a site's scanner from its children.

        Parameters
        ----------
        scores : (n, E) float64
            Of the children that were in the sums.
        covariates : (n, p) float64
        model : ComBatModel

        Raises
        ------
        DataError
            There are fewer than two children, or fewer than two edges vary.

        """
        standardised = _standardised(scores, covariates, model)
        n, varying = standardised.shape
        if n < 2 or varying < 2:
            raise DataError(f"ComBat needs two children and two edges that vary, not {n} and {varying}")
        mean, variance = standardised.mean(axis=0), standardised.var(axis=0, ddof=1)
        variance = np.where(variance == 0, 1.0, variance)
        return cls(model, *_posterior(standardised, mean, variance))

    def apply(self, scores: Floats, covariates: Floats) -> Floats:
        """Remove the scanner's effects from children of the site, whether or not they were in the sums.

        Parameters
        ----------
        scores : (n, E) float64
        covariates : (n, p) float64

        Returns
        -------
        (n, E) float64

        """
        varying = self.model.variance > 0
        sd = np.sqrt(self.model.variance[varying])
        clean = (_standardised(scores, covariates, self.model) - self.shift) / np.sqrt(self.scale)
        harmonised = scores.copy()
        harmonised[:, varying] = clean * sd + _expected(covariates, self.model)[:, varying]
        return harmonised


def _posterior(standardised: Floats, mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Shrink a site's shift and scale towards their distribution over edges (Johnson et al. 2007, 3.2)."""
    n = len(standardised)
    centre, spread = mean.mean(), mean.var(ddof=1)
    m, s_2 = variance.mean(), variance.var(ddof=1)
    if s_2 == 0:
        raise DataError("ComBat: all edges vary by the same amount; they are copies of one")
    shape, rate = (2 * s_2 + m**2) / s_2, (m * s_2 + m**3) / s_2
    shift, scale = mean, variance
    for _ in range(_MOST_ITERATIONS):
        new_shift = (spread * n * mean + scale * centre) / (spread * n + scale)
        squares = ((standardised - new_shift) ** 2).sum(axis=0)
        new_scale = (0.5 * squares + rate) / (n / 2 + shape - 1)
        # neuroCombat divides by the shift itself, so that edges with a negative shift never hold the loop up.
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = max(
                float(np.nanmax(np.abs(new_shift - shift) / shift)),
                float(np.max(np.abs(new_scale - scale) / scale)),
            )
        shift, scale = new_shift, new_scale
        if moved <= _STOP_AT:
            return shift, scale
    raise DataError(f"ComBat's shrinkage has not settled after {_MOST_ITERATIONS} iterations")


def _standardised(scores: Floats, covariates: Floats, model: ComBatModel) -> Floats:
    varying = model.variance > 0
    apart = (scores - _expected(covariates, model))[:, varying]
    standardised: Floats = apart / np.sqrt(model.variance[varying])
    return standardised


def _expected(covariates: Floats, model: ComBatModel) -> Floats:
    expected: Floats = model.grand_mean + product_by_rows(covariates, model.coefficients)
    return expected


def _centred(rows: Floats) -> Floats:
    return rows - rows.mean(axis=0) if len(rows) else rows


def _held(scores: Floats) -> Floats:
    """Hold scores, and a child's scores together, within the bound; a child without scores is all zero."""
    finite = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, 0.0)
    return clip_rows(np.clip(finite, -SCORE_CLIP, SCORE_CLIP), math.sqrt(_MEAN_SQUARE * scores.shape[1]))
