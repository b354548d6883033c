"""Few children, rare impairments, missing columns: each study ends in a report."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm

from esn_client.answers import neurocognition as answers
from esn_core.analyses.neurocognition import features_of, kinds_of, table_of
from esn_core.analyses.planned_sums import kind_of
from esn_core.errors import StudyError
from esn_core.protocol.analyses import Comparison
from esn_core.protocol.protocol import Protocol
from esn_core.transcript.arguments import Arguments
from esn_core.transcript.course import Course
from esn_core.transcript.released import Released
from esn_server.report.contests import contests_of
from esn_server.report.impairment_outcome import children_lost, summary_of
from esn_server.report.outcome import result_of
from esn_server.report.page import page_text
from esn_server.study.neurocognition import run_neurocognition

PHENOTYPES = {
    "age": {"kind": "number", "unit": "years", "range": (0, 20)},
    "sex": {"kind": "category", "codes": ("F", "M")},
    "medicines": {"kind": "number", "unit": "drugs", "range": (0, 5)},
    "verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
}
MODELS = (("gase",), ("predicted_gase",), ("gase", "predicted_gase"))
EIGHT = {
    "gase": [2, 3, 3, 4, 4, 5, 6, 7],
    "predicted_gase": [2.5, 3.6, 2.8, 5.1, 3.9, 4.6, 5.5, 6.1],
    "verbal_score": [100, 100, 100, 100, 100, 100, 70, 70],
}


@pytest.fixture
def models_of_columns(protocol_content, monkeypatch):
    """A function that runs all models over sites whose held-out children are given as columns."""

    def run(*sites, models=MODELS, noise_sd=0.0, rounds=18, seed=0):
        rules = {
            "rounds": rounds,
            "models": models,
            "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 85.0}],
        }
        exact = ["neurocognition"] if noise_sd == 0 else []
        content = {**protocol_content, "phenotypes": PHENOTYPES}
        content["analyses"] = {"neurocognition": rules, "exact": exact}
        if noise_sd:
            shares = content["privacy"]["shares"]
            shares = {**shares, "evaluation": 0.4, "linear": 0.1, "newton": 0.4, "comparison": 0.1}
            content["privacy"] = {**content["privacy"], "shares": shares}
        protocol = Protocol.model_validate(content)

        class Given(answers._Children):
            def __init__(self, question, columns):
                self.columns = {name: np.array(values, float) for name, values in columns.items()}
                self.participants = tuple(range(len(columns["gase"])))
                self.protocol, self.kinds = protocol, kinds_of(protocol)
                self.clip = answers.logit_clip(0.0 if noise_sd == 0 else 1.0)

        monkeypatch.setattr(answers, "_Children", Given)
        rng = np.random.default_rng(seed)

        course = Course(protocol)

        def ask(phase, round_=0, /):
            asked = Arguments(phase, course.of_models(phase, round_))
            rows = [getattr(answers, phase)(asked, columns) for columns in sites]
            kind = kind_of(phase, protocol)
            assert {(r.kind.name, r.kind.dimension) for r in rows} == {(kind.name, kind.dimension)}
            total = sum(r.values.sum(axis=0) for r in rows)
            sd = noise_sd[phase] if isinstance(noise_sd, dict) else noise_sd
            noised = total + rng.normal(0, sd, total.shape)
            return course.take(phase, round_, Released(noised, ("north", "south"), sd))

        return run_neurocognition(course, ask)

    return run


def halves(columns):
    """The same children at two sites."""
    return tuple({name: values[k::2] for name, values in columns.items()} for k in range(2))


def told(found, held_out=24.0, primary=None):
    return [summary_of(model, held_out) for model in found.models], contests_of(found, primary)


def test_one_separated_model_does_not_end_the_study(models_of_columns):
    found = models_of_columns(*halves(EIGHT))
    models, (contest,) = told(found, 8.0)
    # GASE tells the two impaired children from the others, and so do both severities together.
    assert [m.logistic.separated for m in found.models] == [True, True, True]
    assert all(m.coefficients and m.failed is None for m in models)
    assert "a tie" in contest.verdict
    assert contest.added_p == pytest.approx(1.0)
    assert "Vuong's test needs maxima" in contest.failed


def test_models_that_are_equal_in_twelve_separated_children_are_a_tie(models_of_columns):
    columns = {
        "gase": [1, 2, 2, 3, 3, 3, 5, 5, 6, 6, 7, 7],
        "predicted_gase": [2, 2.5, 3, 3.3, 3.6, 3.95, 4.05, 4.4, 4.8, 5.2, 5.6, 6],
        "verbal_score": [100.0] * 6 + [70.0] * 6,
    }
    _, (contest,) = told(models_of_columns(*halves(columns)), 12.0)
    assert contest.aic_difference == pytest.approx(0, abs=1e-9)
    assert (contest.vuong_z, contest.vuong_p) == (None, None)
    assert "a tie" in contest.verdict


def drawn(seed, n=24, cut=85.0, **more):
    """Children whose score follows their severity weakly; the first half of GASE's spread is measurement."""
    rng = np.random.default_rng(seed)
    severity = rng.normal(size=n)
    columns = {
        "gase": np.clip(np.rint(4 + 1.2 * severity), 1, 7),
        "predicted_gase": np.clip(4 + severity + 0.6 * rng.normal(size=n), 1, 7),
        "verbal_score": 100 - 6 * severity + 14 * rng.normal(size=n) + (85.0 - cut),
        "sex": rng.integers(0, 2, n).astype(float),
        "medicines": rng.integers(0, 5, n).astype(float),
    }
    return columns | {name: np.array(values, float) for name, values in more.items()}


