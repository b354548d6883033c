"""Brightness of volumes: whether it goes with their b-values, and is the same in all runs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import Shell
from esn_core.errors import DataError

LEAST_RATIO = 1.3
"""By which the b0s of a run are brighter than its weighted volumes, where single volumes can be judged."""
MOST_APART = 1.1
"""Runs of one head on one scanner are as bright; receiver and scale may be set anew between them."""


def level_runs(names: Sequence[str], signals: Sequence[NDArray[np.float32]], shell: Shell) -> list[str]:
    """Compare the brightness of volumes with their b-values, and bring runs to the first one's, in place.

    A table that is shifted against its images has b0s as dark as weighted volumes and weighted volumes as
    bright as b0s; where only one of both is there, signal may have been lost, or a slice may have lit up.

    Parameters
    ----------
    names : sequence of str
        Of the runs' files, for words.
    signals : sequence of (X, Y, Z, V) float32
        Of the runs; NaN has no say.
    shell : Shell
        Of all of them together.

    Returns
    -------
    list of str
        What somebody should look at.

    Raises
    ------
    DataError
        b-values are of another order than the volumes.

    """
    kinds = _kinds_of(shell, sum(signal.shape[3] for signal in signals))
    ends = np.cumsum([signal.shape[3] for signal in signals])[:-1]
    warnings: list[str] = []
    first: float | None = None
    for name, signal, kind in zip(names, signals, np.split(kinds, ends), strict=True):
        means = np.array([_mean(signal[..., volume]) for volume in range(signal.shape[3])])
        warnings += _compare(name, means, kind == 0, kind == 1)
        if not (kind == 0).any():
            continue
        own = float(np.median(means[kind == 0]))
        if first is None:
            first = own
        elif own > 0 and first > 0 and not 1 / MOST_APART < own / first < MOST_APART:
            signal *= np.float32(first / own)
            warnings.append(
                f"{name}: its b0s are {own / first:.2g} times as bright as those of {names[0]}; it was "
                "brought to the same brightness"
            )
    return warnings


def _kinds_of(shell: Shell, volumes: int) -> NDArray[np.int64]:
    """Tell b0s (0) from volumes of the shell and means over it (1); all others are -1."""
    kinds = np.full(volumes, -1)
    b = shell.gradients.b_values_s_per_mm2
    kinds[shell.kept[shell.gradients.is_b0]] = 0
    # Of several shells the strongest is judged: a weak one is nearly as bright as the b0s.
    kinds[shell.kept[b >= 0.9 * b.max()]] = 1
    if b[~shell.gradients.is_b0].min() >= 0.9 * b.max():
        kinds[list(shell.traces)] = 1
    return kinds


def _mean(volume: NDArray[np.float32]) -> float:
    seen = np.isfinite(volume)
    return float(volume.mean(where=seen, dtype=np.float64)) if seen.any() else 0.0


def _compare(
    name: str, means: NDArray[np.float64], is_b0: NDArray[np.bool_], weighted: NDArray[np.bool_]
) -> list[str]:
    """Refuse b-values of another order; say where a volume's brightness is not that of its b-value."""
    if not is_b0.any() or not weighted.any():
        return []
    bright, dark = float(np.median(means[is_b0])), float(np.median(means[weighted]))
    if dark <= 0 or bright < LEAST_RATIO * dark:
        return []
    middle = float(np.sqrt(bright * dark))
    too_dark = np.flatnonzero(is_b0 & (means < middle))
    too_bright = np.flatnonzero(weighted & (means > middle))
    if too_dark.size and too_bright.size:
        raise DataError(
            f"{name}: volume {too_dark[0]}, counted from 0, is a b0 by its b-value and as dark as a "
            f"weighted one, volume {too_bright[0]} weighted and as bright as a b0: the b-values belong to "
            "another scan or order"
        )
    return [
        f"{name}: volume {volume}, counted from 0, is {what} by its b-value, and as {how}: look at it"
        for volumes, what, how in (
            (too_dark, "a b0", "dark as a weighted one"),
            (too_bright, "weighted", "bright as a b0"),
        )
        for volume in volumes
    ]
