"""Simulated cohorts: children whose connectomes, scores and hidden severity network are known."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from esn_core.arrays import Floats
from esn_core.errors import ConfigError
from esn_core.simulation.illness import draw_illness
from esn_core.simulation.scanner import Scanner
from esn_core.simulation.world import CONTROL_SEVERITY_Z, World

Sex = Literal["F", "M"]
Group = Literal["dre", "control"]

OUTCOMES = ("global_score", "verbal_score", "nonverbal_score")
"""Neurocognitive standard scores: mean 100 and sd 15 in the population."""
SEVERITY_MEAN, SEVERITY_SD = 4.0, 1.35
"""Of the latent severity among children with drug-resistant epilepsy, on the scale of GASE."""


@dataclass(frozen=True)
class Subject:
    """One simulated child.

    Attributes
    ----------
    participant : str
        BIDS name, ``sub-001`` onwards within a site.
    age_years : float
    sex : 'F' or 'M'
    group : 'dre' or 'control'
    gase : int or None
        1 to 7; None for a control.
    duration_years : float or None
        Since the first seizure; None for a control.
    medicines : int or None
        Antiseizure medicines taken now; None for a control.
    outcomes : dict of str to float
        A standard score for each of `OUTCOMES`.
    severity : float
        The latent severity in standard deviations of the patients; hidden from every analysis.
    log_weights : (E,) float64
        Log of the expected streamlines of each edge, in the order of ``Atlas.edges``.

    """

    participant: str
    age_years: float
    sex: Sex
    group: Group
    gase: int | None
    duration_years: float | None
    medicines: int | None
    outcomes: dict[str, float]
    severity: float
    log_weights: Floats


def draw_site(
    world: World,
    *,
    children: int,
    controls: int,
    rng: np.random.Generator,
    scanner: Scanner | None = None,
    severity_shift_sd: float = 0.4,
) -> tuple[Subject, ...]:
    """Draw one site: children with drug-resistant epilepsy, then controls of matching age and sex.

    Parameters
    ----------
    world : World
    children, controls : int
    rng : Generator
    scanner : Scanner, optional
        Drawn when it is not given.
    severity_shift_sd : float
        Sd, between sites, of the mean latent severity in steps of GASE: severity is confounded with
        the scanner.

    Returns
    -------
    tuple of Subject

    """
    if children < 0 or controls < 0:
        raise ConfigError(f"a site has 0 or more children and controls, not {children} and {controls}")
    scanner = scanner or world.scanner(rng=rng)
    shift, mean_age = rng.normal(0, severity_shift_sd), rng.normal(10, 0.8)
    age = np.clip(rng.normal(mean_age, 3.5, children), 4, 18)
    male = rng.integers(0, 2, children).astype(np.float64)
    latent = np.clip(SEVERITY_MEAN + shift + SEVERITY_SD * rng.normal(size=children), 1, 7)
    gase = np.clip(np.rint(latent + world.gase_noise * rng.normal(size=children)), 1, 7)
    # Each control is matched to a child, as in the study; without children, to the population.
    twin = rng.permutation(np.resize(np.arange(children), controls)) if children else None
    like_age = age[twin] if twin is not None else rng.uniform(4, 18, controls)
    like_male = male[twin] if twin is not None else rng.integers(0, 2, controls).astype(np.float64)
    ages = np.round(np.concatenate([age, np.clip(like_age + rng.normal(0, 0.5, controls), 4, 18)]), 1)
    males = np.concatenate([male, like_male])
    severity = np.concatenate([(latent - SEVERITY_MEAN) / SEVERITY_SD, np.full(controls, CONTROL_SEVERITY_Z)])
    weights = world.log_weights(ages, males, severity, scanner=scanner, rng=rng)
    scores = _draw_outcomes(severity, rng=rng)
    # From a stream of its own: whatever else is drawn from a seed stays as it was without it.
    (own,) = rng.spawn(1)
    illness = draw_illness(ages[:children], severity[:children], rng=own)
    return tuple(
        Subject(
            participant=f"sub-{k + 1:03d}",
            age_years=float(ages[k]),
            sex="M" if males[k] else "F",
            group="dre" if k < children else "control",
            gase=int(gase[k]) if k < children else None,
            duration_years=float(illness.duration_years[k]) if k < children else None,
            medicines=int(illness.medicines[k]) if k < children else None,
            outcomes=dict(zip(OUTCOMES, scores[k].tolist(), strict=True)),
            severity=float(severity[k]),
            log_weights=weights[k],
        )
        for k in range(children + controls)
    )


def subject_counts(log_weights: Floats, *, rng: np.random.Generator) -> Floats:
    """Draw streamline counts from log weights: what a tracker would have counted, without the scan.

    Parameters
    ----------
    log_weights : (..., E) float64
    rng : Generator

    Returns
    -------
    (..., E) float64
        Poisson.

    """
    return rng.poisson(np.exp(np.clip(log_weights, -10, 12))).astype(np.float64)


def _draw_outcomes(severity: Floats, *, rng: np.random.Generator) -> Floats:
    """Draw the (n, 3) standard scores: they fall with severity and share most of what else moves them."""
    subjects = len(severity)
    shared, own = rng.normal(size=(subjects, 1)), rng.normal(size=(subjects, len(OUTCOMES)))
    drop = np.array([8.0, 7.0, 6.0]) * (severity[:, None] - CONTROL_SEVERITY_Z)
    return np.clip(np.rint(102 - drop + 10 * shared + 6 * own), 40, 160)
