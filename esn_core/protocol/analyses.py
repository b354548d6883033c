"""What a protocol asks beyond the severity network and its prediction, each item priced on its own."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StrictBool, model_validator

from esn_core.protocol.data_dictionary import Column
from esn_core.protocol.newer_settings import NewIn
from esn_core.system.toml_file import Table

SEVERITIES = ("gase", "predicted_gase")
Declarable = Literal["cohort", "explanation", "network", "neurocognition"]
"""An analysis whose sums a protocol may declare exact."""

MOST_PREDICTORS = 12
"""Of one model. A logistic model wants ten children with the impairment for each (Peduzzi et al. 1996); a sum
holds the square of their number for every model."""

DRAWS_AT_ONCE = 20
"""So many draws of the exact network leave in one sum."""


class Outcome(Table):
    """A neurocognitive impairment: a standard score below a cut-off."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    column: Column
    impaired_below: float = Field(ge=-1e6, le=1e6)
    """In units of the score, and inside the range of its column, which has the same limits."""


class Comparison(Table):
    """One comparison of predicted with clinical severity."""

    outcome: str = Field(max_length=31)
    """Name of the impairment."""
    others: tuple[Column, ...] = Field(default=(), max_length=MOST_PREDICTORS)
    """What both models hold besides the severity."""


class NeurocognitionRules(Table):
    """Whether the predicted severity explains impairment better than the clinical one."""

    outcomes: tuple[Outcome, ...] = Field(min_length=1, max_length=6)
    """Every model is fitted to each: the noise of all sums grows with the root of their number."""
    models: tuple[Annotated[tuple[Column, ...], Field(max_length=MOST_PREDICTORS)], ...] = Field(
        min_length=1, max_length=20
    )
    """Predictors of each model, the intercept left out: columns of participants.tsv, 'gase' and
    'predicted_gase'. Every model is fitted to every outcome: twenty are 120 fits and as many histograms in
    one sum."""
    rounds: int = Field(ge=2, le=30)
    """Newton steps; all models take them together. A fit that needs more than thirty does not converge."""
    primary: Annotated[Comparison | None, NewIn(2)] = None
    """The comparison that the study was planned for: it is tested at 5 % by itself, and all others share
    another 5 % by Holm's method. Without one, all of them share 5 %."""
    called_impaired_from: Annotated[float | None, Field(gt=0, lt=1), NewIn(2)] = None
    """Probability from which a child would be called impaired, a multiple of .05; None: no such rule is
    intended, and the report shows every threshold."""

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        outcomes = Counter(outcome.name for outcome in self.outcomes)
        models = Counter(frozenset(model) for model in self.models)
        said = [f"the outcome {name} is listed twice" for name, times in outcomes.items() if times > 1]
        said += [
            f"the model {' + '.join(sorted(model))} is listed twice" for model, n in models.items() if n > 1
        ]
        said += [
            f"the model {' + '.join(model)} lists a predictor twice"
            for model in self.models
            if len(set(model)) < len(model)
        ]
        if not all(self.models):
            said.append("a model has one predictor or more")
        threshold = self.called_impaired_from
        # Sums are kept by twentieths of the probability.
        if threshold is not None and abs(20 * threshold - round(20 * threshold)) > 1e-9:
            said.append(f"'called_impaired_from' is a multiple of 0.05, not {threshold:g}")
        if self.primary is not None:
            said += self._faults_of(self.primary)
        if said:
            raise ValueError("; ".join(said))
        return self

    def _faults_of(self, primary: Comparison) -> Iterator[str]:
        """Say what a primary comparison needs that is not there."""
        if primary.outcome not in {outcome.name for outcome in self.outcomes}:
            yield f"the primary comparison is of '{primary.outcome}', which is no outcome"
        models = {frozenset(model) for model in self.models}
        for severity in SEVERITIES:
            needed = frozenset((severity, *primary.others))
            if needed not in models:
                yield f"the primary comparison needs the model {' + '.join(sorted(needed))}"


class NetworkRules(Table):
    """The severity network as the paper selects it: exact partial correlations given age, sex and site."""

    t_threshold: float = Field(gt=0, le=20)
    """An edge of larger t, in size, belongs to a component of the network-based statistic. Beyond 20 no edge
    of a few hundred children lies."""
    null_draws: int = Field(ge=0, le=5000)
    """Draws of the largest component without an effect; 0: components have no p. Five thousand tell a p of
    .05 to ± .006, and need as many children."""
    bootstrap_draws: int = Field(ge=0, le=5000)
    """Draws of the network as other children would have given it; 0: edges have no frequency. As many as of
    the null at most."""
    minimum_children: int = Field(ge=3, le=1000)
    """A site with fewer training children takes no part. All draws together have to be fewer than the
    children that this promises: no linear algebra on fewer sums than children ends at a child. A thousand
    training children are more than any hospital of this study's kind has."""

    @property
    def releases(self) -> tuple[int, int]:
        """How many sums hold the draws of the null, and how many those of the bootstrap."""
        return math.ceil(self.null_draws / DRAWS_AT_ONCE), math.ceil(self.bootstrap_draws / DRAWS_AT_ONCE)

    def too_many_draws(self, sites: int) -> str | None:
        """Say in words why the draws may not be asked of so many honest sites; None: they may."""
        leave = DRAWS_AT_ONCE * sum(self.releases)
        # Of so many children, each site's mean is not there, nor what goes with severity, age and sex.
        allowed = sites * (self.minimum_children - 1) - 3
        if leave < allowed:
            return None
        return (
            f"the network's draws leave as {leave}, in sums of {DRAWS_AT_ONCE}; {sites} sites of "
            f"{self.minimum_children} training children or more, those that may collude left out, allow "
            f"{allowed - 1}"
        )


class Analyses(Table):
    """Table ``[analyses]``; what it leaves out is not asked."""

    cohort: StrictBool = False
    """Age and sex of training children and controls, and how many were left out, by reason."""
    cross_site: StrictBool = False
    """Leave one site out: select and calibrate without it, evaluate on its held-out children."""
    folds: int = Field(default=0, ge=0, le=20)
    """Cross-validation of the training children in so many parts; 0 asks for none. Each part more is a block
    of the sums of all reruns, and noise on the others."""
    random_scores: int = Field(default=0, ge=0, le=20)
    """So many runs with scores drawn at random, which show what r is worth by chance. A block each, as the
    parts are."""
    subgroups: Annotated[StrictBool, NewIn(2)] = False
    """How the prediction does by sex and by age. Never exact: a group may be a few children of one site."""
    explanation: StrictBool = False
    """What each edge contributes to the held-out children's predictions."""
    network: NetworkRules | None = None
    """The exact network, its components and its stability. Never private: it has to stand in 'exact'."""
    neurocognition: NeurocognitionRules | None = None
    exact: tuple[Declarable, ...] = Field(default=(), max_length=len(get_args(Declarable)))
    """Analyses whose sums leave without noise: they have no epsilon, and every site has to consent."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        said = []
        if self.folds == 1:
            said.append("cross-validation needs two parts or more, or none")
        asked = {
            "cohort": self.cohort,
            "explanation": self.explanation,
            "network": self.network is not None,
            "neurocognition": self.neurocognition is not None,
        }
        said += [f"'{name}' is declared exact and not asked" for name in self.exact if not asked[name]]
        if self.network is not None and "network" not in self.exact:
            said.append(
                "'network' needs to be declared exact: its sums are centred at each site's children, so no "
                "noise of bounded size would protect a child"
            )
        if said:
            raise ValueError("; ".join(said))
        return self
