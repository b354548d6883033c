"""The phases of a study: what each question is about, and which children it touches."""

from dataclasses import dataclass
from typing import Literal

from esn_core.privacy.release import Children
from esn_core.protocol.analyses import Analyses

Phase = Literal[
    "roll-call",
    "cohort",
    "combat",
    "centre",
    "association",
    "network",
    "network-null",
    "network-bootstrap",
    "gradient",
    "local-update",
    "calibration",
    "evaluation",
    "attribution",
    "rerun-association",
    "rerun-calibration",
    "rerun-evaluation",
    "fold-evaluation",
    "linear",
    "newton",
    "comparison",
    "ranking",
]

BEFORE_COMBAT: frozenset[Phase] = frozenset({"roll-call", "cohort", "combat"})
"""Every later question of a study with ComBat carries what the sites share of it, as the array 'combat'."""


@dataclass(frozen=True)
class PlannedPhase:
    """A phase that a protocol contains.

    Attributes
    ----------
    phase : str
    children : {'training', 'held-out'}
        Whose data it touches.
    releases : int
        How many sums leave each site.
    exact : bool
        Whether the protocol declares these sums exact, whatever protects the others.

    """

    phase: Phase
    children: Children
    releases: int
    exact: bool = False


def planned_phases(
    *, training_rounds: int, local_steps: int, combat: bool, analyses: Analyses
) -> tuple[PlannedPhase, ...]:
    """Return the phases of a study in their order, the roll call left out."""
    local = local_steps > 1
    exact = analyses.exact
    plan = [
        PlannedPhase("cohort", "training", int(analyses.cohort), "cohort" in exact),
        # Centred at the means of a site's children: no sum of rows of one child each.
        PlannedPhase("combat", "training", int(combat), exact=True),
        PlannedPhase("centre", "training", 1),
        PlannedPhase("association", "training", 1),
        PlannedPhase("gradient", "training", 0 if local else training_rounds),
        # A site's update is no sum over children: no noise bounds what one of them does to it.
        PlannedPhase("local-update", "training", training_rounds if local else 0, exact=True),
        PlannedPhase("calibration", "training", 1),
        PlannedPhase("evaluation", "held-out", 1),
        PlannedPhase("attribution", "held-out", int(analyses.explanation), "explanation" in exact),
    ]
    tested = analyses.cross_site or analyses.random_scores > 0
    if tested or analyses.folds:
        plan += [
            PlannedPhase("rerun-association", "training", 1),
            PlannedPhase("rerun-calibration", "training", 1),
            PlannedPhase("rerun-evaluation", "held-out", int(tested)),
            PlannedPhase("fold-evaluation", "training", int(analyses.folds > 0)),
        ]
    if analyses.network is not None:
        null, bootstrap = analyses.network.releases
        plan += [
            PlannedPhase("network", "training", 1, exact=True),
            PlannedPhase("network-null", "training", null, exact=True),
            PlannedPhase("network-bootstrap", "training", bootstrap, exact=True),
        ]
    if analyses.neurocognition is not None:
        free = "neurocognition" in exact
        plan += [
            PlannedPhase("linear", "held-out", 1, free),
            PlannedPhase("newton", "held-out", analyses.neurocognition.rounds, free),
            PlannedPhase("comparison", "held-out", 1, free),
            # DeLong's components have meaning without noise only.
            PlannedPhase("ranking", "held-out", int(free), free),
        ]
    return tuple(phase for phase in plan if phase.releases)
