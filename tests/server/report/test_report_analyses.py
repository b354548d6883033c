"""The page's further analyses: each has its section, and what was not asked has none."""

import pytest

from esn_server.report.analyses import (
    AloneAtSite,
    Coefficient,
    CohortSummary,
    Compared,
    Contest,
    Correlation,
    CrossSite,
    EdgeShare,
    Explanation,
    GroupSummary,
    LeftOut,
    LocalOnly,
    ModelSummary,
    NeurocognitionSummary,
    Permutations,
    RandomScore,
)
from esn_server.report.correlations import lines_of
from esn_server.report.page import page_text


@pytest.fixture
def full(result):
    """A result with everything that a protocol can ask."""
    group = GroupSummary(people=60.0, mean_age_years=10.2, sd_age_years=3.1, share_male=0.5)
    found = Correlation(children=30.0, r=0.8, r_interval=(0.6, 0.9), r_noise_sd=0.0, mae=0.7)
    nothing = Correlation(children=28.5, r=None, r_interval=None, r_noise_sd=None, mae=None)
    term = Coefficient(
        name="predicted_gase",
        coefficient=0.7,
        standard_error=0.2,
        noise_sd=0.0,
        odds_ratio=2.01,
        odds_ratio_interval=(1.2, 3.4),
        p_value=0.004,
    )
    model = ModelSummary(
        outcome="verbal",
        predictors=["predicted_gase"],
        children=29.0,
        impaired=11.0,
        coefficients=[term],
        log_likelihood=-15.0,
        aic=34.0,
        bic=36.5,
        auc=0.78,
        auc_interval=(0.6, 0.95),
        auc_interval_by="DeLong",
        brier=0.18,
        hosmer_lemeshow_p=0.6,
        guard=None,
        r_squared=0.3,
        failed=None,
    )
    contest = Contest(
        outcome="verbal",
        others=[],
        aic_difference=-3.1,
        bic_difference=-3.1,
        vuong_z=1.2,
        vuong_p=0.23,
        auc_difference=0.04,
        auc_difference_interval=(-0.05, 0.13),
        auc_difference_p=0.4,
        added_p=0.03,
        verdict="These children do not decide.",
    )
    return result.model_copy(
        update={
            "local_only": LocalOnly(
                note="In simulation.",
                by_site=[AloneAtSite(site="north", training=20, r=0.7, r_interval=(0.5, 0.8))],
                mean_r=0.7,
                pooled_r=0.85,
                pooled_r_interval=(0.8, 0.9),
            ),
            "baselines": [Compared(name="CPM", r=0.84, r_interval=(0.7, 0.9), mae=0.6, rmse=0.8)],
            "random_score": RandomScore(
                draws=[nothing],
                simulated=Permutations(times=200, mean=0.003, sd=0.09, interval=(-0.15, 0.18)),
            ),
            "cross_site": CrossSite(by_site=[LeftOut(site="north", **found.model_dump())], together=found),
            "cross_validation": found,
            "explanation": Explanation(
                edges=[EdgeShare(region_a="left a", region_b="right a", mean=-0.12)],
                noise_sd=0.03,
                truth_r=0.5,
            ),
            "cohort": CohortSummary(
                children=group,
                controls=group,
                age_difference=0.02,
                sex_difference=-0.11,
                left_out={"no-connectome": 7.0, "no-score": None},
            ),
            "neurocognition": NeurocognitionSummary(exact=True, models=[model], contests=[contest]),
        }
    )


def test_every_analysis_has_its_section(full, atlas):
    page = page_text(full, atlas)
    for words in (
        "Every correlation of this study",
        "held-out children of north, which took no part",
        "training children, each without its part",
        "scores drawn at random, draw 1",
        "One site alone",
        "the middle 95 % run from −0.150 to 0.180, with 0 inside",
        "Other predictors",
        "Own controls.",
        "Children and controls",
        "fewer than the minimum",
        "What the predictions rest on",
        "Neurocognitive impairment",
        "These children do not decide.",
        "no ε covers them",
        "2.01 (1.20 to 3.40)",
    ):
        assert words in page, words


def test_what_was_not_asked_has_no_section(result, atlas):
    page = page_text(result, atlas)
    assert "The protocol asked for no cross-site validation" in page
    for words in ("One site alone", "Children and controls", "Neurocognitive impairment", "rest on"):
        assert words not in page


def test_an_undefined_correlation_is_a_row_without_a_number(full):
    lines = {line.label: line for line in lines_of(full, no_noise=None)}
    assert lines["random scores, draw 1"].r is None
    assert lines["200 permutations, in simulation"].interval == (-0.15, 0.18)
    assert lines["   north alone, in simulation"].r == 0.7


def test_a_federation_that_gives_no_more_than_one_site_alone_is_told_so(full, atlas):
    weak = full.evaluation.model_copy(update={"r": 0.65})
    assert "gives these sites no more than they have alone" in page_text(
        full.model_copy(update={"evaluation": weak}), atlas
    )
    strong = full.evaluation.model_copy(update={"r": 0.9})
    assert "no more than they have alone" not in page_text(
        full.model_copy(update={"evaluation": strong}), atlas
    )


def test_what_was_declared_exact_stands_beside_the_price(full, atlas):
    privacy = full.privacy.model_copy(
        update={"exact_phases": ["newton"], "epsilon_held_out_child": None, "epsilon_of_noised": 8.0}
    )
    page = page_text(full.model_copy(update={"privacy": privacy}), atlas)
    assert "declared exact, without ε: newton; all the rest 8.00" in page
