"""A hospital's personal model, on children whose network is known."""

import numpy as np
import pytest

from esn_core.errors import DataError
from esn_core.learning.personal_model import fit
from esn_core.learning.personal_network import OthersSum
from esn_core.severity_network.association import association_rows

EDGES, TRUE = 60, 20
BLOCKS = np.repeat(np.arange(6), 10)


def children(rng, n):
    """GASE and scores of n children, whose first twenty edges fall with severity."""
    gase = np.clip(np.rint(rng.normal(4, 1.4, n)), 1, 7)
    scores = rng.normal(size=(n, EDGES))
    scores[:, :TRUE] -= 0.35 * (gase[:, None] - 4) / 1.5
    return gase, scores


@pytest.fixture(scope="module")
def hospital():
    rng = np.random.default_rng(3)
    gase, scores = children(rng, 25)
    others_gase, others_scores = children(rng, 200)
    severity = (others_gase - 4) / 1.5
    total = association_rows(others_scores, others_gase, mean_severity=float(severity.mean())).sum(axis=0)
    return {
        "gase": gase,
        "scores": scores,
        "controls": rng.normal(size=(12, EDGES)),
        "others": OthersSum(total + rng.normal(0, 10.0, EDGES), 200.0, 10.0),
        "new": children(rng, 400),
    }


def fitted(hospital, *, others, reader=None, **changed):
    about = {**hospital, **changed}
    return fit(about["scores"], about["gase"], about["controls"], blocks=BLOCKS, others=others, reader=reader)


def r_of(hospital, model, reader=None):
    gase, scores = hospital["new"]
    return np.corrcoef(model.predict(scores, reader), gase)[0, 1]


def test_what_others_released_helps_and_noise_without_end_is_the_hospital_alone(hospital):
    alone = fitted(hospital, others=None)
    merged = fitted(hospital, others=hospital["others"])
    assert r_of(hospital, merged) > r_of(hospital, alone) + 0.02  # .775 and .741
    lost = OthersSum(hospital["others"].total, 200.0, 1e9)
    scores = hospital["new"][1]
    same = fitted(hospital, others=lost).predict(scores, None)
    assert same == pytest.approx(alone.predict(scores, None), abs=1e-5)


def test_a_prediction_is_on_the_scale_of_the_score(hospital):
    gase, scores = hospital["new"]
    said = fitted(hospital, others=hospital["others"]).predict(scores, None)
    assert said.min() >= 1
    assert said.max() <= 7
    # The line of GASE on what is said has about slope one: 25 children set it to a standard error of .15.
    assert np.polyfit(said, gase, 1)[0] == pytest.approx(1, abs=0.3)
    assert said.mean() == pytest.approx(gase.mean(), abs=0.5)


def test_a_childs_own_prediction_does_not_know_its_own_score(hospital):
    """Where nothing goes with severity, what is said of the children left out is worth nothing."""
    rng = np.random.default_rng(8)
    said = []
    for _ in range(20):
        gase, scores = children(rng, 25)
        nothing = fitted(hospital, others=None, gase=gase, scores=rng.permutation(scores))
        said.append(np.corrcoef(nothing.own_reading, gase)[0, 1])
    # A mean of twenty r of 25 children has a standard error of .05.
    assert abs(np.mean(said)) < 0.15


def test_the_network_is_read_beside_the_sum(hospital):
    def reader(inputs):
        return 3.0 * inputs.sum(axis=1) - 40.0  # a network that is the weighted sum, on another scale

    by_sum, by_both = (fitted(hospital, others=hospital["others"], reader=r) for r in (None, reader))
    scores = hospital["new"][1]
    # Weights of folds are scaled apart for the network, so that the two are close and not equal.
    assert by_both.predict(scores, reader) == pytest.approx(by_sum.predict(scores, None), abs=0.1)
    constant = fitted(hospital, others=None, reader=lambda inputs: np.zeros(len(inputs)))
    assert np.isfinite(constant.own_prediction).all()


def test_a_reading_against_its_own_direction_predicts_the_mean(hospital):
    gase = hospital["gase"]
    # What others found is the contrary of what is true here, and far more of them say so.
    contrary = OthersSum(-20 * hospital["others"].total, 4000.0, 1.0)
    model = fitted(hospital, others=contrary)
    assert model.calibration.slope == 0.0
    assert model.own_prediction == pytest.approx(np.full(25, 4 + 1.5 * np.mean((gase - 4) / 1.5)))


def test_too_few_children_are_refused(hospital):
    with pytest.raises(DataError, match="takes 10 training children, not 9"):
        fitted(hospital, others=None, gase=hospital["gase"][:9], scores=hospital["scores"][:9])
    with pytest.raises(DataError, match="two severities"):
        fitted(hospital, others=None, gase=np.full(25, 4.0))
