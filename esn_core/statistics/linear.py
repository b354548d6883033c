"""Linear models of a score: ordinary least squares from sums over children."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from esn_core.arrays import Floats
from esn_core.errors import DataError, StudyError
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.statistics.intervals import noise_floor, noise_in_ratio

# Of a feature within -1 and 1: a two-thousandth of its range. What varies less, such as a prediction that
# is all but the same for every child, would get a coefficient beyond all sense.
_SMALLEST_SPREAD = 1e-3
# Of a correlation matrix of the features: below, one is a line in the others up to rounding.
_SMALLEST_EIGENVALUE = 1e-9

# Of a mean square on the scale of the score: what the grid of sums, and their subtraction, leave of zero.
_ROUNDING = 1e-9


def linear_dimension(features: int) -> int:
    """Return the length of a row of `linear` for a model with so many features."""
    return 3 + features * (features + 1) // 2 + features


def linear(features: int, *, feature_norm: float, largest_target: float, name: str = "linear") -> ReleaseKind:
    """Describe the sums of a linear model with `features` features, intercept included.

    Row: (1, y, y^2, x_i x_j for i <= j, x y) for a child with features x, |x| <= c = feature_norm, and a
    standardised score y, |y| <= t = largest_target: at most 1, t, t^2, c^2 and c t, so its norm is at most
    sqrt(1 + t^2 + t^4 + c^4 + c^2 t^2). A child whose features or score are not known adds zeros.
    """
    c, t = feature_norm, largest_target
    bound = math.sqrt(1 + t**2 + t**4 + c**4 + c**2 * t**2)
    return ReleaseKind(name, "held-out", linear_dimension(features), bound)


def linear_rows(features: Floats, target: Floats, *, feature_norm: float, largest_target: float) -> Floats:
    """Return the rows of `linear`.

    Parameters
    ----------
    features : (n, p) float64
        The first is the intercept, 1. Rows longer than `feature_norm` are scaled down to it.
    target : (n,) float64
        Score, standardised with public numbers; NaN where it is not known.
    feature_norm, largest_target : float

    """
    known = np.isfinite(features).all(axis=1) & np.isfinite(target)
    x = clip_rows(features, feature_norm)
    y = np.clip(np.nan_to_num(target), -largest_target, largest_target)
    i, j = np.triu_indices(features.shape[1])
    rows = np.column_stack([np.ones(len(y)), y, y**2, x[:, i] * x[:, j], x * y[:, None]])
    return np.where(known[:, None], rows, 0.0)


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear model.

    Attributes
    ----------
    names : tuple of p str
        The intercept first.
    coefficients, standard_errors : (p,) float64
        In units of the standardised score per unit of each feature.
    noise_sd_of_coefficients : (p,) float64
        Standard deviation that the noise gives to each, so that the interval reaches Fieller's further end;
        0 for exact sums.
    intervals : (p, 2) float64
        95 %, by Student's t for the choice of children, and the noise added in squares.
    t, p_values : (p,) float64
        Of the same two together.
    r_squared, r_squared_adjusted : float
    residual_sd : float
    log_likelihood, aic, bic : float
    children : float
        Not a whole number when noise was added.
    guard : str or None
        'moments held at 3.2' where noise left moments that no children have.
    covariance : (p, p) float64
        Of the choice of children.
    told : bool
        Whether the noise leaves coefficients that can be told; always for exact sums.
    spreads : (p,) float64
        Sums of squares of each feature, within -1 and 1, around what the others say of it; 0 where the
        noise may have made them.

    """

    names: tuple[str, ...]
    coefficients: Floats
    standard_errors: Floats
    noise_sd_of_coefficients: Floats
    intervals: Floats
    t: Floats
    p_values: Floats
    r_squared: float
    r_squared_adjusted: float
    residual_sd: float
    log_likelihood: float
    aic: float
    bic: float
    children: float
    guard: str | None
    covariance: Floats
    told: bool
    spreads: Floats


