"""Comparisons of two models of the same children: likelihood ratio, Vuong's test, AIC and BIC."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtr

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind
from esn_core.statistics.intervals import DETECTED, Z_95
from esn_core.statistics.logistic_fit import LogisticFit
from esn_core.statistics.logistic_sums import LOGIT_CLIP, largest_loss


@dataclass(frozen=True)
class LikelihoodRatio:
    """Test of a smaller model within a larger one.

    Attributes
    ----------
    statistic : float
        Twice the gain in log-likelihood; noise may leave it negative.
    freedom : int
        How many features the larger model has more.
    p_value : float
        By the chi-squared distribution.

    """

    statistic: float
    freedom: int
    p_value: float


def likelihood_ratio(smaller: LogisticFit, larger: LogisticFit) -> LikelihoodRatio:
    """Test whether the further features of a larger model explain more than chance would.

    Raises
    ------
    DataError
        The smaller model is not nested in the larger one, they were fitted to other children, the
        likelihood of one of them is no maximum, or the larger one separates the children and the smaller
        does not: there the ratio does not follow chi-squared. Any predictor separates one child of 24
        from the others in one of twelve studies, and its p would be .004.

    """
    if not set(smaller.names) < set(larger.names):
        raise DataError(
            f"the model of {', '.join(smaller.names)} is not nested in that of {', '.join(larger.names)}"
        )
    _same_children(smaller, larger)
    for fit in (smaller, larger):
        if not fit.maximum:
            raise DataError(
                f"the likelihood of the model of {', '.join(fit.names)} is no maximum ({fit.guard}): "
                "there is no likelihood-ratio test"
            )
    if larger.ratio_p is not None and not smaller.separated:
        raise DataError(
            f"the model of {', '.join(larger.names)} has no maximum ({larger.guard}): there is no "
            "likelihood-ratio test"
        )
    freedom = len(larger.names) - len(smaller.names)
    statistic = 2 * (larger.log_likelihood - smaller.log_likelihood)
    return LikelihoodRatio(statistic, freedom, float(chdtrc(freedom, max(statistic, 0.0))))


# --- Vuong's test of two models, neither of which holds the other -----------------------------------


def vuong(name: str = "vuong") -> ReleaseKind:
    """Describe the sums of Vuong's test.

    Row: (1, t, t^2), t = (l_1 - l_2) / l_max for a child's log-likelihoods under both models: each lies
    between -l_max and 0, so |t| <= 1 and the norm is at most sqrt(3). A child whom either model does not
    know adds zeros.
    """
    return ReleaseKind(name, "held-out", 3, math.sqrt(3))


def vuong_rows(first: Floats, second: Floats, *, logit_clip: float = LOGIT_CLIP) -> Floats:
    """Return the (n, 3) rows of `vuong`.

    Parameters
    ----------
    first, second : (n,) float64
        Each child's log-likelihood under the two models (`logistic_sums.log_likelihoods`).
    logit_clip : float
        As these were computed with.

    """
    apart = first - second
    known = np.isfinite(apart)
    t = np.clip(np.where(known, apart, 0.0) / largest_loss(logit_clip), -1.0, 1.0)
    return np.column_stack([known.astype(np.float64), t, t**2])


@dataclass(frozen=True)
class Vuong:
    """Vuong's test (Vuong 1989, Econometrica 57:307): positive where the first model is closer to the truth.

    Attributes
    ----------
    z, p_value : float
        Two-sided, without correction for the numbers of features; for the choice of children and the noise
        together.
    z_aic, p_value_aic, z_bic, p_value_bic : float
        With the correction of AIC and of BIC (Vuong 1989, section 5).
    children : float
        Not a whole number when noise was added.
    noise_sd_of_z : float
        Standard deviation that the noise gives to z, which as a whole has 1 where the models are equally
        good.
    detectable : float
        Difference of two log-likelihoods that a test at 5 % finds in four of five studies of such children
        and such noise.

    """

    z: float
    p_value: float
    z_aic: float
    p_value_aic: float
    z_bic: float
    p_value_bic: float
    children: float
    noise_sd_of_z: float
    detectable: float


def vuong_test(
    total: Floats,
    *,
    first_features: int,
    second_features: int,
    logit_clip: float = LOGIT_CLIP,
    noise_sd: float = 0.0,
    lost_by_noise: float = 0.0,
) -> Vuong | None:
    """Compare two models from a sum of `vuong_rows`.

    Under noise the difference S of the log-likelihoods is divided by what choice of children and noise
    give it together, sqrt(Q + 1.96 sd + sd^2 + d^2): Q, the sum of squared differences, is taken at the upper
    end of its interval, as it is noised itself, and d is what the noise in the coefficients took from the
    likelihoods. So z is no larger than chance makes it, and smaller where that cannot be known.

    Parameters
    ----------
    total : (3,) float64
    first_features, second_features : int
        Of the two models, intercepts included.
    logit_clip : float
        As the rows were computed with.
    noise_sd : float
        Standard deviation of the noise in each number of `total`.
    lost_by_noise : float
        By how much noise in the coefficients of both models moves the difference of their log-likelihoods
        (`LogisticFit.loss_by_noise` of both, in squares).

    Returns
    -------
    Vuong or None
        None where the two models say the same of every child, or noise left no children.

    Raises
    ------
    DataError
        The sum has another length, or is not finite.

    """
    if total.shape != (3,) or not np.isfinite(total).all():
        raise DataError(f"a sum of Vuong's test holds 3 finite numbers, not {total.shape}")
    n, sum_t, sum_tt = (float(x) for x in total)
    if n < 2:
        return None
    largest = largest_loss(logit_clip)
    noise = math.hypot(noise_sd, lost_by_noise / largest)
    if noise_sd:
        sampling = max(sum_tt, 0.0) + Z_95 * noise_sd
    else:
        sampling = sum_tt - sum_t**2 / n
        # What rounding leaves of zero where both models are the same.
        if sampling <= n * 1e-14:
            return None
    scale = math.sqrt(sampling + noise**2)
    more = (first_features - second_features) / largest
    plain, aic, bic = ((sum_t - correction) / scale for correction in (0.0, more, more * math.log(n) / 2))
    p, p_aic, p_bic = (float(2 * ndtr(-abs(z))) for z in (plain, aic, bic))
    return Vuong(plain, p, aic, p_aic, bic, p_bic, n, noise / scale, detectable=DETECTED * scale * largest)


def _same_children(first: LogisticFit, second: LogisticFit) -> None:
    if abs(first.children - second.children) > 1e-6 * first.children:
        raise DataError(
            f"the models of {', '.join(first.names)} and {', '.join(second.names)} were fitted to "
            f"{first.children:.1f} and {second.children:.1f} children; they must be the same"
        )
