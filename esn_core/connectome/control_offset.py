"""Site offsets: what a scanner adds to every child's edge scores, from the site's own controls."""

import numpy as np
from numpy.typing import NDArray

SHRINKAGE_CONTROLS = 1.5
"""A site's mean over n controls is shrunk by n / (n + 1.5): three controls say more than 6 let them
(docs/benchmarks.md, "Whose mean and spread")."""
SHRINKAGE_CONTROLS_1 = 6.0
"""The same in protocols of format 1, whose meaning stays."""


def control_offset(
    scores: NDArray[np.float64], *, shrinkage_controls: float = SHRINKAGE_CONTROLS
) -> NDArray[np.float64]:
    """Estimate a site's offset from a public template; no patient enters it.

    Parameters
    ----------
    scores : (n, E) float64
        Edge z-scores of the site's n healthy controls against the public template.
    shrinkage_controls : float
        How many controls the template's own mean is worth.

    Returns
    -------
    (E,) float64
        To be subtracted from every child's scores at the site; zero without controls.

    """
    controls, edges = scores.shape
    if controls == 0:
        return np.zeros(edges)
    offset: NDArray[np.float64] = scores.mean(axis=0) * (controls / (controls + shrinkage_controls))
    return offset
