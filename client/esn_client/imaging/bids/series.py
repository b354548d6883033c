"""Series: which of a visit's runs belong together, and which of them a connectome is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esn_client.imaging.bids.images import shape_of
from esn_client.imaging.bids.scan_files import AXES, RunFiles
from esn_core.errors import DataError

MOST_APART_SHARE = 0.02
"""Readout times that differ by less warp alike."""


@dataclass(frozen=True)
class Choice:
    """The runs that are used, and what became of the others.

    Attributes
    ----------
    runs : tuple of RunFiles
        Joined one after the other.
    left_out : tuple of Path
    warnings, remarks : tuple of str

    """

    runs: tuple[RunFiles, ...]
    left_out: tuple[Path, ...]
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]


def choose_series(
    label: str, series: Sequence[Sequence[RunFiles]], *, without_table: Sequence[Path], corrected: bool
) -> Choice:
    """Choose one series of a visit, and say what is not used.

    Runs that were warped differently are never joined: brains of two shapes would lie over each other.

    Parameters
    ----------
    label : str
        Of the visit, for messages.
    series : sequence of sequence of RunFiles
        Runs of one series differ in their run alone. One or more.
    without_table : sequence of Path
        Images without b-values and vectors.
    corrected : bool
        Whether another pipeline has undone the warps.

    Returns
    -------
    Choice

    Raises
    ------
    DataError
        Several series have the most weighted volumes, or an image without a table is no mere b0 series.

    """
    parts = [part for runs in series for part in ([runs] if corrected else _by_warp(runs))]
    weighted = [sum(run.count_weighted() for run in part) for part in parts]
    most = max(weighted)
    best = [part for part, count in zip(parts, weighted, strict=True) if count == most]
    if len(best) > 1:
        raise DataError(_too_many(label, best, most))
    chosen, doubtful = ([*best[0]], []) if corrected else _without_doubtful_b0s(best[0])
    for path in without_table:
        _check_b0_series(label, path, most)
    others = [run for part in parts if part is not best[0] for run in part]
    warped = [
        run for part in parts if part is not best[0] and _same_series(part, chosen, series) for run in part
    ]
    warnings = [
        f"{run.dwi.name} was left out: it is warped differently ({_warp(run)}; {_warp(chosen[0])} is "
        "used), and joins only after FSL's topup or QSIPrep"
        for run in warped
    ]
    unknown = [run for run in chosen if run.phase_encoding is None]
    if len(chosen) > 1 and unknown and not corrected:
        names = ", ".join(run.dwi.name for run in unknown)
        warnings.append(
            f"{len(chosen)} runs are joined, and no sidecar says in which direction {names} was phase "
            "encoded: if not all in one, they are warped differently"
        )
    warnings += [
        f"{run.dwi.name}: {words} in its sidecar, which names no axis ({', '.join(AXES)}); it counts as not "
        "said"
        for run in chosen
        for words in run.not_understood
    ]
    remarks = [f"{run.dwi.name} was left out: it has fewer directions" for run in others if run not in warped]
    remarks += [
        f"{run.dwi.name} was left out: it has b0s alone, and no sidecar says in which direction they were "
        "phase encoded"
        for run in doubtful
    ]
    remarks += [
        f"{path.name} was left out: it has no gradient table, as a b0 series" for path in without_table
    ]
    left_out = [run.dwi for run in (*others, *doubtful)] + list(without_table)
    return Choice(tuple(chosen), tuple(left_out), tuple(warnings), tuple(remarks))


def _by_warp(runs: Sequence[RunFiles]) -> list[list[RunFiles]]:
    """Divide the runs of a series into those that are warped alike."""
    parts: list[list[RunFiles]] = []
    for run in (run for run in runs if run.phase_encoding is not None):
        home = next((part for part in parts if not any(_differ(run, other) for other in part)), None)
        if home is None:
            parts.append([run])
        else:
            home.append(run)
    unknown = [run for run in runs if run.phase_encoding is None]
    if len(parts) <= 1:
        return [list(runs)]
    return parts + ([unknown] if unknown else [])


def _without_doubtful_b0s(runs: Sequence[RunFiles]) -> tuple[list[RunFiles], list[RunFiles]]:
    """Take away runs of b0s alone that may be of the reverse phase encoding; they add no direction."""
    doubtful = [run for run in runs if run.phase_encoding is None and not run.count_weighted()]
    kept = [run for run in runs if run not in doubtful]
    known = any(run.phase_encoding for run in kept) and any(run.has_b0s() for run in kept)
    return (kept, doubtful) if known else ([*runs], [])


def _differ(one: RunFiles, other: RunFiles) -> bool:
    if one.phase_encoding != other.phase_encoding:
        return True
    if one.readout_s is None or other.readout_s is None:
        return False
    return abs(one.readout_s - other.readout_s) > MOST_APART_SHARE * max(one.readout_s, other.readout_s)


def _warp(run: RunFiles) -> str:
    if run.phase_encoding is None:
        return "phase encoding unknown"
    readout = "" if run.readout_s is None else f", readout {run.readout_s:g} s"
    return f"phase encoding {run.phase_encoding}{readout}"


def _same_series(
    part: Sequence[RunFiles], chosen: Sequence[RunFiles], series: Sequence[Sequence[RunFiles]]
) -> bool:
    return any(part[0] in runs and chosen[0] in runs for runs in series)


def _too_many(label: str, best: Sequence[Sequence[RunFiles]], most: int) -> str:
    names = ", ".join(part[0].dwi.name for part in best)
    first, *rest = best
    warped = any(
        part[0].direction != first[0].direction
        or (None not in (part[0].phase_encoding, first[0].phase_encoding) and _differ(part[0], first[0]))
        for part in rest
    )
    cure = (
        "they are warped differently: let FSL's topup or QSIPrep join them and give its derivative, or "
        "keep one"
        if warped
        else "keep one"
    )
    return f"{label}: {len(best)} series with {most} diffusion-weighted volumes each ({names}); {cure}"


def _check_b0_series(label: str, path: Path, weighted: int) -> None:
    """Refuse an image without a table that is too long for a few b0s: its table was lost."""
    shape = shape_of(path)
    if shape is None:
        raise DataError(f"{label}: {path.name}: not a whole NIfTI image, and it has no gradient table")
    volumes = int(np.prod(shape[3:]))
    if 2 * volumes > max(weighted, 2):
        stem = path.name[: path.name.lower().index(".nii")]
        raise DataError(
            f"{label}: {stem}.bval is missing beside {path.name}; its {volumes} volumes are too many for "
            "b0s alone"
        )
