"""Susceptibility: whether anybody has undone the warp that air beside the brain leaves in an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from esn_client.imaging.bids.scans import RunFiles

State = Literal["corrected", "not corrected", "not said"]
SIDECAR_KEY = "SusceptibilityCorrected"
"""By which the sidecar of a preprocessed scan may say so, true or false."""
CORRECTS = ("topup",)
"""Programs that do nothing else: whoever names one of them in ``GeneratedBy`` has corrected."""
WHERE = "most at the temporal poles, below the frontal lobes and at the brainstem"


@dataclass(frozen=True)
class Susceptibility:
    """What is known of the warp.

    Attributes
    ----------
    state : 'corrected', 'not corrected' or 'not said'
    words : str
        A sentence without a full stop.
    unused : tuple of Path
        Images of reverse phase encoding by which it could be corrected.

    """

    state: State
    words: str
    unused: tuple[Path, ...] = ()


def judge_susceptibility(
    run: RunFiles, generators: Sequence[str] | None, *, reverse: Sequence[Path]
) -> Susceptibility:
    """Say whether a scan's warp was undone; this software does not undo it.

    Parameters
    ----------
    run : RunFiles
        The first of those that are used.
    generators : sequence of str or None
        The pipelines that preprocessed it; None for a raw scan.
    reverse : sequence of Path
        Images of the visit that were encoded the other way.

    Returns
    -------
    Susceptibility

    """
    along = "" if run.phase_encoding is None else f" along the image's axis {run.phase_encoding[0]}"
    left = f"tissue is squeezed and stretched{along}, {WHERE}"
    if generators is None:
        words = f"susceptibility was not corrected: {left}"
        if reverse:
            names = ", ".join(path.name for path in reverse)
            words += f"; {names} lies there unused, by which FSL's topup or QSIPrep can correct it"
        return Susceptibility("not corrected", words, tuple(reverse))
    by = generators[0]
    said = run.metadata.get(SIDECAR_KEY)
    if said is True or any(name in made.lower() for made in generators for name in CORRECTS):
        return Susceptibility("corrected", f"susceptibility was corrected by {by}")
    if said is False:
        return Susceptibility("not corrected", f"susceptibility was not corrected by {by}: {left}")
    return Susceptibility(
        "not said",
        f"{by} does not say whether susceptibility was corrected (its report does; without a fieldmap or a reverse-phase "
        f"image it was not, and {left})",
    )


def reversed_of(used: RunFiles, others: Sequence[RunFiles]) -> list[Path]:
    """Find the series that were encoded along the same axis the other way.

    Parameters
    ----------
    used : RunFiles
    others : sequence of RunFiles
        Left out.

    """
    if used.phase_encoding is None:
        return []
    axis = used.phase_encoding[0]
    return [
        run.dwi
        for run in others
        if run.phase_encoding is not None
        and run.phase_encoding[0] == axis
        and run.phase_encoding != used.phase_encoding
    ]
