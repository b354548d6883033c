"""The strongest prediction that a hospital makes by itself: the best of three, by its own cross-validation.

What a federation has to beat. The three are the hospital's own severity network, as in its personal model
without partners (`esn_core.learning.personal_model`), ridge, and CPM; all of them on the study's candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.gase import standardise_severity
from esn_core.learning.baselines.predictors import Cpm, EdgeRidge, Fitted, Predictor, correlation
from esn_core.learning.personal_model import FEWEST_CHILDREN, Reader, fit, folds
from esn_core.severity_network.candidates import Candidates


@dataclass(frozen=True)
class Alone:
    """What a hospital has by itself.

    Attributes
    ----------
    name : str
        Of the way that its cross-validation chose.
    fitted : callable
        Predicts (m,) GASE from (m, E) edge scores.

    """

    name: str
    fitted: Fitted


def strongest_alone(
    scores: Floats, gase: Floats, controls: Floats, *, candidates: Candidates, reader: Reader | None
) -> Alone:
    """Fit each way on a hospital's own children, and return the best of them.

    Parameters
    ----------
    scores : (n, E) float64
        Of its training children.
    gase : (n,) float64
    controls : (m, E) float64
        Of its controls, by the same reference.
    candidates : Candidates
    reader : callable or None
        The pre-trained network; None: the weighted sum alone.

    """
    edges = candidates.edges
    own, judged = scores[:, edges], []
    if len(gase) >= FEWEST_CHILDREN:
        model = fit(own, gase, controls[:, edges], blocks=candidates.blocks, others=None, reader=reader)
        network = Alone("own severity network", lambda rows: model.predict(rows[:, edges], reader))
        judged.append((_r(model.own_reading, gase), network))
    for way in (EdgeRidge(name="ridge"), Cpm()):
        judged.append((_r(_out_of_fold(way, own, gase), gase), _fitted(way, own, gase, edges)))
    return max(judged, key=lambda each: each[0])[1]


def _fitted(way: Predictor, own: Floats, gase: Floats, edges: NDArray[np.int64]) -> Alone:
    fitted = way.fit(own, gase, rng=np.random.default_rng(0))  # neither way draws
    return Alone(way.name, lambda rows: fitted(rows[:, edges]))


def _out_of_fold(way: Predictor, own: Floats, gase: Floats) -> Floats:
    said = np.empty(len(gase))
    for held in folds(standardise_severity(gase)):
        kept = np.setdiff1d(np.arange(len(gase)), held)
        said[held] = way.fit(own[kept], gase[kept], rng=np.random.default_rng(0))(own[held])
    return said


def _r(said: Floats, gase: Floats) -> float:
    """Correlate; a prediction that does not vary is worth less than any other."""
    r = correlation(said, gase)
    return -np.inf if r is None else r
