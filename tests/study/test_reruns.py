"""Reruns against what pooled software computes when it leaves children out, or draws their scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from esn_client.answers import hospital as answers
from esn_client.answers.study import Study
from esn_core.analyses.reruns import parts_of, random_scores, reruns_of
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template
from esn_core.gase import standardise_severity
from esn_core.learning.attribution import attributions
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import from_vector, pretrained
from esn_core.privacy.release import clip_rows
from esn_core.protocol.rules import CohortRules
from esn_core.severity_network.association import association_rows
from esn_core.severity_network.candidates import candidates_of
from esn_core.severity_network.selection import masked_input
from esn_core.statistics.recalibration import affine, calibration_rows
from esn_core.transcript.arguments import Arguments

ANALYSES = {"cross_site": True, "folds": 3, "random_scores": 2, "explanation": True}
SHARES = {
    "centre": 0.05,
    "association": 0.45,
    "gradient": 0.1,
    "calibration": 0.1,
    "rerun-association": 0.2,
    "rerun-calibration": 0.05,
    "fold-evaluation": 0.05,
    "evaluation": 0.5,
    "rerun-evaluation": 0.4,
    "attribution": 0.1,
}


@pytest.fixture
def asking_for(make_consortium):
    """A function that builds a consortium whose protocol asks for all reruns."""

    def make(**rules):
        return make_consortium(shares=SHARES, analyses=ANALYSES, **rules)

    return make


def pooled(consortium, *, trains, scores, mean):
    """Select and calibrate on the chosen training children of all sites; return a way to predict."""
    atlas, template = load_atlas("phantom-28"), load_template("phantom-28", simulated=True)
    candidates = candidates_of("template", atlas, template.present)
    chosen, gase = [], []
    for site, cohort in consortium.cohorts.items():
        keep = trains(site, cohort.training.participants)
        chosen.append(cohort.training.scores[keep])
        gase.append(scores(site, cohort.training)[keep])
    x, y = np.concatenate(chosen), np.concatenate(gase)
    total = association_rows(candidates.features(x), y, mean_severity=mean).sum(axis=0)
    network = candidates.network(total, children=float(len(y)), noise_sd=0.0)

    def raw(rows):
        values = masked_input(rows[:, candidates.edges], network.weight)
        model = pretrained(consortium.protocol.model.initial_weights)
        return predict(model, as_matrices(values, candidates.edges, ends=atlas.edges, regions=28))

    intercept, slope = affine(calibration_rows(raw(x), y).sum(axis=0), fewest_children=15.0, noise_sd=0.0)
    return lambda rows: np.clip(4 + 1.5 * (intercept + slope * np.clip(raw(rows), -2.5, 2.5)), 1, 7)


def true_scores(_site, split):
    return split.gase


def mean_severity(consortium):
    gase = np.concatenate([c.training.gase for c in consortium.cohorts.values()])
    return float(standardise_severity(gase).mean())


# The sums lie on a grid of 2^-39, which 200 steps of EM and a network carry further.
CLOSE = {"rel": 1e-6, "abs": 1e-6}


def test_leaving_a_site_out_equals_the_pooled_computation(asking_for):
    consortium = asking_for(exact=True)
    found = consortium.study().reruns
    predictions, truth = [], []
    for left_out, cohort in consortium.cohorts.items():
        say = pooled(
            consortium,
            trains=lambda site, labels, left_out=left_out: np.full(len(labels), site != left_out),
            scores=true_scores,
            mean=mean_severity(consortium),
        )
        said = say(cohort.held_out.scores)
        predictions.append(said)
        truth.append(cohort.held_out.gase)
        assert found.by_site[left_out].agreement.r == pytest.approx(
            stats.pearsonr(said, cohort.held_out.gase)[0], **CLOSE
        )
    r = stats.pearsonr(np.concatenate(predictions), np.concatenate(truth))[0]
    assert found.across_sites.agreement.r == pytest.approx(r, **CLOSE)
    assert found.across_sites.agreement.children == pytest.approx(24)


def test_random_scores_equal_the_pooled_computation_and_predict_nothing_like_the_truth(asking_for):
    consortium = asking_for(exact=True)
    findings = consortium.study()
    rules = consortium.protocol.cohort
    for draw, tested in enumerate(findings.reruns.random):

        def drawn(site, split, draw=draw):
            return random_scores(split.participants, site=site, rules=rules, draw=draw)

        say = pooled(
            consortium, trains=lambda _site, labels: np.full(len(labels), True), scores=drawn, mean=0.0
        )
        held = [(site, cohort.held_out) for site, cohort in consortium.cohorts.items()]
        said = np.concatenate([say(split.scores) for _, split in held])
        random = np.concatenate([drawn(site, split) for site, split in held])
        assert tested.agreement.r == pytest.approx(stats.pearsonr(said, random)[0], **CLOSE)
        assert abs(tested.agreement.r) < findings.agreement.r


def test_cross_validation_evaluates_every_training_child_once_by_a_network_without_it(asking_for):
    consortium = asking_for(exact=True)
    found = consortium.study().reruns.across_parts.agreement
    rules = consortium.protocol.cohort
    predictions, truth = [], []
    for part in range(3):
        say = pooled(
            consortium,
            trains=lambda site, labels, part=part: parts_of(labels, site=site, rules=rules, parts=3) != part,
            scores=true_scores,
            mean=mean_severity(consortium),
        )
        for site, cohort in consortium.cohorts.items():
            split = cohort.training
            mine = parts_of(split.participants, site=site, rules=rules, parts=3) == part
            if mine.any():
                predictions.append(say(split.scores[mine]))
                truth.append(split.gase[mine])
    r = stats.pearsonr(np.concatenate(predictions), np.concatenate(truth))[0]
    assert found.r == pytest.approx(r, **CLOSE)
    assert found.children == pytest.approx(sum(len(t) for t in truth))


@pytest.mark.parametrize("trust", ["local", "secure-sum"])
def test_reruns_are_inside_the_budget(asking_for, trust):
    consortium = asking_for(trust=trust)
    findings = consortium.study()
    assert findings.price.epsilon("training") == pytest.approx(8.0, rel=1e-9)
    for ledger in consortium.ledgers.values():
        spent = max(s.epsilon(1e-3) for s in set(ledger.spent().values()))
        assert spent == pytest.approx(8.0, rel=1e-9)
    assert len(findings.reruns.random) == 2
    # Of a single site's children noise would leave nothing: they are summed.
    assert findings.reruns.by_site == {}
    assert findings.reruns.across_sites is not None


def test_attributions_equal_those_of_the_pooled_children(asking_for):
    consortium = asking_for(exact=True)
    findings = consortium.study()
    atlas, edges = load_atlas("phantom-28"), findings.network.edges
    held = np.concatenate([cohort.held_out.scores for cohort in consortium.cohorts.values()])
    each = attributions(
        from_vector(findings.weights),
        masked_input(held[:, edges], findings.network.weight),
        edges,
        ends=atlas.edges,
        regions=28,
    )
    slope = findings.calibration[1]
    expected = 1.5 * clip_rows(each * slope, 1.0).mean(axis=0)
    assert findings.attribution.mean == pytest.approx(expected, abs=1e-10)
    assert findings.attribution.noise_sd == 0


def test_no_childs_row_exceeds_the_bound_and_each_depends_on_that_child_alone(asking_for):
    consortium = asking_for(exact=True)
    protocol, cohort = consortium.protocol, consortium.cohorts["north"]
    study = Study("north", protocol, cohort, "cpu")
    fewer = type(cohort)(
        type(cohort.training)(
            cohort.training.participants[1:], cohort.training.scores[1:], cohort.training.gase[1:]
        ),
        cohort.held_out,
        cohort.controls,
    )
    width, reruns = len(study.candidates.edges), len(reruns_of(protocol))
    given_arrays = {
        "rerun-association": {"mean_severity": np.array([0.3])},
        "rerun-calibration": {"edge_weights": np.ones(width * reruns)},
        "rerun-evaluation": {
            "edge_weights": np.ones(width * reruns),
            "calibration": np.tile([0.0, 1.0], reruns),
        },
        "fold-evaluation": {
            "edge_weights": np.ones(width * reruns),
            "calibration": np.tile([0.0, 1.0], reruns),
        },
    }
    for phase, arrays in given_arrays.items():
        asked = Arguments(phase, arrays)
        rows = answers.rows_of(asked, study)
        assert (np.linalg.norm(rows.values, axis=1) <= rows.kind.l2_bound * (1 + 1e-12)).all(), phase
        without = answers.rows_of(asked, Study("north", protocol, fewer, "cpu"))
        kept = rows.values[1:] if rows.kind.children == "training" else rows.values
        assert np.array_equal(without.values, kept), phase


@given(
    label=st.from_regex(r"sub-[0-9]{1,6}", fullmatch=True),
    site=st.sampled_from(["north", "south"]),
    parts=st.integers(2, 10),
)
def test_a_childs_part_and_score_depend_on_its_own_label(label, site, parts):
    rules = CohortRules(held_out_fraction=0.3, split_salt="s", minimum_children=5)
    others = ("sub-x1", label, "sub-x2")
    assert parts_of(others, site=site, rules=rules, parts=parts)[1] == parts_of(
        (label,), site=site, rules=rules, parts=parts
    )
    (score,) = random_scores((label,), site=site, rules=rules, draw=0)
    assert score in range(1, 8)
    assert 0 <= parts_of((label,), site=site, rules=rules, parts=parts)[0] < parts


def test_random_scores_are_spread_like_severities():
    rules = CohortRules(held_out_fraction=0.3, split_salt="s", minimum_children=5)
    labels = [f"sub-{i}" for i in range(4000)]
    first, second = (random_scores(labels, site="north", rules=rules, draw=draw) for draw in (0, 1))
    assert first.mean() == pytest.approx(4.0, abs=0.1)
    assert first.std() == pytest.approx(1.47, abs=0.1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06
