"""GASE, the clinical score of severity: its seven levels, and its public standardisation.

Severity is standardised with public numbers: y = (GASE - 4) / 1.5.
"""

import numpy as np
from numpy.typing import NDArray

GASE_LEVELS = (1, 2, 3, 4, 5, 6, 7)

GASE_MIDDLE = 4.0

GASE_UNIT = 1.5

SEVERITY_CLIP = 2.0
"""Largest standardised severity: GASE 1 and 7 lie exactly there."""

HALF_RANGE = 3.0
"""Steps of GASE from the middle of the scale to its ends."""


def standardise_severity(gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return y = (GASE - 4) / 1.5, clipped to [-2, 2]."""
    return np.clip((gase - GASE_MIDDLE) / GASE_UNIT, -SEVERITY_CLIP, SEVERITY_CLIP)
