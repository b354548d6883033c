"""The phases of a study: one table of what each is about, which every part of the software reads.

To add a phase, add its name and its entry here, a function that makes its rows at a site
(`esn_client.answers.hospital`), and a function that reads their sum at the centre (`esn_server.study`).
The order of the table is that of a study.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from esn_core.privacy.release import People
from esn_core.protocol.analyses import Analyses, Declarable

PhaseName = Literal[
    "roll-call",
    "votes",
    "reference",
    "cohort",
    "combat",
    "centre",
    "association",
    "gradient",
    "local-update",
    "calibration",
    "evaluation",
    "subgroup-evaluation",
    "attribution",
    "rerun-association",
    "rerun-calibration",
    "rerun-evaluation",
    "fold-evaluation",
    "network",
    "network-null",
    "network-bootstrap",
    "linear",
    "newton",
    "comparison",
    "ranking",
]


@dataclass(frozen=True)
class Asked:
    """What decides which phases a protocol has.

    Attributes
    ----------
    training_rounds, local_steps : int
    combat : bool
    analyses : Analyses
    votes : bool
        Whether the sites vote on candidates, and nothing else is asked of anybody but controls.
    reference : bool
        Whether controls are pooled there, for sites without.

    """

    training_rounds: int
    local_steps: int
    combat: bool
    analyses: Analyses
    votes: bool = False
    reference: bool = False

    @property
    def tested(self) -> bool:
        """Whether there are reruns that held-out children evaluate."""
        return self.analyses.cross_site or self.analyses.random_scores > 0

    @property
    def reruns(self) -> bool:
        """Whether anything is selected and calibrated again."""
        return self.tested or self.analyses.folds > 0


@dataclass(frozen=True)
class Phase:
    """What there is to know about a phase.

    Attributes
    ----------
    leaves : str
        What leaves a site, in words that follow the phase's name.
    children : {'training', 'held-out', 'controls'} or None
        Whose data it touches; None where no sum over people leaves.
    releases : callable
        How many sums leave each site, 0 where the protocol does not ask for the phase.
    arrays : frozenset of str
        Names of the numbers that it is asked with, ComBat's shared model left out.
    share : float or None
        How much of the budget of its children a draft gives it, before what is not asked is left out.
        None where the sums never have noise.
    exact : {'always'} or str or None
        When its sums leave without noise in a study that has noise: always, where the protocol declares this
        analysis exact, or never.
    harmonised : bool
        Whether it comes after ComBat, so that in a study with ComBat it is asked with 'combat' as well.
    needs : frozenset of str
        Phases whose sums these arrays are computed from (`esn_core.transcript.course`); of its own, the
        rounds before. After ComBat, its sum as well.
    instead : str
        What to do where its sums would be exact, need others, and children are real: a site that answers
        falsely could choose which child they are about.

    """

    leaves: str
    children: People | None
    releases: Callable[[Asked], int]
    arrays: frozenset[str] = frozenset()
    share: float | None = None
    exact: Literal["always"] | Declarable | None = None
    harmonised: bool = True
    needs: frozenset[PhaseName] = frozenset()
    instead: str = ""


_NOISED_MODELS = "take 'neurocognition' out of 'exact', and the sums of its models have noise"
_NETWORK = frozenset({"weights", "edge_weights"})
_PREDICTION = _NETWORK | {"calibration"}
_MODELS = _PREDICTION | {"coefficients"}

_TRAINED: frozenset[PhaseName] = frozenset({"centre", "association", "gradient", "local-update"})
_CALIBRATED: frozenset[PhaseName] = _TRAINED | {"calibration"}
_RERUN: frozenset[PhaseName] = frozenset({"rerun-association", "rerun-calibration"})


def _once(_asked: Asked) -> int:
    return 1


def _draws(asked: Asked) -> tuple[int, int]:
    """Return how many sums hold draws of the exact network: of its null, and of its bootstrap."""
    return (0, 0) if asked.analyses.network is None else asked.analyses.network.releases


def _models(asked: Asked) -> int:
    return int(asked.analyses.neurocognition is not None)


def _newton_steps(asked: Asked) -> int:
    rules = asked.analyses.neurocognition
    return 0 if rules is None else rules.rounds


# The shares give most of the budget to finding the network: a prediction is no better than that.
PHASES: Mapping[PhaseName, Phase] = {
    "roll-call": Phase(
        leaves="readiness, versions and cohort band; no sum over children",
        children=None,
        releases=_once,
        harmonised=False,
    ),
    "votes": Phase(
        leaves="for each connection of the atlas, one vote: do 95 % of this site's controls have it?",
        children="controls",
        releases=lambda asked: int(asked.votes),
        # One vote of a site hangs on all of its controls at once.
        exact="always",
        harmonised=False,
    ),
    "reference": Phase(
        leaves="for each connection that was voted for: controls, their strengths, and the squares of these",
        children="controls",
        releases=lambda asked: int(asked.votes and asked.reference),
        arrays=frozenset({"chosen"}),
        needs=frozenset({"votes"}),
        # It becomes public beside the candidates; noise that hides a control would hide the mean.
        exact="always",
        harmonised=False,
    ),
    "cohort": Phase(
        leaves="numbers, sums of age and sex of children and controls; how many were left out, by reason",
        children="training",
        releases=lambda asked: int(asked.analyses.cohort),
        share=0.02,
        exact="cohort",
        harmonised=False,
    ),
    "combat": Phase(
        leaves="age, sex, severity and connections, their products and squares, about the site's means",
        children="training",
        releases=lambda asked: int(asked.combat),
        # Centred at the means of a site's children: no sum of rows of one child each.
        exact="always",
        harmonised=False,
    ),
    "centre": Phase(
        leaves="training children: their number and severity, or their number, and age and sex, at each GASE",
        children="training",
        releases=_once,
        share=0.05,
    ),
    "association": Phase(
        leaves="for each candidate connection, the sum of its strength times severity",
        children="training",
        releases=_once,
        arrays=frozenset({"mean_severity"}),
        needs=frozenset({"centre"}),
        share=0.70,
    ),
    "gradient": Phase(
        leaves="the sum of the children's clipped gradients, and of their clipped losses; one sum a round",
        children="training",
        releases=lambda asked: asked.training_rounds if asked.local_steps == 1 else 0,
        arrays=_NETWORK,
        needs=_TRAINED,
        share=0.10,
    ),
    "local-update": Phase(
        leaves="where several steps of training at a site lead, times its children; and their losses",
        children="training",
        releases=lambda asked: asked.training_rounds if asked.local_steps > 1 else 0,
        arrays=_NETWORK,
        needs=_TRAINED,
        # A site's update is no sum over children: no noise bounds what one of them does to it.
        exact="always",
    ),
    "calibration": Phase(
        leaves="five sums: children, predictions, their squares, severity, and products of the two",
        children="training",
        releases=_once,
        arrays=_NETWORK,
        needs=_TRAINED,
        share=0.15,
    ),
    "evaluation": Phase(
        leaves="number of held-out children, moments of predicted and clinical GASE, errors; also by GASE",
        children="held-out",
        releases=_once,
        arrays=_PREDICTION,
        needs=_CALIBRATED,
        share=1.0,
    ),
    "subgroup-evaluation": Phase(
        leaves="the sums of 'evaluation' by sex, and once more by age: below 6 years, to 11, from 12 on",
        children="held-out",
        releases=lambda asked: int(asked.analyses.subgroups),
        arrays=_PREDICTION,
        needs=_CALIBRATED,
        share=0.5,
    ),
    "attribution": Phase(
        leaves="for each candidate connection, what it adds to the held-out children's predictions",
        children="held-out",
        releases=lambda asked: int(asked.analyses.explanation),
        arrays=_PREDICTION,
        needs=_CALIBRATED,
        share=0.2,
        exact="explanation",
        instead="take 'explanation' out of 'exact', and its sums have noise",
    ),
    "rerun-association": Phase(
        leaves="the sums of 'association' without each site or part (a difference is one site's), and with "
        "random scores",
        children="training",
        releases=lambda asked: int(asked.reruns),
        arrays=frozenset({"mean_severity"}),
        needs=frozenset({"centre"}),
        share=0.45,
    ),
    "rerun-calibration": Phase(
        leaves="the sums of 'calibration' for each of these reruns",
        children="training",
        releases=lambda asked: int(asked.reruns),
        arrays=frozenset({"edge_weights"}),
        needs=frozenset({"rerun-association"}),
        share=0.10,
    ),
    "rerun-evaluation": Phase(
        leaves="the sums of 'evaluation' for each of these reruns; if exact, a site is seen by itself in one",
        children="held-out",
        releases=lambda asked: int(asked.tested),
        arrays=frozenset({"edge_weights", "calibration"}),
        needs=_RERUN,
        share=0.5,
    ),
    "fold-evaluation": Phase(
        leaves="the sums of 'evaluation' over the parts that the reruns left out",
        children="training",
        releases=lambda asked: int(asked.analyses.folds > 0),
        arrays=frozenset({"edge_weights", "calibration"}),
        needs=_RERUN,
        share=0.10,
    ),
    "network": Phase(
        leaves="for each candidate connection, its products with severity, age and sex about site means",
        children="training",
        releases=lambda asked: int(asked.analyses.network is not None),
        exact="always",
    ),
    "network-null": Phase(
        leaves="the products of 'network' with random numbers that a site draws in the place of severity",
        children="training",
        releases=lambda asked: _draws(asked)[0],
        exact="always",
    ),
    "network-bootstrap": Phase(
        leaves="what children add to each connection's correlation, weighed by random numbers of the site",
        children="training",
        releases=lambda asked: _draws(asked)[1],
        arrays=frozenset({"partial"}),
        needs=frozenset({"network"}),
        exact="always",
        instead="take bootstrap_draws = 0",
    ),
    "linear": Phase(
        leaves="for each linear model, products of predictors and score",
        children="held-out",
        releases=_models,
        arrays=_PREDICTION,
        needs=_CALIBRATED,
        share=0.2,
        exact="neurocognition",
        instead=_NOISED_MODELS,
    ),
    "newton": Phase(
        leaves="for each logistic model, its curvature, its slope and likelihood; if exact, at more places",
        children="held-out",
        releases=_newton_steps,
        arrays=_MODELS,
        needs=_CALIBRATED | {"newton"},
        share=0.8,
        exact="neurocognition",
        instead=_NOISED_MODELS,
    ),
    "comparison": Phase(
        leaves="histograms and calibration of each logistic model; how much better one is than its rival",
        children="held-out",
        releases=_models,
        arrays=_MODELS,
        needs=_CALIBRATED | {"newton"},
        share=0.2,
        exact="neurocognition",
        instead=_NOISED_MODELS,
    ),
    "ranking": Phase(
        leaves="DeLong's components of each outcome's models: how they rank children with an impairment",
        children="held-out",
        # DeLong's components have meaning without noise only.
        releases=lambda asked: int("neurocognition" in asked.analyses.exact),
        arrays=_MODELS | {"histograms"},
        needs=_CALIBRATED | {"newton", "comparison"},
        exact="always",
        instead=_NOISED_MODELS,
    ),
}


@dataclass(frozen=True)
class PlannedPhase:
    """A phase that a protocol contains.

    Attributes
    ----------
    phase : str
    children : {'training', 'held-out', 'controls'}
        Whose data it touches.
    releases : int
        How many sums leave each site.
    exact : bool
        Whether the protocol declares these sums exact, whatever protects the others.

    """

    phase: PhaseName
    children: People
    releases: int
    exact: bool = False


def planned_phases(asked: Asked) -> tuple[PlannedPhase, ...]:
    """Return the phases of a study in their order, the roll call left out."""
    return tuple(
        PlannedPhase(
            name,
            phase.children,
            phase.releases(asked),
            exact=phase.exact == "always" or phase.exact in asked.analyses.exact,
        )
        for name, phase in PHASES.items()
        if phase.children is not None
        and phase.releases(asked) > 0
        and (phase.children == "controls") == asked.votes
    )
