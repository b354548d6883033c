"""The course of a simulated child's epilepsy: how long it has lasted, and how many medicines are taken.

Both go with severity, and with each other, as covariates of a model of
impairment do: enough to be worth a place in it, not so much that the model
could not tell them apart.
"""

from dataclasses import dataclass

import numpy as np

from esn_core.arrays import Floats

SHORTEST_YEARS = 0.5
"""Two medicines have to fail before an epilepsy is called drug-resistant; that takes half a year."""
FEWEST_MEDICINES, MOST_MEDICINES = 1, 6

# The share of a life spent with epilepsy: its log odds rise by .35 for a standard deviation of
# severity, about 0 (half of the life), with an sd of .9 between children.
_LOG_ODDS_OF_SEVERITY, _LOG_ODDS_SD = 0.35, 0.9
# Medicines: 2.3 for a child of mean severity after five years, .4 more for a sd of severity, one more
# for sixteen years of epilepsy, and an sd of .8 between doctors.
_MEDICINES, _OF_SEVERITY, _OF_A_YEAR, _MEDICINES_SD = 2.3, 0.4, 1 / 16, 0.8


@dataclass(frozen=True)
class Illness:
    """What the records say of (n) children with drug-resistant epilepsy.

    Attributes
    ----------
    duration_years : (n,) float64
        Since the first seizure; less than the age, to one decimal place.
    medicines : (n,) float64
        Antiseizure medicines taken now, a whole number from 1 to 6.

    """

    duration_years: Floats
    medicines: Floats


def draw_illness(age_years: Floats, severity: Floats, *, rng: np.random.Generator) -> Illness:
    """Draw duration and medicines.

    Among many children of 4 to 18 years (mean 10, sd 3.6) the duration, 5 years on average, correlates with
    age by .62 and with severity by .26; the number of medicines, 2.3 on average, with severity by .44, with
    duration by .28, with age by .11.

    Parameters
    ----------
    age_years : (n,) float64
        Above 1.
    severity : (n,) float64
        In standard deviations of the patients.
    rng : Generator

    """
    log_odds = _LOG_ODDS_OF_SEVERITY * severity + _LOG_ODDS_SD * rng.normal(size=len(severity))
    duration = np.clip(age_years / (1 + np.exp(-log_odds)), SHORTEST_YEARS, age_years - SHORTEST_YEARS)
    medicines = _MEDICINES + _OF_SEVERITY * severity + _OF_A_YEAR * (duration - 5)
    medicines += _MEDICINES_SD * rng.normal(size=len(severity))
    return Illness(
        duration_years=np.round(duration, 1),
        medicines=np.clip(np.rint(medicines), FEWEST_MEDICINES, MOST_MEDICINES),
    )
