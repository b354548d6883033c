"""Agreement in groups of held-out children, by sex and by age: from one noised sum.

`subgroup_rows` is what one child adds, `SUBGROUPS` the bound of it, `read_subgroups` what the sum says.
"""

import math
from collections.abc import Mapping

import numpy as np

from esn_core.arrays import Floats
from esn_core.errors import DataError
from esn_core.privacy.release import ReleaseKind
from esn_core.statistics.agreement import EVALUATION, FEWEST_CHILDREN, agreement, evaluation_rows
from esn_core.statistics.agreement_estimates import Estimates, estimates

SUBGROUPS_OF = ("girls", "boys", "younger than 6 years", "6 to 11 years", "12 years and older")
_SEXES, _AGES_FROM_YEARS = 2, (6.0, 12.0)

SUBGROUPS = ReleaseKind(
    "subgroup-evaluation",
    "held-out",
    len(SUBGROUPS_OF) * EVALUATION.dimension,
    math.sqrt(2) * EVALUATION.l2_bound,
)
"""Row: the child's row of `EVALUATION` in the place of its sex, and again in that of its age; elsewhere 0.

Two rows of `EVALUATION` side by side: the norm is at most sqrt(2) times that of one."""


def subgroup_rows(prediction: Floats, gase: Floats, age_years: Floats, sex: Floats) -> Floats:
    """Return the (n, 140) rows of `SUBGROUPS`.

    Parameters
    ----------
    prediction, gase : (n,) float64
        Predicted and clinical GASE, as for `evaluation_rows`.
    age_years : (n,) float64
    sex : (n,) float64
        0 female, 1 male.

    """
    each = evaluation_rows(prediction, gase)
    rows = np.zeros((len(each), len(SUBGROUPS_OF), EVALUATION.dimension))
    child = np.arange(len(each))
    rows[child, (sex > 0.5).astype(np.int64)] = each
    rows[child, _SEXES + np.digitize(age_years, _AGES_FROM_YEARS)] = each
    return rows.reshape(len(each), SUBGROUPS.dimension)


def read_subgroups(
    total: Floats, *, noise_sd: float, minimum: int, rng: np.random.Generator
) -> Mapping[str, Estimates | None]:
    """Read a sum of `subgroup_rows`.

    Parameters
    ----------
    total : (140,) float64
    noise_sd : float
        Of the noise in each number of `total`.
    minimum : int
        A group is not told of unless it has so many children, the noise considered.
    rng : numpy Generator
        For the draws from the posterior; nothing private.

    Returns
    -------
    dict of str to Estimates or None
        By the names of `SUBGROUPS_OF`; None where too few children are sure to be in a group.

    Raises
    ------
    DataError
        The sum has another length.

    """
    if total.shape != (SUBGROUPS.dimension,):
        raise DataError(f"a sum over subgroups holds {SUBGROUPS.dimension} numbers, not {total.shape}")
    found: dict[str, Estimates | None] = {}
    for name, own in zip(SUBGROUPS_OF, total.reshape(len(SUBGROUPS_OF), -1), strict=True):
        found[name] = None
        if noise_sd == 0 and agreement(own).children < minimum - 0.5:
            continue
        told = estimates(own, noise_sd=noise_sd, fewest_children=float(FEWEST_CHILDREN), rng=rng)
        if told.children.interval[0] > minimum - 0.5:
            found[name] = told
    return found
