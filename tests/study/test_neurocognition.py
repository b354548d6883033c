"""Models of impairment over a federation, against statsmodels on the same children in one table."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from esn_client.answers import hospital as answers
from esn_client.answers.neurocognition import _Children
from esn_client.answers.study import Study
from esn_core.analyses.neurocognition import features_of, kinds_of, models_of, rivals, table_of
from esn_core.transcript.arguments import Arguments

PHENOTYPES = {
    "age": {"kind": "number", "unit": "years", "range": (0, 20)},
    "sex": {"kind": "category", "codes": ("F", "M")},
    "verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
    "nonverbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
}
MODELS = (
    ("gase",),
    ("predicted_gase",),
    ("gase", "predicted_gase"),
    ("gase", "age", "sex"),
    ("predicted_gase", "age", "sex"),
)
ANALYSES = {
    "cohort": True,
    "exact": ["cohort", "neurocognition"],
    "neurocognition": {
        "rounds": 12,
        "models": MODELS,
        "outcomes": [
            {"name": "verbal", "column": "verbal_score", "impaired_below": 95.0},
            {"name": "nonverbal", "column": "nonverbal_score", "impaired_below": 92.0},
        ],
    },
}
PRIVATE = {**ANALYSES, "exact": []}
SHARES = {
    "centre": 0.05,
    "association": 0.6,
    "gradient": 0.1,
    "calibration": 0.15,
    "cohort": 0.1,
    "evaluation": 0.4,
    "linear": 0.1,
    "newton": 0.4,
    "comparison": 0.1,
}


@pytest.fixture(scope="module")
def findings(build_consortium, tmp_path_factory):
    """A study without noise, with its consortium; tests only read of it."""
    opened = []
    consortium = build_consortium(
        tmp_path_factory.mktemp("exact"),
        opened,
        exact=True,
        analyses=ANALYSES,
        phenotypes=PHENOTYPES,
        shares={k: v for k, v in SHARES.items() if k in ("centre", "association", "gradient", "calibration")}
        | {"centre": 0.15, "evaluation": 1.0},
    )
    yield consortium, consortium.study()
    for file in opened:
        file.close()


def pooled_columns(consortium, findings):
    """All held-out children of all sites in one table, with the predictions of the released model."""
    tables = []
    for cohort in consortium.cohorts.values():
        study = Study("north", consortium.protocol, cohort, "cpu")
        tables.append(_Children(asked(consortium, findings, "linear"), study).columns)
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


def asked(consortium, findings, phase, **more):
    return Arguments(
        phase,
        {
            "weights": findings.weights,
            "edge_weights": findings.network.weight,
            "calibration": np.array(findings.calibration),
            **more,
        },
    )


def statsmodels_design(columns, model, known):
    return sm.add_constant(np.column_stack([columns[name] for name in model.predictors])[known])


# Newton ends at a step below 1e-8; the grid of the sums is finer than 1e-10.
CLOSE = {"rel": 1e-7, "abs": 1e-8}


def test_every_logistic_model_equals_statsmodels_on_pooled_children(findings):
    consortium, found = findings
    columns = pooled_columns(consortium, found)
    assert len(found.neurocognition.models) == 10
    for result in found.neurocognition.models:
        model = result.model
        known = np.isfinite(table_of(model, columns, consortium.protocol).impaired)
        impaired = (columns[model.outcome.column] < model.outcome.impaired_below)[known]
        pooled = sm.Logit(impaired.astype(float), statsmodels_design(columns, model, known)).fit(
            disp=0, tol=1e-13, maxiter=100
        )
        fit = result.logistic
        assert fit.guard is None
        assert fit.coefficients == pytest.approx(pooled.params, **CLOSE)
        assert fit.standard_errors == pytest.approx(pooled.bse, **CLOSE)
        assert fit.wald_intervals == pytest.approx(pooled.conf_int(), **CLOSE)
        assert (fit.aic, fit.bic) == pytest.approx((pooled.aic, pooled.bic), **CLOSE)
        assert fit.children == pytest.approx(known.sum(), rel=1e-9)
        said = pooled.predict()
        u = stats.mannwhitneyu(said[impaired], said[~impaired]).statistic
        exact = u / (impaired.sum() * (~impaired).sum())
        assert abs(result.auc.value - exact) <= result.auc.binning_bound + 1e-9
        low, high = result.area_interval
        assert low <= result.auc.value <= high
        assert result.calibration.in_the_large == pytest.approx(0, abs=1e-7)


def test_every_linear_model_equals_statsmodels_on_pooled_children(findings):
    consortium, found = findings
    columns = pooled_columns(consortium, found)
    for result in found.neurocognition.models:
        model = result.model
        known = np.isfinite(table_of(model, columns, consortium.protocol).impaired)
        pooled = sm.OLS(columns[model.outcome.column][known], statsmodels_design(columns, model, known)).fit()
        fit = result.linear
        assert fit.coefficients == pytest.approx(pooled.params, **CLOSE)
        assert fit.standard_errors == pytest.approx(pooled.bse, **CLOSE)
        assert fit.t == pytest.approx(pooled.tvalues, **CLOSE)
        assert (fit.r_squared, fit.aic, fit.bic) == pytest.approx(
            (pooled.rsquared, pooled.aic, pooled.bic), **CLOSE
        )
        assert fit.intervals == pytest.approx(pooled.conf_int(), **CLOSE)


def test_rivals_are_compared_by_likelihoods_of_the_same_children(findings):
    consortium, found = findings
    columns = pooled_columns(consortium, found)
    assert len(found.neurocognition.rivalries) == 4
    for rivalry in found.neurocognition.rivalries:
        per_child = []
        for index in (rivalry.predicted, rivalry.clinical):
            model = found.neurocognition.models[index].model
            known = np.isfinite(table_of(model, columns, consortium.protocol).impaired)
            impaired = (columns[model.outcome.column] < model.outcome.impaired_below)[known].astype(float)
            pooled = sm.Logit(impaired, statsmodels_design(columns, model, known)).fit(disp=0, tol=1e-13)
            per_child.append(np.log(np.where(impaired > 0.5, pooled.predict(), 1 - pooled.predict())))
        apart = per_child[0] - per_child[1]
        z = apart.sum() / (apart.std() * np.sqrt(len(apart)))
        assert rivalry.vuong.z == pytest.approx(z, rel=1e-6)
        assert rivalry.aic_difference == pytest.approx(-2 * apart.sum(), rel=1e-6)
    univariate = found.neurocognition.rivalries[0]
    assert univariate.added is not None
    assert univariate.added.freedom == 1


def test_children_and_controls_are_matched_as_in_one_table(findings):
    consortium, found = findings
    people = [cohort.people for cohort in consortium.cohorts.values()]
    standing = np.concatenate([p.standing for p in people])
    age, sex = (np.concatenate([getattr(p, n) for p in people]) for n in ("age_years", "sex"))
    child, control = standing == "child", standing == "control"
    apart = (age[child].mean() - age[control].mean()) / np.sqrt(
        (age[child].var(ddof=1) + age[control].var(ddof=1)) / 2
    )
    assert found.matching.age_difference == pytest.approx(apart, rel=1e-8)
    p, q = sex[child].mean(), sex[control].mean()
    assert found.matching.sex_difference == pytest.approx(
        (p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2), rel=1e-8
    )
    # Three were left out, fewer than the minimum of five that is ever counted out.
    assert found.matching.left_out == {"no-connectome": None, "poor-quality": None, "no-score": None}


def test_with_noise_every_model_says_what_the_noise_does_and_the_budget_holds(make_consortium):
    consortium = make_consortium(analyses=PRIVATE, phenotypes=PHENOTYPES, shares=SHARES)
    found = consortium.study()
    assert found.price.epsilon("held-out") == pytest.approx(8.0, rel=1e-9)
    for result in found.neurocognition.models:
        assert result.logistic is None or (result.logistic.noise_sd_of_coefficients > 0).all()
        assert result.area_interval is None


def test_no_childs_row_exceeds_the_bound_and_unknown_children_add_nothing(findings):
    consortium, found = findings
    study = Study("north", consortium.protocol, consortium.cohorts["north"], "cpu")
    kinds = kinds_of(consortium.protocol)
    more = {
        "linear": {},
        "newton": {"coefficients": np.full(kinds.tracked_count, 2.0)},
        "comparison": {"coefficients": np.full(kinds.coefficient_count, -3.0)},
        "ranking": {
            "coefficients": np.full(kinds.coefficient_count, 1.0),
            "histograms": np.ones(400 * len(kinds.models)),
        },
    }
    for phase, arrays in more.items():
        rows = answers.rows_of(asked(consortium, found, phase, **arrays), study)
        assert (np.linalg.norm(rows.values, axis=1) <= rows.kind.l2_bound * (1 + 1e-12)).all(), phase
        assert rows.values.shape[1] == rows.kind.dimension
    # The first child's verbal score is not known: nothing of it enters the verbal models.
    first = answers.rows_of(asked(consortium, found, "newton", **more["newton"]), study).values[0]
    verbal = sum(kinds.newton_widths[: len(MODELS)])
    assert not first[:verbal].any()
    assert first[verbal:].any()


def test_a_pair_of_rivals_differs_in_the_severity_alone(findings):
    consortium, _ = findings
    models = models_of(consortium.protocol)
    for predicted, clinical in rivals(models):
        first, second = set(models[predicted].predictors), set(models[clinical].predictors)
        assert first - second == {"predicted_gase"}
        assert second - first == {"gase"}
        assert models[predicted].outcome == models[clinical].outcome


def test_features_lie_within_their_public_ranges(findings):
    consortium, found = findings
    columns = pooled_columns(consortium, found)
    for model in models_of(consortium.protocol):
        features = features_of(model, {**columns, "age": columns["age"] + 50}, consortium.protocol)
        assert (np.abs(features) <= 1).all()
        assert (np.linalg.norm(features, axis=1) <= model.feature_norm * (1 + 1e-15)).all()
