"""A study at this site: an approved protocol and the site's children for it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from esn_client.answers.training import Device
from esn_client.cohort.cohort import Cohort, Split
from esn_core.connectome.atlas import Atlas
from esn_core.gase import GASE_MIDDLE, GASE_UNIT
from esn_core.learning.severity_model import Connectomes, as_matrices
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.candidates import Candidates
from esn_core.severity_network.selection import masked_input
from esn_core.statistics.recalibration import PREDICTION_CLIP


@dataclass(frozen=True)
class Study:
    """One approved protocol and the site's children for it.

    Attributes
    ----------
    site : str
    protocol : Protocol
    cohort : Cohort
    device : Device
        Where the model runs.

    """

    site: str
    protocol: Protocol
    cohort: Cohort
    device: Device

    @cached_property
    def atlas(self) -> Atlas:
        """The atlas of the protocol."""
        return self.protocol.atlas

    @cached_property
    def candidates(self) -> Candidates:
        """The edges that may belong to the severity network: a question has so many weights."""
        return self.protocol.candidates

    def inputs(self, split: Split, edge_weights: NDArray[np.float64]) -> Connectomes:
        """Return the model's inputs for the (n) children of a split, given (d,) weights of the candidates."""
        edges = self.candidates.edges
        values = masked_input(split.scores[:, edges], edge_weights)
        return as_matrices(values, edges, ends=self.atlas.edges, regions=len(self.atlas.regions))


def calibrated(raw: NDArray[np.float64], calibration: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n,) predicted GASE of raw predictions, given intercept and slope."""
    intercept, slope = calibration
    # What overflows is the end of the scale, or not finite and left to the gate.
    with np.errstate(over="ignore", invalid="ignore"):
        gase: NDArray[np.float64] = GASE_MIDDLE + GASE_UNIT * (
            intercept + slope * np.clip(raw, -PREDICTION_CLIP, PREDICTION_CLIP)
        )
    return gase
