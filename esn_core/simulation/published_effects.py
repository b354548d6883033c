"""Where epilepsy is known to leave its mark: published effects on regions, for a simulated network to prefer.

Cohen's d of 2,149 people with epilepsy of all kinds against 1,727 controls, cortical thickness and
subcortical volume (Whelan et al. 2018, Brain 141:391, ENIGMA-Epilepsy). They are of grey matter, mostly in
adults, and no measure of connections or of severity: a simulation borrows from them which regions are
affected, and nothing else.
"""

import csv
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas
from esn_core.errors import ConfigError

TABLE = Path(__file__).with_name("enigma-epilepsy.tsv")
ATLAS = "desikan-killiany-83"

SMALLEST_DAMAGE = 0.02
"""Of a region that epilepsy leaves as it is, or thickens: it may still be in a network, seldom."""


@cache
def published_effects() -> dict[str, float]:
    """Return Cohen's d by region of desikan-killiany-83; the brainstem has none."""
    with TABLE.open(encoding="utf-8") as table:
        return {row["region"]: float(row["cohen_d"]) for row in csv.DictReader(table, delimiter="\t")}


def damage(atlas: Atlas) -> NDArray[np.float64]:
    """Return how much each region is reduced, in standard deviations: (R,), positive.

    A region without a published effect counts as the mean of the others.

    Raises
    ------
    ConfigError
        The effects are of another atlas's regions.

    """
    if atlas.name != ATLAS:
        raise ConfigError(f"published effects of epilepsy are of the regions of {ATLAS}, not of {atlas.name}")
    effects = published_effects()
    known = {name: max(-d, SMALLEST_DAMAGE) for name, d in effects.items()}
    middle = float(np.mean(list(known.values())))
    return np.array([known.get(name, middle) for name in atlas.names])