@pytest.mark.parametrize("seed", range(6))
def test_a_rare_impairment_in_few_children_ends_in_a_result(models_of_columns, seed):
    found = models_of_columns(*halves(drawn(seed, cut=72.0)), models=(*MODELS, ("gase", "sex")))
    models, contests = told(found)
    assert len(models) == 4
    assert len(contests) == 1
    assert all(model.coefficients or model.failed for model in models)
    assert all(contest.verdict for contest in contests)


@pytest.mark.long
@pytest.mark.science
@pytest.mark.timeout(2400)
def test_a_hundred_whole_studies_of_few_children_and_a_rare_impairment_end_in_a_report(
    build_consortium, tmp_path, full_atlas
):
    # Three sites with eight held-out children each, one to three of all of whom are impaired, or none.
    cut = {"verbal": 70.0, "nonverbal": 75.0}
    outcomes = [{"name": n, "column": f"{n}_score", "impaired_below": below} for n, below in cut.items()]
    rules = {
        "rounds": 18,
        "models": (*MODELS, ("gase", "sex"), ("predicted_gase", "sex")),
        "outcomes": outcomes,
    }
    analyses = {"neurocognition": rules, "cohort": True, "exact": ["neurocognition", "cohort"]}
    phenotypes = PHENOTYPES | {"nonverbal_score": PHENOTYPES["verbal_score"]}
    events = []
    for seed in range(100):
        opened, directory = [], tmp_path / str(seed)
        directory.mkdir()
        consortium = build_consortium(
            directory,
            opened,
            exact=True,
            seed=seed,
            analyses=analyses,
            phenotypes=phenotypes,
        )
        findings = consortium.study()
        result = result_of(consortium.protocol, findings, run="r1", timing_s={})
        assert "Neurocognitive impairment" in page_text(result, full_atlas(consortium.protocol)), seed
        assert findings.left_out == {}, seed
        events += [model.impaired for model in result.neurocognition.models]
        for file in opened:
            file.close()
    known = [n for n in events if n is not None]
    assert len(events) == 1000
    assert np.mean(np.array(known) <= 4) > 0.5


def test_a_prediction_in_the_wrong_direction_gets_no_praise(models_of_columns):
    columns = drawn(1, n=300)
    noise = np.random.default_rng(2).normal(size=300)
    columns["predicted_gase"] = 8 - np.clip(4 + (100 - columns["verbal_score"]) / 10 + noise, 1, 7)
    _, (contest,) = told(models_of_columns(*halves(columns)), 300.0)
    assert contest.aic_difference < -20
    assert "runs the wrong way" in contest.verdict


def test_a_severity_that_separates_in_the_wrong_direction_is_told_so_and_has_no_sure_p(models_of_columns):
    columns = {
        "gase": [1, 7, 1, 7, 1, 7, 1, 7],
        "predicted_gase": [6, 5.4, 5.2, 5, 2.7, 2.5, 2.2, 2],
        "verbal_score": [100] * 4 + [70] * 4,
    }
    (_, predicted, both), (contest,) = told(models_of_columns(*halves(columns)), 8.0)
    assert "tells every one of these children apart" in contest.verdict
    assert "The predicted severity runs the wrong way" in contest.verdict
    # By chance alone four of eight children are told apart in 2 of 70 draws; chi-squared says .0009.
    assert (predicted.model_p, both.model_p, contest.added_p) == (None, None, None)
    assert "no likelihood-ratio test" in contest.failed
    # An area of 1 beside one of .5, from eight children: not .50 to .50, and no p of 1.
    low, high = contest.auc_difference_interval
    assert (contest.auc_difference, contest.auc_difference_p) == (pytest.approx(0.5), None)
    assert low < 0.1
    assert high > 0.75


