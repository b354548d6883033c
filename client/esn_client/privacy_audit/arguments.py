"""What a phase could be asked with before anything was released: public weights, all edges alike."""

import numpy as np

from esn_client.answers.study import Study
from esn_core.analyses.neurocognition import BINS, kinds_of
from esn_core.analyses.reruns import reruns_of
from esn_core.arrays import Floats
from esn_core.learning.weights import pretrained, to_vector
from esn_core.protocol.phases import PHASES, PhaseName
from esn_core.severity_network.bootstrap import Partial
from esn_core.severity_network.centring import numbers_of
from esn_core.statistics.combat import COVARIATES
from esn_core.transcript.arguments import Arguments


def arguments_of(phase: PhaseName, study: Study) -> Arguments:
    """Return the numbers of a phase's question; ComBat's shared model is one that changes little."""
    found = _of_phase(phase, study)
    if study.protocol.cohort.harmonisation == "combat" and PHASES[phase].harmonised:
        edges = len(study.candidates.edges)
        found["combat"] = np.concatenate([np.zeros((COVARIATES + 1) * edges), np.ones(edges)])
    return Arguments(phase, found)


def _of_phase(phase: PhaseName, study: Study) -> dict[str, Floats]:
    wanted = PHASES[phase].arrays
    if not wanted:
        return {}
    if "mean_severity" in wanted:
        return {"mean_severity": np.zeros(numbers_of(study.protocol.severity_network.centre))}
    if "partial" in wanted:
        edges = len(study.candidates.edges)
        nothing = Partial(np.zeros(edges), np.ones(edges), np.zeros((2, edges)), 1.0, np.zeros(2))
        return {"partial": nothing.vector}
    if "chosen" in wanted:
        return {"chosen": np.ones(len(study.atlas.edges))}
    reruns = 1 if "weights" in wanted else len(reruns_of(study.protocol))
    given = {
        "weights": to_vector(pretrained(study.protocol.model.initial_weights, study.protocol.own_weights)),
        "edge_weights": np.ones(len(study.candidates.edges) * reruns),
        "calibration": np.tile([0.0, 1.0], reruns),
    }
    if "coefficients" in wanted:
        kinds = kinds_of(study.protocol)
        given["coefficients"] = np.zeros(
            kinds.tracked_count if phase == "newton" else kinds.coefficient_count
        )
        given["histograms"] = np.ones(2 * BINS * len(kinds.models))
    return {name: given[name] for name in wanted}
