"""A result and an atlas, small and made up, for the tests of the report."""

import pickle
from collections.abc import Callable, Iterator

import pytest

from esn_core.connectome.atlas import Atlas, Region
from esn_server.report.analyses import (
    AgreementEstimates,
    AloneAtSite,
    CohortSummary,
    Compared,
    Correlation,
    CrossSite,
    EdgeShare,
    Estimated,
    ExactEdge,
    ExactNetworkSummary,
    Explanation,
    GroupSummary,
    Harmonisation,
    LeftOut,
    LocalOnly,
    NetworkComponent,
    Permutations,
    RandomScore,
    Subgroup,
)
from esn_server.report.figures import shown
from esn_server.report.impairment import (
    CalibrationGroup,
    Coefficient,
    Contest,
    ModelSummary,
    NeurocognitionSummary,
    OperatingPoint,
    RocPoint,
)
from esn_server.report.result import (
    Evaluation,
    GaseBin,
    NetworkEdge,
    PhasePrice,
    PrivacySummary,
    RoundLoss,
    SeverityNetwork,
    SiteSummary,
    StudyResult,
)


@pytest.fixture(scope="package", autouse=True)
def drawn_once() -> Iterator[None]:
    """Draw equal figures once: most tests change a word of the page, and none of what is drawn."""
    drawn: dict[bytes, object] = {}

    def once(draw: Callable[..., object]) -> Callable[..., object]:
        def found(*given: object, **named: object) -> object:
            key = pickle.dumps((draw.__name__, given, named))
            if key not in drawn:
                drawn[key] = draw(*given, **named)
            return drawn[key]

        return found

    figures = "glass_brain connectogram correlations impairments stability learning_curve price_by_phase"
    with pytest.MonkeyPatch.context() as patch:
        for name in [*figures.split(), "predicted_against_clinical"]:
            patch.setattr(shown, name, once(getattr(shown, name)))
        yield


@pytest.fixture
def atlas() -> Atlas:
    names = ("frontal", "temporal", "parietal")
    rows = [
        (f"{side}_{name}", side, sign, place)
        for side, sign in (("L", -1), ("R", 1))
        for place, name in enumerate(names)
    ]
    return Atlas(
        "six",
        tuple(
            Region(index + 1, name, side, sign * 35.0, 40.0 - 35 * place, 10.0 + 8 * place, side)
            for index, (name, side, sign, place) in enumerate(rows)
        ),
    )


@pytest.fixture
def result() -> StudyResult:
    levels = [
        (1, -1.37, None, None),
        (2, 3.14, 2.91, 0.93),
        (3, 6.21, 3.18, 0.72),
        (4, 7.05, 3.94, 1.13),
        (5, 5.26, 4.27, 0.84),
        (6, 3.63, 4.98, None),
        (7, 1.52, 5.61, 0.33),
    ]
    edges = [
        ("L_frontal", "L_temporal", -0.412),
        ("L_frontal", "R_frontal", 0.287),
        ("R_temporal", "R_parietal", -0.123),
    ]
    phases = [
        ("roll-call", "none", 0, None, 0.0),
        ("centre", "training", 1, 8.231, 0.213),
        ("association", "training", 1, 1.117, 2.904),
        ("gradient", "training", 20, 7.543, 2.118),
        ("calibration", "training", 1, 6.075, 0.446),
        ("evaluation", "held-out", 1, 0.932, 4.052),
    ]
    return StudyResult(
        study="demo-study",
        protocol_sha256="0123456789abcdef" * 4,
        run="run-17",
        simulated=True,
        sites=[
            SiteSummary(name=name, cohort_size_band=band, software={"torch": "2.13.0", "dipy": "1.12.1"})
            for name, band in (("north", "16-31"), ("east", "32-63"), ("south", "8-15"))
        ],
        evaluation=Evaluation(
            children=25.34,
            r=0.412,
            r_interval=(0.021, 0.694),
            r_noise_sd=0.235,
            mae_noise_sd=0.412,
            mae=1.316,
            rmse=1.624,
            calibration_slope=0.713,
            calibration_intercept=-1.127,
            by_gase=[
                GaseBin(gase=gase, children=children, mean_prediction=mean, sd_prediction=sd)
                for gase, children, mean, sd in levels
            ],
            estimates=AgreementEstimates(
                children=Estimated(value=26.1, interval=(20.4, 32.0)),
                r=Estimated(value=0.371, interval=(-0.148, 0.829)),
                mae=Estimated(value=1.402, interval=(0.874, 2.113)),
                rmse=Estimated(value=1.711, interval=(1.105, 2.542)),
                calibration_slope=Estimated(value=0.644, interval=(-0.312, 1.733)),
                calibration_intercept=Estimated(value=1.451, interval=(-2.91, 5.04)),
            ),
            undefined_because=None,
        ),
        severity_network=SeverityNetwork(
            atlas="six",
            edges=[NetworkEdge(region_a=a, region_b=b, weight=w, posterior_sd=0.091) for a, b, w in edges],
            candidates=15,
            retained=2,
            private=True,
            note="Candidates are the connections of the public template.",
        ),
        harmonisation=Harmonisation(method="own controls", note="Offsets stay at the site.", compared=None),
        learning_curve=[
            RoundLoss(round=1, loss=0.8134),
            RoundLoss(round=2, loss=None),
            RoundLoss(round=3, loss=-0.0217),
        ],
        privacy=PrivacySummary(
            trust="local",
            colluding_sites=None,
            noise="gaussian",
            delta=0.001,
            unit="one child, with all scans",
            adjacency="add or remove one child of one site",
            epsilon_training_child=4.057,
            epsilon_held_out_child=4.052,
            epsilon_replace_one_training_child=7.931,
            epsilon_replace_one_held_out_child=7.925,
            exact_phases=[],
            epsilon_of_noised=4.057,
            members_found=0.14,
            controls_note="Controls are not covered by ε.",
            phases=[
                PhasePrice(
                    phase=phase, children=children, releases=releases, noise_multiplier=noise, epsilon=epsilon
                )
                for phase, children, releases, noise, epsilon in phases
            ],
        ),
        timing_s={"roll-call": 0.83, "gradient": 44.26},
        warnings=["Site south is small: its noise outweighs its signal."],
    )