def test_a_constant_prediction_is_refused_by_name_and_the_other_models_stand(models_of_columns):
    columns = drawn(2, n=60)
    columns["predicted_gase"] = 4 + 1e-5 * np.random.default_rng(0).normal(size=60)
    models, (contest,) = told(models_of_columns(*halves(columns)), 60.0)
    assert models[0].coefficients
    assert models[1].coefficients == []
    assert "predicted_gase hardly varies; leave it out" in models[1].failed
    assert "cannot be compared" in contest.verdict


def test_a_likelihood_that_is_no_maximum_and_models_of_other_children_are_not_compared(models_of_columns):
    narrow = {**EIGHT, "predicted_gase": [4 + (x - 4) / 100 for x in EIGHT["predicted_gase"]]}
    found = models_of_columns(*halves(narrow))
    (gase, predicted, _), _ = told(found, 8.0)
    # Eight children told apart by coefficients that no site answers at.
    assert [m.logistic.maximum for m in found.models[:2]] == [True, False]
    assert (predicted.log_likelihood, predicted.aic, predicted.bic) == (None, None, None)
    assert gase.aic == pytest.approx(4)
    columns = drawn(2, n=60)
    columns["predicted_gase"][0] = np.nan
    _, (contest,) = told(models_of_columns(*halves(columns)), 60.0)
    assert contest.aic_difference is None
    assert "one has 59 children, the other 60" in contest.verdict


def test_a_column_that_a_site_lacks_costs_only_the_models_that_have_it(models_of_columns):
    north, south = halves(drawn(3, n=80))
    south["medicines"] = np.full(40, np.nan)
    found = models_of_columns(
        north, south, models=(*MODELS, ("gase", "medicines"), ("predicted_gase", "medicines"))
    )
    models, (alone, beside) = told(found, 80.0)
    assert [model.children for model in models] == [80, 80, 80, 40, 40]
    assert [model.left_out for model in models] == [0, 0, 0, 40, 40]
    assert models[0].events_per_variable == min(models[0].impaired, 80 - models[0].impaired)
    # The rivals of a comparison have the same children.
    assert (alone.others, beside.others) == ([], ["medicines"])
    assert found.rivalries[1].vuong.children == pytest.approx(40)
    assert children_lost(found) == [
        "Models of verbal with medicines have 40 of 80 children: the others lack one of these."
    ]
    assert all(m.area_interval for m in found.models)


def test_the_children_that_a_column_costs_cannot_be_counted_under_noise(models_of_columns):
    models = (*MODELS, ("gase", "medicines"), ("predicted_gase", "medicines"))
    for chosen, said in ((MODELS, 0), (models, 1)):
        found = models_of_columns(*halves(drawn(3, n=80)), models=chosen, noise_sd=DRAFTED, rounds=6)
        assert len(children_lost(found)) == said
    assert "cannot be counted under the privacy noise" in children_lost(found)[0]


def test_expected_slope_and_calibration_in_the_large_are_their_formulas(models_of_columns):
    columns = drawn(6, n=200)
    models, _ = told(models_of_columns(*halves(columns)), 200.0)
    ill = (columns["verbal_score"] < 85).astype(float)
    fit = sm.Logit(ill, sm.add_constant(columns["gase"])).fit(disp=0, tol=1e-12)
    # van Houwelingen & le Cessie 1990: 1 - p / chi-squared; the apparent slope, 1, has Wald's error.
    half = norm.ppf(0.975) / abs(fit.tvalues[1])
    slope = 1 - 1 / fit.llr
    assert models[0].expected_slope.value == pytest.approx(slope, abs=1e-6)
    assert models[0].expected_slope.interval == pytest.approx((slope - half, slope + half), abs=1e-6)
    assert models[0].model_p == pytest.approx(fit.llr_pvalue, rel=1e-5)
    p = fit.predict()
    in_the_large = models[0].calibration_in_the_large
    assert in_the_large.value == pytest.approx(ill.mean() - p.mean(), abs=1e-6)
    half = norm.ppf(0.975) * math.sqrt(p.mean() * (1 - p.mean()) / 200)
    assert in_the_large.interval == pytest.approx((-half, half), abs=1e-6)


