"""Faults of a scan's voxels that a reader of files cannot see: healed where that is safe, else refused."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_core.errors import DataError

DEEP_SDS = 5.0
"""Noise reaches no deeper below 0."""
DEEP_SHARE = 0.1
"""Of the brightness of the head: bright edges, as beside the skull, undershoot."""
MOST_NOISE = 0.5
"""Of the brightness of the head: what differs by more from voxel to voxel is no noise, but a phase image."""
MOST_DEEP = 1e-3
"""So many voxels may be deeply negative; an overflow, a phase image or a wrong offset leaves far more."""
MOST_HEAD_CUT = 0.01
"""Share of the head that may lie outside the field of view in some volumes."""
LEAST_CONTRAST = 1.05
"""Weighting attenuates a head's signal by half; a table that does not belong to the scan, not at all."""
CEILING_SHARE = 1e-3
"""So many voxels at the largest value that a file can hold: a scale that ran out."""


@dataclass(frozen=True)
class SoundSignal:
    """A scan's voxels, all of them numbers that a scan has.

    Attributes
    ----------
    signal : (X, Y, Z, V) float32
        Finite and not negative.
    remarks : tuple of str
        What was changed.

    """

    signal: NDArray[np.float32]
    remarks: tuple[str, ...]


def check_signal(
    signal: NDArray[np.float32], gradients: Gradients, *, name: str, ceiling: float | None = None
) -> SoundSignal:
    """Refuse voxels that no diffusion scan has, and heal those that ordinary steps leave.

    Negative voxels are judged by their depth, not by their number: what lies below 0 by less than the noise,
    or than an edge's undershoot, counts as 0. NaN counts as 0 where it reaches in from the edge of the
    image, as what another pipeline never saw.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
    name : str
        Of the file, for messages.
    ceiling : float, optional
        The largest value that the file's type can hold, after scaling; None for floating point.

    Returns
    -------
    SoundSignal

    Raises
    ------
    DataError
        Voxels are not finite inside of the image; all are equal; more than one in a thousand is deeply
        negative; many lie at the ceiling; a volume is empty; or the b0s are no brighter than the weighted
        volumes.

    """
    if signal.ndim != 4 or not signal.size:
        raise DataError(f"{name}: a series of volumes (4-D) is needed; found shape {signal.shape}")
    signal, remarks = _without_nan(signal, name)
    if signal.min() == signal.max():
        raise DataError(f"{name}: all voxels have the value {signal.min():g}")
    full = float(np.mean(signal >= ceiling)) if ceiling is not None else 0.0
    if full > CEILING_SHARE:
        raise DataError(
            f"{name}: {full:.1%} of the voxels have the largest value that the file can hold, {ceiling:g}; "
            "the scan was cut off there"
        )
    negative = float(np.mean(signal < 0))
    if negative:
        _check_depth(signal, negative, name)
        signal = np.maximum(signal, 0)
        remarks.append(
            f"{negative:.2%} of the voxels were negative, all but a few within the noise; they count as 0"
        )
    empty = np.flatnonzero(signal.reshape(-1, signal.shape[3]).max(axis=0) <= 0)
    if empty.size:
        raise DataError(f"{name}: volume {empty[0]} is empty")
    means = signal.mean(axis=(0, 1, 2), dtype=np.float64)
    if gradients.is_b0.any() and not gradients.is_b0.all():
        ratio = float(np.median(means[gradients.is_b0]) / np.median(means[~gradients.is_b0]))
        if ratio < LEAST_CONTRAST:
            raise DataError(
                f"{name}: the b0s are {ratio:.2f} times as bright as the weighted volumes; "
                f"{LEAST_CONTRAST:g} or more is needed: the b-values belong to another scan or order"
            )
    return SoundSignal(signal, tuple(remarks))


def noise_sd(signal: NDArray[np.float32]) -> float:
    """Estimate the sd of the noise, from second differences along each line of voxels in the median volume.

    Of a straight line they are 0; of noise alone they have six times its variance. Of a normal distribution,
    the median absolute value is .6745 sd.
    """
    sds = []
    for volume in np.moveaxis(signal, 3, 0):
        bend = volume[2:] - 2 * volume[1:-1] + volume[:-2]
        sds.append(float(np.median(np.abs(bend[bend != 0]))) if np.any(bend) else 0.0)
    return float(float(np.median(sds)) / 0.6745 / np.sqrt(6.0))


def _check_depth(signal: NDArray[np.float32], negative: float, name: str) -> None:
    """Refuse negative voxels that no ordinary step leaves."""
    bright = signal[signal > 0]
    head = float(bright[bright > bright.mean()].mean()) if bright.size else 0.0
    floor = min(max(DEEP_SDS * noise_sd(signal), DEEP_SHARE * head), MOST_NOISE * head)
    deep = float(np.mean(signal < -floor))
    if deep > MOST_DEEP:
        words = f"{float(f'{floor:.3g}'):g}"
        raise DataError(
            f"{name}: {negative:.1%} of the voxels are negative, {deep:.1%} by more than {words}, as "
            "after an overflow of integers or in a phase image; noise and ringing leave at most "
            f"{MOST_DEEP:.1%} so deep"
        )


def _without_nan(signal: NDArray[np.float32], name: str) -> tuple[NDArray[np.float32], list[str]]:
    """Count what lies outside of the field of view as 0; refuse other voxels that are not finite."""
    if np.isfinite(signal).all():
        return signal, []
    unusable = int(signal.size - np.isfinite(signal).sum())
    unseen = np.isnan(signal)
    outside = unseen.any(axis=3)
    x, y, z, volume = np.argwhere(~np.isfinite(signal))[0].tolist()
    refusal = DataError(
        f"{name}: {unusable} voxels are NaN or infinite, the first at ({x}, {y}, {z}) of volume {volume}, "
        "counted from 0; all must be finite, but for NaN that reaches in from the edge of the image"
    )
    if np.isinf(signal).any() or outside.all():
        raise refusal
    pieces, _ = label(outside)
    at_edge = np.unique(
        np.concatenate([np.take(pieces, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)])
    )
    if not np.isin(pieces[outside], at_edge).all():
        raise refusal
    # What some volumes saw and others did not must not be head.
    count = (~unseen).sum(axis=3)
    mean = np.where(unseen, 0, signal).sum(axis=3) / np.maximum(count, 1)
    head = mean > mean[~outside].mean()
    cut = float((head & outside).sum() / max(head.sum(), 1))
    if cut > MOST_HEAD_CUT:
        raise DataError(
            f"{name}: {cut:.0%} of the head is NaN in some volumes and not in others; {MOST_HEAD_CUT:.0%} "
            "at most may lie outside of the field of view"
        )
    share = float(outside.mean())
    beyond = np.asarray(outside)[..., None]
    return np.where(beyond, np.float32(0), signal), [
        f"{share:.1%} of the voxels are NaN, outside of the field of view; they count as 0"
    ]
