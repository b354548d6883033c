"""One child's prediction: GASE with its interval, risks, what drives it, and how unlike the study it is."""

from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from esn_client.answers.study import calibrated
from esn_client.cohort.participants import Participant
from esn_client.cohort.scoring import People, Visits, by_controls, mean_over_visits, scoring
from esn_client.cohort.strata import judges, stratum_of
from esn_client.prediction.children import NO_AGES, Child, ages_of
from esn_client.prediction.findings import Driver, OwnPrediction, Prediction, Risk, Unlike
from esn_core.arrays import Floats
from esn_core.connectome.own_controls import FEWEST_CONTROLS, ControlReference
from esn_core.errors import ConfigError
from esn_core.gase import GASE_LEVELS, GASE_UNIT
from esn_core.learning.attribution import attributions
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.protocol.analyses import SEVERITIES
from esn_core.protocol.protocol import Protocol
from esn_core.released_model.archive import ReleasedModel
from esn_core.released_model.content import RiskModel
from esn_core.severity_network.selection import masked_input

CLINICAL, PREDICTED = SEVERITIES
_UNUSUAL, _UNLIKE = 2.0, 3.0

Score = Callable[[Participant, Visits], Floats]
Personal = Callable[[Floats], OwnPrediction]
"""What a hospital's personal model says of one child's (d,) candidate scores."""


class Predictor:
    """A released model at one hospital.

    Parameters
    ----------
    model : ReleasedModel
    controls : sequence of participants with their visits
        The hospital's own, at least as many as the model needs.
    site : str or None
        This hospital's name in the study, if it took part.
    personal : callable or None
        Its personal model, if it has one.
    pooled : bool
        Whether children are scored by the pooled reference that the model carries; there are no `controls`.

    """

    def __init__(
        self,
        model: ReleasedModel,
        controls: People,
        *,
        site: str | None = None,
        personal: Personal | None = None,
        pooled: bool = False,
    ) -> None:
        self._model, self._controls, self._site, self._personal = model, controls, site, personal
        self._protocol, self._atlas = model.protocol, model.protocol.atlas
        self._network = model.numbers.network
        self._pooled = pooled_reference_of(model) if pooled else None
        self._score: Score = (
            # Named by no protocol: own controls, whatever the study judged this hospital's children by.
            scoring(controls, self._protocol, site="this hospital")
            if self._pooled is None
            else by_controls(self._pooled)
        )
        self._spread_of_controls = _left_out(controls, self._protocol, self._network.edges, self._score)

    def prediction(self, child: Child) -> Prediction:
        """Predict one child."""
        content, edges = self._model.content, self._network.edges
        scores = self._score(child.participant, child.visits)[edges]
        values = masked_input(scores[None], self._network.weight)
        predicted, baseline = (self._gase(given) for given in (values, np.zeros_like(values)))
        share = attributions(
            self._model.numbers.model,
            values,
            edges,
            ends=self._atlas.edges,
            regions=len(self._atlas.regions),
        )[0] * (content.calibration[1] * GASE_UNIT)
        return Prediction(
            participant=child.participant.label,
            visits=len(child.visits),
            model_sha256=content.sha256,
            study=content.study,
            simulated_study=content.simulated,
            controls=int(self._judges(child).sum()),
            pooled_reference=self._pooled is not None,
            predicted_gase=predicted,
            interval=content.error.interval(predicted),
            personal=None if self._personal is None else self._personal(scores),
            baseline_gase=baseline,
            risks=tuple(self._risk(risk, predicted, child) for risk in _shown(content.risks)),
            unlike=self._unlike(child, scores, predicted),
            drivers=self._drivers(share, scores),
            quality="not measured" if child.quality == "fail" else child.quality,
            notes=tuple(self._notes(child)),
            made=version("esn-federated"),
        )

    def _judges(self, child: Child) -> NDArray[np.bool_]:
        """Tell which of the own controls judge a child."""
        minimum = self._protocol.cohort.minimum_controls
        return judges(child.participant, [who for who, _ in self._controls], minimum=minimum)

    def _gase(self, values: Floats) -> float:
        matrices = as_matrices(
            values, self._network.edges, ends=self._atlas.edges, regions=len(self._atlas.regions)
        )
        raw = predict(self._model.numbers.model, matrices)
        found = float(calibrated(raw, self._model.numbers.calibration)[0])
        return min(max(found, float(GASE_LEVELS[0])), float(GASE_LEVELS[-1]))

    def _risk(self, model: RiskModel, predicted: float, child: Child) -> Risk:
        values = [
            predicted if name == PREDICTED else child.values.get(name, np.nan) for name in model.predictors
        ]
        unknown = [name for name, value in zip(model.predictors, values, strict=True) if np.isnan(value)]
        found, why = None, None
        if unknown:
            why = f"{', '.join(unknown)} of the child is not known"
        else:
            found = model.risk(np.array(values))
            why = "the study's noise and numbers leave nothing of it" if found is None else None
        return Risk(
            outcome=model.outcome,
            impaired_below=model.impaired_below,
            column=model.column,
            predictors=model.predictors,
            risk=None if found is None else found[0],
            interval=None if found is None else found[1],
            not_shown=why,
        )

    def _unlike(self, child: Child, scores: Floats, predicted: float) -> Unlike:
        study = self._model.content.children
        z = _z(predicted, study.mean_prediction, study.sd_prediction)
        ages = ages_of(self._model)
        age_z = None if ages is None else _z(child.participant.age_years, *ages)
        spread, known = _spread(scores), self._spread_of_controls
        missing = float(
            np.mean([np.isnan(strengths[self._network.edges]).mean() for strengths in child.visits])
        )
        return Unlike(
            prediction_z=z,
            age_z=age_z,
            spread=spread,
            controls_spread=(min(known), max(known)) if known else None,
            missing_edges=missing,
            words=_in_words(z, age_z, spread, max(known, default=np.inf), missing),
        )

    def _drivers(self, share: Floats, scores: Floats) -> tuple[Driver, ...]:
        names, ends = self._atlas.names, self._atlas.edges[self._network.edges]
        order = np.argsort(-np.abs(share), kind="stable")
        return tuple(
            Driver(
                region_a=names[ends[i, 0]],
                region_b=names[ends[i, 1]],
                weight=float(share[i]),
                score=float(scores[i]),
            )
            for i in order
        )

    def _notes(self, child: Child) -> Sequence[str]:
        said = []
        if self._pooled is not None:
            said.append(
                f"Judged by the pooled controls of other hospitals ({self._pooled.controls} people), not by "
                "own ones: the ranking of such predictions is usable, and the absolute score may be off by "
                "half a step beyond the interval."
            )
        own_ways = {stratum_of(who) for who, _ in self._controls}
        if len(own_ways) > 1 and self._judges(child).all():
            said.append(
                "All own controls judge this child, though they were not scanned alike: how the child was "
                "scanned is not in the table, or too few controls were scanned so."
            )
        if self._model.content.simulated:
            said.append("The model was trained on simulated children; it knows no real child.")
        if self._site in self._model.content.sites:
            held_out = self._protocol.cohort.holds_out(child.participant.label, site=str(self._site))
            which = "held out" if held_out else "trained on"
            said.append(
                f"This hospital took part in the study. If this child did, it was among those {which}: "
                + ("the prediction is of a new child all the same." if held_out else "it is no new child.")
            )
        if child.quality == "warn":
            said.append("The scan's quality asks for a look.")
        return said