def linear_fit(total: Floats, names: tuple[str, ...], *, noise_sd: float = 0.0) -> LinearFit:
    """Fit a linear model from a sum of `linear_rows`.

    Parameters
    ----------
    total : (`linear_dimension`,) float64
    names : tuple of p str
        The intercept first.
    noise_sd : float
        Standard deviation of the noise in each number of `total`.

    Raises
    ------
    DataError
        The sum has another length, or is not finite.
    StudyError
        There are too few children, the features cannot be told apart, or the noise is larger than what
        the model leaves unexplained.

    """
    p = len(names)
    if total.shape != (linear_dimension(p),) or not np.isfinite(total).all():
        raise DataError(
            f"a linear sum of {p} features holds {linear_dimension(p)} finite numbers, not {total.shape}"
        )
    n, sum_y, sum_yy = (float(x) for x in total[:3])
    freedom = n - p
    if freedom < 1:
        raise StudyError(f"the linear model of {', '.join(names)} needs more than {p} children, not {n:.1f}")
    pairs = p * (p + 1) // 2
    moments = np.zeros((p, p))
    moments[np.triu_indices(p)] = total[3 : 3 + pairs]
    moments += np.triu(moments, 1).T
    product = total[3 + pairs :]
    inverse, held = _inverse(moments, names, noise_sd)
    beta = inverse @ product
    # Noise E in X'X and e in X'y moves the coefficients by (X'X)^-1 (e - E b), to first order; each
    # number of e - E b has the variance sd^2 (1 + |b|^2), whose b is the true one.
    noise = noise_sd * np.sqrt((inverse**2).sum(axis=1))
    residual = sum_yy - float(beta @ product)
    around_mean = sum_yy - sum_y**2 / n
    if min(residual, around_mean) <= n * _ROUNDING:
        raise StudyError(
            f"the linear model of {', '.join(names)} leaves a sum of squares of {residual:.3g} of "
            f"{around_mean:.3g}: the scores do not vary beyond the model, or less than the noise"
        )
    covariance = inverse * (residual / freedom)
    standard_errors = np.sqrt(np.diag(covariance))
    quantile = float(stdtrit(freedom, 0.975))
    by_noise = noise_in_ratio(standard_errors, noise, beta, quantile=quantile)
    told = held is None and bool(np.isfinite(by_noise).all())
    noise = by_noise if told else noise * math.hypot(1, float(np.linalg.norm(beta)))
    both = np.hypot(standard_errors, noise)
    log_likelihood = -n / 2 * (math.log(2 * math.pi * residual / n) + 1)
    r_squared = 1 - residual / around_mean
    return LinearFit(
        names=names,
        coefficients=beta,
        standard_errors=standard_errors,
        noise_sd_of_coefficients=noise,
        intervals=beta[:, None] + np.array([-quantile, quantile]) * both[:, None],
        t=beta / both,
        p_values=np.asarray(2 * stdtr(freedom, -np.abs(beta / both))),
        r_squared=r_squared,
        r_squared_adjusted=1 - (1 - r_squared) * (n - 1) / freedom,
        residual_sd=math.sqrt(residual / freedom),
        log_likelihood=log_likelihood,
        aic=-2 * log_likelihood + 2 * p,
        bic=-2 * log_likelihood + p * math.log(n),
        children=n,
        guard=None if held is None else f"moments held at {held:.3g}",
        covariance=covariance,
        told=told,
        spreads=1 / np.diag(inverse) if held is None else np.zeros(p),
    )


def fault_in_features(moments: Floats, names: tuple[str, ...]) -> str | None:
    """Say why no model can tell features apart by their exact moments; None where one can.

    Parameters
    ----------
    moments : (p, p) float64
        X'X, of features within -1 and 1, the intercept first.
    names : tuple of p str

    """
    n, sums = float(moments[0, 0]), moments[0, 1:]
    if n <= 0 or len(names) < 2:
        return None
    around = moments[1:, 1:] - np.outer(sums, sums) / n
    spread = np.sqrt(np.maximum(np.diag(around), 0.0) / n)
    still = [name for name, sd in zip(names[1:], spread, strict=True) if sd < _SMALLEST_SPREAD]
    if still:
        return f"{', '.join(still)} hardly varies; leave it out"
    if np.linalg.eigvalsh(around / np.outer(spread, spread) / n)[0] < _SMALLEST_EIGENVALUE:
        return "some features are the same, up to a line; leave one of them out"
    return None


def _inverse(moments: Floats, names: tuple[str, ...], noise_sd: float) -> tuple[Floats, float | None]:
    """Invert X'X; eigenvalues that its noise could have made are held at the noise's size."""
    values, vectors = np.linalg.eigh(moments)
    floor = noise_floor(noise_sd, len(moments))
    fault = fault_in_features(moments, names) if floor == 0 else None
    if fault is not None:
        raise StudyError(f"the linear model of {', '.join(names)}: {fault}")
    inverse: Floats = (vectors / np.maximum(values, floor)) @ vectors.T
    return inverse, floor if values[0] < floor else None