def test_under_noise_there_is_no_expected_slope(models_of_columns):
    found = models_of_columns(*halves(drawn(6, n=200)), noise_sd=DRAFTED, rounds=6)
    assert {model.expected_slope for model in told(found, 200.0)[0]} == {None}


def test_no_coefficient_is_told_where_the_linear_sums_do_not_show_its_predictor(models_of_columns):
    columns = drawn(6, n=300)
    for linear, lost in ((0.5, False), (1e4, True)):
        noise = {"linear": linear, "newton": 0.5, "comparison": 0.5}
        models, _ = told(models_of_columns(*halves(columns), noise_sd=noise, rounds=8), 300.0)
        assert ("coefficients" in models[0].lost) == lost


def test_areas_stay_exact_where_probabilities_crowd(models_of_columns):
    columns = drawn(4, n=300, cut=72.0)
    found = models_of_columns(*halves(columns))
    ill = columns["verbal_score"] < 85
    for model, name in zip(found.models, ("gase", "predicted_gase"), strict=False):
        values = columns[name]
        pairs = np.sign(values[ill][:, None] - values[~ill])
        exact = (pairs > 0).mean() + (pairs == 0).mean() / 2
        assert model.auc.value == pytest.approx(exact, abs=model.auc.binning_bound + 1e-12)
        # Bins of GASE's own range: its levels lie in bins of their own.
        assert abs(model.auc.value - exact) < (1e-12 if name == "gase" else 0.004)
        assert model.auc.binning_bound < 0.02 or name == "gase"


# Of a drafted study: epsilon 8 at delta 1e-3, six sites, 27 models.
DRAFTED = {"linear": 38.1, "newton": 34.4, "comparison": 19.6}


def figures(record, path=""):
    """Every number of a record, by its path without positions."""
    if isinstance(record, dict):
        for name, value in record.items():
            yield from figures(value, f"{path}.{name}".lstrip("."))
    elif isinstance(record, list | tuple):
        for value in record:
            yield from figures(value, path)
    elif isinstance(record, int | float) and not isinstance(record, bool):
        yield path, record


# Of each figure of a model; None: no end.
POSSIBLE = {
    "children": (0, None),
    "impaired": (0, None),
    "left_out": (0, None),
    "events_per_variable": (0, None),
    "log_likelihood": (None, 0),
    "coefficients.coefficient": (None, None),
    "coefficients.standard_error": (0, None),
    "coefficients.noise_sd": (0, None),
    "coefficients.odds_ratio": (0, None),
    "coefficients.odds_ratio_interval": (0, None),
    "coefficients.p_value": (0, 1),
    "aic": (4, None),
    "bic": (0, None),
    "auc": (0, 1),
    "auc_interval": (0, 1),
    "auc_binning": (0, None),
    "roc.false_positive_rate": (0, 1),
    "roc.true_positive_rate": (0, 1),
    "brier": (0, 1),
    "brier_interval": (0, 1),
    "calibration_in_the_large.value": (-1, 1),
    "calibration_in_the_large.interval": (-1, 1),
    "calibration.children": (0, None),
    "calibration.predicted": (0, 1),
    "calibration.observed": (0, 1),
    "calibration.interval": (0, 1),
    "operating_points.threshold": (0, 1),
    **{
        f"operating_points.{share}.{part}": (0, 1)
        for share in ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")
        for part in ("value", "interval")
    },
    "r_squared": (0, 1),
    "linear.coefficient": (None, None),
    "linear.interval": (None, None),
    "linear.p_value": (0, 1),
}


