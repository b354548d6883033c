"""Reruns at the centre: one network, one calibration and one agreement for each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.analyses.reruns import (
    FOLD_EVALUATION,
    evaluation_blocks,
    read_rerun_association,
    rerun_association,
    rerun_calibration,
    rerun_evaluation,
    reruns_of,
    tested_reruns,
)
from esn_core.privacy.accounting import NO_NOISE
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.candidates import Candidates
from esn_core.statistics.agreement import (
    EVALUATION,
    FEWEST_CHILDREN,
    Agreement,
    agreement,
    noise_sd_of_r,
)
from esn_core.statistics.agreement_estimates import Estimates, estimates
from esn_core.statistics.recalibration import CALIBRATION, affine
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


def run_reruns(
    protocol: Protocol,
    candidates: Candidates,
    ask: Ask,
    *,
    severity: NDArray[np.float64],
    fewest_children: float,
    rng: np.random.Generator,
) -> Reruns:
    """Ask for all reruns of a protocol, together.

    Parameters
    ----------
    protocol : Protocol
    candidates : Candidates
    ask : Ask
    severity : (1,) or (4,) float64
        As read at the beginning of the study (`esn_core.severity_network.centring.centre_of`).
    fewest_children : float
        A public lower bound on the children in any sum.
    rng : numpy Generator
        For the simulation of what the noise does to r.

    """
    reruns = reruns_of(protocol)
    released = candidates.released
    pooled, noise = ask(
        "rerun-association",
        rerun_association(reruns, released),
        0,
        {"mean_severity": severity},
    )
    edge_weights = np.concatenate(
        [
            candidates.network(sums, children=children, noise_sd=noise).weight
            for sums, children in read_rerun_association(
                pooled.total, reruns, released, fewest_children=fewest_children
            )
        ]
    )
    pooled, noise = ask("rerun-calibration", rerun_calibration(reruns), 0, {"edge_weights": edge_weights})
    lines = [
        affine(sums, fewest_children=fewest_children, noise_sd=noise)
        for sums in pooled.total.reshape(len(reruns), CALIBRATION.dimension)
    ]
    given = {"edge_weights": edge_weights, "calibration": np.array(lines).ravel()}
    by_site: dict[str, Tested] = {}
    random: list[Tested] = []
    across_sites = across_parts = None
    tested = tested_reruns(protocol)
    if tested:
        exact = price_of(protocol).of("rerun-evaluation").noise_multiplier == NO_NOISE
        pooled, noise = ask("rerun-evaluation", rerun_evaluation(tested, exact=exact), 0, given)
        blocks = evaluation_blocks(tested, exact=exact)
        together = np.zeros(EVALUATION.dimension)
        for block, summed in zip(blocks, pooled.total.reshape(len(blocks), -1), strict=True):
            if block[0].without is None:
                random.append(_tested(summed, noise, rng))
                continue
            together += summed
            if exact:
                by_site[str(block[0].without)] = _tested(summed, noise, rng)
        if protocol.analyses.cross_site:
            across_sites = _tested(together, noise, rng)
    if protocol.analyses.folds:
        pooled, noise = ask("fold-evaluation", FOLD_EVALUATION, 0, given)
        across_parts = _tested(pooled.total, noise, rng)
    return Reruns(by_site, across_sites, tuple(random), across_parts)


def _tested(total: NDArray[np.float64], noise_sd: float, rng: np.random.Generator) -> Tested:
    estimated = estimates(total, noise_sd=noise_sd, fewest_children=FEWEST_CHILDREN, rng=rng)
    return Tested(agreement(total), estimated, noise_sd_of_r(total, noise_sd, rng=rng))
