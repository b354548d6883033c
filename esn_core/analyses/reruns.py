"""Reruns: the pipeline once more with a site or a part of the children left out, or with random scores.

All reruns of a study are asked together, one sum for each step: a child's row
is a block for each rerun, zero in those that leave the child out. Every rerun
selects its own severity network, reads it with the pre-trained model and calibrates
that; it takes no DP-SGD steps. Children that a rerun left out evaluate it.

Which part a child belongs to, and which score is drawn for it, follow from a hash of its
own label, as the split does: adding a child changes nobody else's row.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.gase import GASE_LEVELS
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.rules import CohortRules
from esn_core.severity_network.association import RESIDUAL_CLIP
from esn_core.statistics.agreement import EVALUATION
from esn_core.statistics.recalibration import CALIBRATION

# Probabilities of GASE 1 to 7 in a random score: a normal distribution about the middle of the scale.
_RANDOM_SCORE = np.array([0.05, 0.11, 0.21, 0.26, 0.21, 0.11, 0.05])

# A block's count of children is scaled so that it adds this part to the square of the block's length.
_COUNT_SHARE = 0.05


@dataclass(frozen=True)
class Rerun:
    """One rerun: exactly one of the three is set.

    Attributes
    ----------
    without : str or None
        The site whose training children are left out, and whose held-out children evaluate.
    part : int or None
        The part of the training children that is left out, and evaluates.
    draw : int or None
        The number of the draw of random scores, for training and for evaluation.

    """

    without: str | None = None
    part: int | None = None
    draw: int | None = None


def reruns_of(protocol: Protocol) -> tuple[Rerun, ...]:
    """Return the reruns of a study: without each site, with each draw, without each part."""
    asked = protocol.analyses
    return (
        *(Rerun(without=site) for site in protocol.sites if asked.cross_site),
        *(Rerun(draw=draw) for draw in range(asked.random_scores)),
        *(Rerun(part=part) for part in range(asked.folds)),
    )


def tested_reruns(protocol: Protocol) -> tuple[Rerun, ...]:
    """Return the reruns that held-out children evaluate: all but those without a part."""
    return tuple(rerun for rerun in reruns_of(protocol) if rerun.part is None)


def parts_of(labels: Sequence[str], *, site: str, rules: CohortRules, parts: int) -> NDArray[np.int64]:
    """Return the part, 0 to `parts` - 1, of each of a site's children."""
    return np.array([int(_uniform(label, site, rules, "part") * parts) for label in labels], dtype=np.int64)


def random_scores(labels: Sequence[str], *, site: str, rules: CohortRules, draw: int) -> NDArray[np.float64]:
    """Draw a GASE for each of a site's children, which knows nothing of the child but its label."""
    below = np.cumsum(_RANDOM_SCORE)[:-1]
    drawn = [_uniform(label, site, rules, f"score {draw}") for label in labels]
    return GASE_LEVELS[0] + np.searchsorted(below, drawn, side="right").astype(np.float64)


def rerun_association(reruns: Sequence[Rerun], candidates: int) -> ReleaseKind:
    """Describe the association sums of all reruns.

    Row: for each rerun (k, z (y - mean)), with z (y - mean) as in `association_release`, of norm 0.8
    sqrt(candidates) at most, and k^2 a twentieth of that norm's square; zero where the child is left out.
    """
    block = RESIDUAL_CLIP * math.sqrt(candidates * (1 + _COUNT_SHARE))
    width = len(reruns) * (candidates + 1)
    return ReleaseKind("rerun-association", "training", width, block * math.sqrt(_training_blocks(reruns)))


def count_unit(candidates: int) -> float:
    """Return the number by which one child is counted in a block of `rerun_association`."""
    return RESIDUAL_CLIP * math.sqrt(candidates * _COUNT_SHARE)


def read_rerun_association(
    total: NDArray[np.float64], reruns: Sequence[Rerun], candidates: int, *, fewest_children: float
) -> tuple[tuple[NDArray[np.float64], float], ...]:
    """Return the association sum of each rerun, and the children in it.

    Parameters
    ----------
    total : (len(reruns) * (candidates + 1),) float64
        Sum of rows of `rerun_association`, noise included.
    reruns : sequence of Rerun
    candidates : int
    fewest_children : float
        A public lower bound on how many children were summed.

    """
    return tuple(
        (sums[1:], max(float(sums[0]) / count_unit(candidates), fewest_children))
        for sums in total.reshape(len(reruns), candidates + 1)
    )


def rerun_calibration(reruns: Sequence[Rerun]) -> ReleaseKind:
    """Describe the calibration sums of all reruns: blocks of `CALIBRATION`."""
    bound = CALIBRATION.l2_bound * math.sqrt(_training_blocks(reruns))
    return ReleaseKind("rerun-calibration", "training", len(reruns) * CALIBRATION.dimension, bound)


def evaluation_blocks(tested: Sequence[Rerun], *, exact: bool) -> tuple[tuple[Rerun, ...], ...]:
    """Return the reruns whose evaluations are summed in each block.

    Each draw has its own. The reruns without a site have one each where sums are exact; under noise they
    share one, as the noise would leave nothing of a single site's children.
    """
    without = tuple(rerun for rerun in tested if rerun.without is not None)
    draws = tuple((rerun,) for rerun in tested if rerun.draw is not None)
    return (*(((rerun,) for rerun in without) if exact or not without else (without,)), *draws)


def rerun_evaluation(tested: Sequence[Rerun], *, exact: bool) -> ReleaseKind:
    """Describe the evaluation sums of reruns: blocks of `EVALUATION`.

    A held-out child evaluates the one rerun without its site, and every draw.
    """
    draws = sum(rerun.draw is not None for rerun in tested)
    bound = EVALUATION.l2_bound * math.sqrt(draws + int(draws < len(tested)))
    width = len(evaluation_blocks(tested, exact=exact)) * EVALUATION.dimension
    return ReleaseKind("rerun-evaluation", "held-out", width, bound)


FOLD_EVALUATION = ReleaseKind("fold-evaluation", "training", EVALUATION.dimension, EVALUATION.l2_bound)
"""The evaluation of all training children, each by the rerun that left out its part: one sum."""


def in_blocks(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Lay K arrays of (n, d) rows side by side as (n, K d)."""
    return np.concatenate(rows, axis=1)


def _training_blocks(reruns: Sequence[Rerun]) -> int:
    """Return in how many reruns a training child takes part, at most: one of each kind leaves it out."""
    sites = sum(rerun.without is not None for rerun in reruns)
    parts = sum(rerun.part is not None for rerun in reruns)
    return len(reruns) - int(sites > 0) - int(parts > 0)


def _uniform(label: str, site: str, rules: CohortRules, purpose: str) -> float:
    """Return a number in [0, 1) that follows from a child's own label."""
    digest = hashlib.sha256(f"{rules.split_salt}\n{purpose}\n{site}\n{label}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