@pytest.fixture
def exact_result(result: StudyResult) -> StudyResult:
    """The same study without noise."""
    nothing = {
        "epsilon_training_child": None,
        "epsilon_held_out_child": None,
        "epsilon_replace_one_training_child": None,
        "epsilon_replace_one_held_out_child": None,
        "members_found": None,
        "epsilon_of_noised": None,
    }
    phases = [
        phase.model_copy(update={"noise_multiplier": None, "epsilon": None})
        for phase in result.privacy.phases
    ]
    privacy = result.privacy.model_copy(update={"noise": "none", "phases": phases, **nothing})
    evaluation = result.evaluation.model_copy(
        update={"r": 0.741, "r_interval": (0.493, 0.878), "r_noise_sd": 0.0, "estimates": None}
    )
    return result.model_copy(update={"run": "run-18", "privacy": privacy, "evaluation": evaluation})


@pytest.fixture
def undefined_result(result: StudyResult) -> StudyResult:
    """A study whose noise left no correlation."""
    figures = (
        "estimates",
        "r",
        "r_interval",
        "r_noise_sd",
        "mae",
        "rmse",
        "calibration_slope",
        "calibration_intercept",
    )
    evaluation = result.evaluation.model_copy(
        update={
            **dict.fromkeys(figures),
            "undefined_because": "the noise exceeds the variance of the scores",
        }
    )
    return result.model_copy(update={"evaluation": evaluation})


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
        roc=[
            RocPoint(false_positive_rate=x, true_positive_rate=y)
            for x, y in ((0.0, 0.0), (0.13, 0.52), (0.37, 0.81), (1.0, 1.0))
        ],
        calibration=[
            CalibrationGroup(children=12.0, predicted=0.14, observed=0.17, interval=(0.05, 0.45)),
            CalibrationGroup(children=4.0, predicted=0.63, observed=0.75, interval=(0.3, 0.95)),
            CalibrationGroup(children=0.0, predicted=None, observed=None, interval=None),
        ],
        operating_points=[
            OperatingPoint(
                threshold=threshold,
                sensitivity=Estimated(value=0.71, interval=(0.45, 0.88)),
                specificity=Estimated(value=0.66, interval=(0.42, 0.85)),
                positive_predictive_value=None,
                negative_predictive_value=None,
                net_benefit=Estimated(value=benefit, interval=(benefit - 0.08, benefit + 0.08)),
                net_benefit_of_all=of_all,
            )
            for threshold, benefit, of_all in ((0.2, 0.26, 0.22), (0.5, 0.11, -0.24))
        ],
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
            "subgroups": [
                Subgroup(name="girls", estimates=result.evaluation.estimates),
                Subgroup(name="younger than 6 years", estimates=None),
            ],
            "explanation": Explanation(
                edges=[EdgeShare(region_a="left a", region_b="right a", mean=-0.12)],
                noise_sd=0.03,
                sampling_sd=0.02,
                truth_r=0.5,
            ),
            "exact_network": ExactNetworkSummary(
                children=160,
                freedom=154,
                edges=[
                    ExactEdge(
                        region_a="left a",
                        region_b="right a",
                        r=-0.41,
                        p=0.00002,
                        retained=True,
                        frequency=0.97,
                        component=1,
                    ),
                    ExactEdge(
                        region_a="left a",
                        region_b="left b",
                        r=0.11,
                        p=0.17,
                        retained=False,
                        frequency=0.08,
                        component=None,
                    ),
                    ExactEdge(
                        region_a="left b",
                        region_b="right a",
                        r=None,
                        p=None,
                        retained=False,
                        frequency=0.0,
                        component=None,
                    ),
                ],
                retained=1,
                t_threshold=3.1,
                components=[NetworkComponent(number=1, edges=1, regions=2, p=0.015)],
                null_draws=200,
                largest_by_chance=1.0,
                bootstrap_draws=100,
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