@pytest.mark.parametrize("children", [24, 126])
def test_the_noise_leaves_no_figure_that_cannot_be_true(models_of_columns, children):
    lost, fitted = set(), 0
    for seed in range(8):
        columns = drawn(seed, n=children)
        found = models_of_columns(*halves(columns), noise_sd=DRAFTED, rounds=8, seed=seed)
        models, (contest,) = told(found, float(children))
        for model in models:
            for name, figure in figures(model.model_dump()):
                if not name.startswith("operating_points.net_benefit"):
                    low, high = POSSIBLE[name]
                    assert low is None or figure >= low, (name, figure)
                    assert high is None or figure <= high, (name, figure)
            assert model.impaired is None or model.impaired <= model.children
            # No model with an intercept fits worse than even odds for everybody.
            assert model.log_likelihood is None or model.log_likelihood >= -model.children * math.log(2)
            for point in model.operating_points:
                odds = point.threshold / (1 - point.threshold)
                for benefit in (point.net_benefit and point.net_benefit.value, point.net_benefit_of_all):
                    assert benefit is None or -odds - 1e-9 <= benefit <= 1
            lost |= set(model.lost)
            fitted += bool(model.coefficients)
            if model.coefficients:
                # What is null is named, and no coefficient of so few children is told.
                assert "coefficients" in model.lost
                assert {term.odds_ratio for term in model.coefficients} == {None}
                for name in ("impaired", "log_likelihood", "aic", "bic", "auc", "brier"):
                    assert (getattr(model, name) is None) == (name in model.lost), name
        assert "agrees" not in contest.verdict
        if contest.aic_difference is None:
            assert "cannot be compared" in contest.verdict
    assert fitted > 8
    assert {"coefficients", "linear", "auc", "brier"} <= lost
    # Of 24 children there is no curve at all.
    assert ({"impaired", "aic", "bic", "log_likelihood"} if children == 24 else {"net_benefit"}) <= lost


def test_features_and_tables_are_those_of_each_models_own_children(models_of_columns, protocol_content):
    columns = drawn(5, n=30)
    columns["medicines"][:7] = np.nan
    columns["verbal_score"][9] = np.nan
    found = models_of_columns(columns, models=(("gase",), ("predicted_gase",), ("gase", "medicines")))
    for result, known in zip(found.models, (29, 29, 22), strict=True):
        assert result.logistic.children == known
    content = {**protocol_content, "phenotypes": PHENOTYPES}
    protocol = Protocol.model_validate(content)
    model = found.models[2].model
    assert np.isfinite(table_of(model, columns, protocol).impaired).sum() == 22
    assert features_of(model, columns, protocol).shape == (30, 3)


def test_an_analysis_that_cannot_be_computed_is_null_with_its_reason(
    make_consortium, monkeypatch, full_atlas
):
    def impossible(*_, **__):
        raise StudyError("nothing varies")

    monkeypatch.setattr("esn_server.study.study.matching", lambda *_, **__: math.sqrt(-1))
    monkeypatch.setattr("esn_server.study.study.read_attribution", impossible)
    consortium = make_consortium(exact=True, analyses={"cohort": True, "explanation": True})
    findings = consortium.study()
    assert set(findings.left_out) == {"matching", "attribution"}
    result = result_of(consortium.protocol, findings, run="r1", timing_s={})
    assert (result.cohort, result.explanation) == (None, None)
    assert result.absent["explanation"] == "it could not be computed: nothing varies"
    assert "math domain" in result.absent["cohort"] or "nonnegative" in result.absent["cohort"]
    assert any("The analysis matching is missing" in warning for warning in result.warnings)
    assert "it could not be computed: nothing varies" in page_text(result, full_atlas(consortium.protocol))


def test_a_question_that_is_not_answered_ends_the_study_and_leaves_nothing_out(make_consortium):
    consortium = make_consortium(exact=True, analyses={"cohort": True})
    asked = consortium.rounds.sum

    class Failing:
        roll_call = staticmethod(consortium.rounds.roll_call)

        @staticmethod
        def sum(question, kind):
            if question.id.phase == "cohort":
                raise StudyError("too few sites answered")
            return asked(question, kind)

    with pytest.raises(StudyError, match="too few sites answered"):
        consortium.study(Failing())


@pytest.fixture
def full_atlas():
    """A function that gives the atlas of a protocol."""
    from esn_core.connectome.atlas import load_atlas

    return lambda protocol: load_atlas(protocol.imaging.atlas)


def test_a_primary_comparison_has_to_be_one_of_the_protocols(protocol_content):
    rules = {
        "rounds": 6,
        "models": MODELS,
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 85.0}],
    }

    def analysed(**more):
        analyses = {"neurocognition": {**rules, **more}, "exact": ["neurocognition"]}
        return Protocol.model_validate({**protocol_content, "phenotypes": PHENOTYPES, "analyses": analyses})

    good = analysed(primary={"outcome": "verbal"}, called_impaired_from=0.3)
    assert good.analyses.neurocognition.primary == Comparison(outcome="verbal")
    for more, words in (
        ({"primary": {"outcome": "motor"}}, "'motor', which is no outcome"),
        ({"primary": {"outcome": "verbal", "others": ["age"]}}, r"needs the model age \+ gase"),
        ({"called_impaired_from": 0.33}, "is a multiple of 0.05, not 0.33"),
    ):
        with pytest.raises(ValueError, match=words):
            analysed(**more)
