"""Whether controls match the children in age and sex, and how many were left out and why, from sums."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind

Standing = Literal["child", "control", "no-connectome", "poor-quality", "no-score"]
GROUPS: tuple[Standing, Standing] = ("child", "control")
REASONS: tuple[Standing, ...] = ("no-connectome", "poor-quality", "no-score")
"""Why a participant with epilepsy or a control takes no part."""

_OLDEST_YEARS = 25.0
_NUMBERS = 4

COHORT = ReleaseKind("cohort", "training", _NUMBERS * len(GROUPS) + len(REASONS), 2.0)
"""Row: (1, a, a^2, s) in the block of the own group, with age a over 25 years and sex s in [0, 1]; or 1 at
the reason for being left out. The norm is at most 2."""


def cohort_rows(standing: Sequence[Standing], age_years: Floats, sex: Floats) -> Floats:
    """Return the (n, 11) rows of `COHORT`.

    Parameters
    ----------
    standing : sequence of n str
        The group of who takes part, and the reason of who does not.
    age_years : (n,) float64
        Above 25 counts as 25.
    sex : (n,) float64
        0 female, 1 male.

    """
    a, s = np.clip(age_years / _OLDEST_YEARS, 0.0, 1.0), np.clip(sex, 0.0, 1.0)
    numbers = np.column_stack([np.ones(len(a)), a, a**2, s])
    rows = np.zeros((len(a), COHORT.dimension))
    for i, where in enumerate(standing):
        if where in GROUPS:
            first = _NUMBERS * GROUPS.index(where)
            rows[i, first : first + _NUMBERS] = numbers[i]
        else:
            rows[i, _NUMBERS * len(GROUPS) + REASONS.index(where)] = 1.0
    return rows


@dataclass(frozen=True)
class Group:
    """Age and sex of a group.

    Attributes
    ----------
    people : float
        Not a whole number when noise was added.
    mean_age_years, sd_age_years, share_male : float or None
        None where noise left nothing that can be true.

    """

    people: float
    mean_age_years: float | None
    sd_age_years: float | None
    share_male: float | None


@dataclass(frozen=True)
class Matching:
    """Children and controls side by side.

    Attributes
    ----------
    children, controls : Group
    age_difference, sex_difference : float or None
        Standardised mean differences, children less controls (Austin 2009, Statistics in Medicine 28:3083):
        below 0.1 in size is called balanced. None where they cannot be computed.
    left_out : dict of str to float or None
        How many by reason; None where fewer than the minimum.

    """

    children: Group
    controls: Group
    age_difference: float | None
    sex_difference: float | None
    left_out: Mapping[str, float | None]


def matching(total: Floats, *, minimum: int) -> Matching:
    """Read a sum of `cohort_rows`.

    Parameters
    ----------
    total : (11,) float64
    minimum : int
        A reason with fewer people is not counted out.

    Raises
    ------
    DataError
        The sum has another length, or is not finite.

    """
    if total.shape != (COHORT.dimension,) or not np.isfinite(total).all():
        raise DataError(f"a cohort sum holds {COHORT.dimension} finite numbers, not {total.shape}")
    children, controls = (_group(total[i * _NUMBERS : (i + 1) * _NUMBERS]) for i in range(len(GROUPS)))
    reasons = total[_NUMBERS * len(GROUPS) :]
    sexes = [
        None if g.share_male is None else g.share_male * (1 - g.share_male) for g in (children, controls)
    ]
    ages = [None if g.sd_age_years is None else g.sd_age_years**2 for g in (children, controls)]
    return Matching(
        children=children,
        controls=controls,
        age_difference=_standardised(children.mean_age_years, controls.mean_age_years, ages),
        sex_difference=_standardised(children.share_male, controls.share_male, sexes),
        left_out={
            reason: float(n) if n > minimum - 0.5 else None
            for reason, n in zip(REASONS, reasons, strict=True)
        },
    )


def _group(numbers: Floats) -> Group:
    n, sum_a, sum_aa, male = (float(x) for x in numbers)
    if n < 2:
        return Group(n, None, None, None)
    mean, share = sum_a / n, male / n
    variance = (sum_aa - n * mean**2) / (n - 1)
    possible = 0 <= mean <= 1
    return Group(
        people=n,
        mean_age_years=mean * _OLDEST_YEARS if possible else None,
        sd_age_years=math.sqrt(variance) * _OLDEST_YEARS if possible and variance >= 0 else None,
        share_male=share if 0 <= share <= 1 else None,
    )


def noise_sd_of_age_variance(people: float, mean_years: float, sd_years: float, *, noise_sd: float) -> float:
    """Return the standard deviation that noise gives to a group's variance of age, to first order.

    Parameters
    ----------
    people, mean_years, sd_years : float
        As released.
    noise_sd : float
        Of each number of the `COHORT` sum.

    Returns
    -------
    float
        In square years.

    """
    mean, variance = mean_years / _OLDEST_YEARS, (sd_years / _OLDEST_YEARS) ** 2
    # The variance is q / n - (s / n)^2: its derivatives by q, s and n, times n.
    slope = math.hypot(1.0, 2 * mean, mean**2 - variance)
    return noise_sd / people * slope * _OLDEST_YEARS**2


def _standardised(
    first: float | None, second: float | None, variances: Sequence[float | None]
) -> float | None:
    known = [v for v in variances if v is not None]
    if first is None or second is None or len(known) < 2:
        return None
    spread = math.sqrt(sum(known) / 2)
    return (first - second) / spread if spread > 0 else None
