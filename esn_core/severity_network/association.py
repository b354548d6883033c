"""Edge by severity: the two releases that the severity network is selected from.

Each with its bound and the proof of it, its rows, and the reading of its sum; that of the association's sum
is `esn_core.severity_network.candidates.Candidates.network`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from esn_core.gase import SEVERITY_CLIP, standardise_severity
from esn_core.privacy.release import ReleaseKind, clip_rows

CENTRE = ReleaseKind("centre", "training", 2, math.sqrt(1 + SEVERITY_CLIP**2))
"""Row (1, y); |y| <= 2, so its norm is at most sqrt(5)."""


def centre_rows(gase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 2) rows of `CENTRE`."""
    return np.column_stack([np.ones(len(gase)), standardise_severity(gase)])


def read_centre(total: NDArray[np.float64], *, fewest_children: float) -> tuple[float, float]:
    """Return the number of children and their mean standardised severity.

    Parameters
    ----------
    total : (2,) float64
        Sum of `centre_rows`, noise included.
    fewest_children : float
        A public lower bound on how many children were summed.

    Returns
    -------
    children, mean_severity : float
        The mean is held in [-1, 1]: noise can carry it further, children hardly.

    """
    children = max(float(total[0]), fewest_children)
    return children, float(np.clip(total[1] / children, -1, 1))


RESIDUAL_CLIP = 0.8
"""Largest distance of a standardised severity from its mean.

Noise grows with the clip, and what a child beyond it would have added does not:
0.8 gives more of the truth at every budget than 1.3 did (decision 0051)."""


def association_release(candidates: int) -> ReleaseKind:
    """Describe the association of `candidates` edges, or blocks of edges, with severity.

    Row: z (clipped to norm sqrt(candidates)) times y - mean (clipped to 0.8),
    so its norm is at most 0.8 sqrt(candidates).
    """
    return ReleaseKind("association", "training", candidates, RESIDUAL_CLIP * math.sqrt(candidates))


def association_rows(
    scores: NDArray[np.float64], gase: NDArray[np.float64], *, mean_severity: float
) -> NDArray[np.float64]:
    """Return the (n, d) rows of `association_release`.

    Parameters
    ----------
    scores : (n, d) float64
        Of the candidates (`esn_core.severity_network.candidates.Candidates.features`).
    gase : (n,) float64
    mean_severity : float
        Mean standardised severity, as released by the question before.

    """
    residual = np.clip(standardise_severity(gase) - mean_severity, -RESIDUAL_CLIP, RESIDUAL_CLIP)
    return rows_of_residuals(scores, residual)


def rows_of_residuals(scores: NDArray[np.float64], residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, d) rows of `association_release` for (n,) residuals within -0.8 and 0.8."""
    return clip_rows(scores, math.sqrt(scores.shape[1])) * residual[:, None]
