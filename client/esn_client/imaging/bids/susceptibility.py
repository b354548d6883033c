"""Susceptibility: whether anybody has undone the warp that air beside the brain leaves in an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    metadata: Mapping[str, Any],
    generators: Sequence[str] | None,
    *,
    phase_encoding: str | None,
    reverse: Sequence[Path],
) -> Susceptibility:
    """Say whether a scan's warp was undone; this software does not undo it.

    Parameters
    ----------
    metadata : mapping
        Of the scan's sidecars.
    generators : sequence of str or None
        The pipelines that preprocessed it; None for a raw scan.
    phase_encoding : str or None
        As in ``j-``; None where unknown.
    reverse : sequence of Path
        Images of the visit that were encoded the other way.

    Returns
    -------
    Susceptibility

    """
    along = "" if phase_encoding is None else f" along the image's axis {phase_encoding[0]}"
    left = f"tissue is squeezed and stretched{along}, {WHERE}"
    if generators is None:
        words = f"susceptibility was not corrected: {left}"
        if reverse:
            names = ", ".join(path.name for path in reverse)
            words += f"; {names} lies there unused, by which FSL's topup or QSIPrep can correct it"
        return Susceptibility("not corrected", words, tuple(reverse))
    by, said = generators[0], metadata.get(SIDECAR_KEY)
    if said is True or any(name in made.lower() for made in generators for name in CORRECTS):
        return Susceptibility("corrected", f"susceptibility was corrected by {by}")
    if said is False:
        return Susceptibility("not corrected", f"susceptibility was not corrected by {by}: {left}")
    return Susceptibility(
        "not said",
        f"{by} does not say whether susceptibility was corrected (its report does); if it was not, {left}",
    )