def pooled_reference_of(model: ReleasedModel) -> ControlReference:
    """Return the pooled reference that a model carries; `ConfigError` where its study had none."""
    found = model.protocol.pooled_reference
    if found is None:
        raise ConfigError(
            f"the model of {model.content.study} carries no pooled reference: the study's sites did not pool "
            "their controls; prepare three own controls or more"
        )
    return found


def _shown(risks: Sequence[RiskModel]) -> list[RiskModel]:
    """Return the models that stand on the prediction, and need no clinical score."""
    return [risk for risk in risks if PREDICTED in risk.predictors and CLINICAL not in risk.predictors]


def _left_out(controls: People, protocol: Protocol, edges: NDArray[np.int64], score: Score) -> list[float]:
    """Return how far each own control's scores spread, by the others where enough of them are left."""
    if protocol.cohort.harmonisation != "site-controls" or len(controls) <= FEWEST_CONTROLS:
        return [_spread(score(person, visits)[edges]) for person, visits in controls]
    strengths, people = mean_over_visits([visits for _, visits in controls]), [who for who, _ in controls]
    found = []
    for i, own in enumerate(strengths):
        chosen = judges(people[i], people, minimum=protocol.cohort.minimum_controls)
        chosen[i] = chosen.sum() <= FEWEST_CONTROLS
        found.append(_spread(ControlReference.of_controls(strengths[chosen]).scores(own)[edges]))
    return found


def _spread(scores: Floats) -> float:
    return float(np.sqrt(np.mean(scores**2)))


def _z(value: float, mean: float | None, sd: float | None) -> float | None:
    return None if mean is None or not sd or np.isnan(value) else (value - mean) / sd


def _in_words(z: float | None, age_z: float | None, spread: float, largest: float, missing: float) -> str:
    said = []
    if z is None:
        said.append("The study released too little to say how usual this prediction is among its children.")
    else:
        how = "far from" if abs(z) > _UNLIKE else "unusual among" if abs(z) > _UNUSUAL else "usual among"
        said.append(f"The prediction is {how} those of the study's children ({_signed(z)} sd).")
    if spread > _UNUSUAL * largest:
        said.append(
            "The connections lie much further from the controls than any control does from the others: a "
            "large lesion, another scanner, or a fault of the scan."
        )
    if age_z is None:
        said.append(NO_AGES)
    elif abs(age_z) > _UNUSUAL:
        said.append(f"The age is unusual among the study's children ({_signed(age_z)} sd).")
    if missing > 0:
        said.append(f"{missing:.0%} of the candidate connections have no tissue, and count as unknown.")
    return " ".join(said)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
