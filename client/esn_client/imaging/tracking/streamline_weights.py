"""Streamline weights: how much each streamline must count for all of them to look like the fODFs.

Plain counts follow from where streamlines are started and how easily they are lost: a long bundle is started
in more often than a short one of the same number of fibres. As in SIFT2 (Smith et al. 2015, Neuroimage
119:338) each streamline gets a weight, such that the weighted length of streamlines in each lobe of each fODF
is proportional to the lobe's integral. We depart from it in the fit: the weights maximise the Poisson
likelihood by expectation maximisation (Richardson 1972, J Opt Soc Am 62:55), which keeps them positive and
needs no step size; a few iterations, in place of a penalty, keep them from following noise.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.compilation import compiled
from esn_client.imaging.fibres.lobes import Lobes
from esn_client.imaging.tracking.streamlines import Streamlines
from esn_core.errors import DataError


@dataclass(frozen=True)
class Visits:
    """The lobes that a batch of streamlines passes through: 6 bytes for each, in place of its points.

    Attributes
    ----------
    lobes : (N,) int32
        Along the first streamline, then the second one, ...
    steps : (N,) uint16
        How many steps of the streamline lie in the lobe.
    offsets : (S + 1,) int64
        Streamline ``s`` has the visits ``offsets[s]`` to ``offsets[s + 1] - 1``.

    """

    lobes: NDArray[np.int32]
    steps: NDArray[np.uint16]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Weighting:
    """The weights, and what they achieve.

    Attributes
    ----------
    weights : (S,) float64
        Positive; they leave the summed length within lobes as it was. A streamline that passes through no
        lobe keeps 1.
    misfit_before, misfit_after : float
        Share of the lobes' density that the streamlines place elsewhere: half the sum of absolute differences
        over the sum, with all weights 1 and with `weights`.

    """

    weights: NDArray[np.float64]
    misfit_before: float
    misfit_after: float


def record_visits(
    batches: Iterable[Streamlines], lobes: Lobes, *, voxel_size_mm: NDArray[np.float64], into: list[Visits]
) -> Iterator[Streamlines]:
    """Pass streamlines on and note which lobes they pass through.

    Parameters
    ----------
    batches : iterable of Streamlines
    lobes : Lobes
    voxel_size_mm : (3,) float64
    into : list of Visits
        Is appended to, one for each batch.

    Yields
    ------
    Streamlines
        Unchanged.

    """
    for batch in batches:
        # No streamline has more visits than steps.
        most = len(batch.points)
        found, steps = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.uint16)
        offsets = np.zeros(len(batch) + 1, dtype=np.int64)
        _visit(
            batch.points,
            batch.offsets,
            lobes.vectors,
            lobes.row_of,
            lobes.lobe_of,
            voxel_size_mm,
            found,
            steps,
            offsets,
        )
        into.append(Visits(found[: offsets[-1]].copy(), steps[: offsets[-1]].copy(), offsets))
        yield batch


@compiled
def _visit(
    points: NDArray[np.float32],
    places: NDArray[np.int64],
    vectors: NDArray[np.float64],
    row_of: NDArray[np.int32],
    lobe_of: NDArray[np.int32],
    voxel_size_mm: NDArray[np.float64],
    lobes: NDArray[np.int32],
    steps: NDArray[np.uint16],
    offsets: NDArray[np.int64],
) -> None:
    """Fill in the lobe of each step, steps in the same lobe one after the other joined."""
    direction = np.empty(3)
    count = 0
    for number in range(len(places) - 1):
        axis, begin = 0, count
        for place in range(places[number], places[number + 1] - 1):
            length = 0.0
            for k in range(3):
                direction[k] = (points[place + 1, k] - points[place, k]) * voxel_size_mm[k]
                length += direction[k] ** 2
            length = np.sqrt(length)
            along = 0.0
            for k in range(3):
                along += vectors[axis, k] * direction[k]
            # The tracker steps along axes: often it is the axis of the step before.
            if abs(along) < length * 0.99999:
                best = -1.0
                for other in range(len(vectors)):
                    along = 0.0
                    for k in range(3):
                        along += vectors[other, k] * direction[k]
                    if abs(along) > best:
                        best, axis = abs(along), other
            x = int(np.rint((points[place, 0] + points[place + 1, 0]) / 2))
            y = int(np.rint((points[place, 1] + points[place + 1, 1]) / 2))
            z = int(np.rint((points[place, 2] + points[place + 1, 2]) / 2))
            row = row_of[x, y, z]
            lobe = lobe_of[row, axis] if row >= 0 else -1
            if lobe < 0:
                continue
            if count > begin and lobes[count - 1] == lobe:
                steps[count - 1] += 1
            else:
                lobes[count], steps[count] = lobe, 1
                count += 1
        offsets[number + 1] = count


def weigh_streamlines(visits: list[Visits], lobes: Lobes, *, iterations: int) -> Weighting:
    """Fit the weights to the density of the lobes that any streamline passes through.

    Parameters
    ----------
    visits : list of Visits
        Of every batch, in order.
    lobes : Lobes
    iterations : int
        5: more fit the fODFs better and the truth of simulated children worse (`tests/benchmarks`).

    Returns
    -------
    Weighting

    Raises
    ------
    DataError
        No streamline passes through a lobe.

    """
    parts = [np.ones(len(part.offsets) - 1) for part in visits]
    laid = _lay(visits, parts, len(lobes.density))
    reached = laid > 0
    if not reached.any():
        raise DataError("no streamline passes through a lobe of an fODF; nothing can be weighed")
    wanted = np.where(reached, lobes.density, 0.0)
    # The unit of density is free: the length laid in all lobes together is to stay what it is.
    wanted *= laid.sum() / wanted.sum()

    def misfit(laid: NDArray[np.float64]) -> float:
        return float(np.abs(laid - wanted).sum() / (laid.sum() + wanted.sum()))

    before = misfit(laid)
    for _ in range(iterations):
        ratio = np.divide(wanted, laid, out=np.zeros_like(laid), where=reached)
        for part, weights in zip(visits, parts, strict=True):
            _adjust(part.lobes, part.steps, part.offsets, ratio, weights)
        laid = _lay(visits, parts, len(laid))
    return Weighting(np.concatenate(parts), before, misfit(laid))


def _lay(visits: list[Visits], parts: list[NDArray[np.float64]], size: int) -> NDArray[np.float64]:
    """Add up the weighted steps in each lobe."""
    laid = np.zeros(size)
    for part, weights in zip(visits, parts, strict=True):
        _add(part.lobes, part.steps, part.offsets, weights, laid)
    return laid


@compiled
def _add(
    lobes: NDArray[np.int32],
    steps: NDArray[np.uint16],
    offsets: NDArray[np.int64],
    weights: NDArray[np.float64],
    laid: NDArray[np.float64],
) -> None:
    """Add one batch's weighted steps."""
    for number in range(len(offsets) - 1):
        for place in range(offsets[number], offsets[number + 1]):
            laid[lobes[place]] += weights[number] * steps[place]


@compiled
def _adjust(
    lobes: NDArray[np.int32],
    steps: NDArray[np.uint16],
    offsets: NDArray[np.int64],
    ratio: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    """Multiply each weight by the mean ratio of wanted to laid along the streamline."""
    for number in range(len(offsets) - 1):
        total, length = 0.0, 0.0
        for place in range(offsets[number], offsets[number + 1]):
            total += ratio[lobes[place]] * steps[place]
            length += steps[place]
        if length > 0:
            weights[number] *= total / length
