"""Reruns at the centre: one network, one calibration and one agreement for each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.analyses.reruns import evaluation_blocks, tested_reruns
from esn_core.privacy.accounting import NO_NOISE
from esn_core.protocol.price import price_of
from esn_core.statistics.agreement import (
    EVALUATION,
    FEWEST_CHILDREN,
    Agreement,
    agreement,
    noise_sd_of_r,
)
from esn_core.statistics.agreement_estimates import Estimates, estimates
from esn_core.transcript.course import Course
from esn_server.study.asking import Ask


@dataclass(frozen=True)
class Tested:
    """How well predictions agree with scores that the prediction was not made from.

    Attributes
    ----------
    agreement : Agreement
        As the sums were released.
    estimates : Estimates
        What they tell, with intervals.
    r_noise_sd : float or None
        What the noise does to r.

    """

    agreement: Agreement
    estimates: Estimates
    r_noise_sd: float | None


@dataclass(frozen=True)
class Reruns:
    """What the reruns found.

    Attributes
    ----------
    by_site : dict of str to Tested
        Each site's held-out children under the rerun without it; empty under noise.
    across_sites : Tested or None
        The same children together.
    random : tuple of Tested
        Held-out children under each draw of random scores.
    across_parts : Tested or None
        All training children, each under the rerun without its part.

    """

    by_site: Mapping[str, Tested]
    across_sites: Tested | None
    random: tuple[Tested, ...]
    across_parts: Tested | None


def run_reruns(course: Course, ask: Ask, *, rng: np.random.Generator) -> Reruns:
    """Ask for all reruns of a protocol, together.

    Parameters
    ----------
    course : Course
    ask : Ask
    rng : numpy Generator
        For the simulation of what the noise does to r.

    """
    protocol = course.protocol
    ask("rerun-association")
    ask("rerun-calibration")
    by_site: dict[str, Tested] = {}
    random: list[Tested] = []
    across_sites = across_parts = None
    tested = tested_reruns(protocol)
    if tested:
        exact = price_of(protocol).of("rerun-evaluation").noise_multiplier == NO_NOISE
        sums = ask("rerun-evaluation")
        blocks = evaluation_blocks(tested, exact=exact)
        together = np.zeros(EVALUATION.dimension)
        for block, summed in zip(blocks, sums.total.reshape(len(blocks), -1), strict=True):
            if block[0].without is None:
                random.append(_tested(summed, sums.noise_sd, rng))
                continue
            together += summed
            if exact:
                by_site[str(block[0].without)] = _tested(summed, sums.noise_sd, rng)
        if protocol.analyses.cross_site:
            across_sites = _tested(together, sums.noise_sd, rng)
    if protocol.analyses.folds:
        sums = ask("fold-evaluation")
        across_parts = _tested(sums.total, sums.noise_sd, rng)
    return Reruns(by_site, across_sites, tuple(random), across_parts)


def _tested(total: NDArray[np.float64], noise_sd: float, rng: np.random.Generator) -> Tested:
    estimated = estimates(total, noise_sd=noise_sd, fewest_children=FEWEST_CHILDREN, rng=rng)
    return Tested(agreement(total), estimated, noise_sd_of_r(total, noise_sd, rng=rng))
