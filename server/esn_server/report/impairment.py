"""Impairment in result.json: its models, and what predicted severity adds to them."""

from pydantic import Field

from esn_server.report.analyses import Estimated, Interval, Record


class Coefficient(Record):
    """One predictor of one logistic model."""

    name: str = Field(description="Predictor, or intercept.")
    coefficient: float | None = Field(
        description="Log odds ratio per unit of the predictor; like all that follows, null where the noise "
        "hides it."
    )
    standard_error: float | None = Field(description="For the choice of children.")
    noise_sd: float | None = Field(description="Standard deviation that the privacy noise gives to it.")
    odds_ratio: float | None = Field(description="Per unit; null also where it is beyond all numbers.")
    odds_ratio_interval: Interval | None = Field(
        description="95 %, choice of children and noise together; whose it is stands in interval_by."
    )
    interval_by: str | None = Field(default=None, description="Profile likelihood, or Wald.")
    p_value: float | None = Field(description="Two-sided, of the same two together.")


class LinearCoefficient(Record):
    """One predictor of the linear model of a score."""

    name: str = Field(description="Predictor, or intercept.")
    coefficient: float | None = Field(
        description="Units of the score per unit of the predictor; like all that follows, null where the "
        "noise hides it."
    )
    interval: Interval | None = Field(
        description="95 % by Student's t, choice of children and noise together."
    )
    p_value: float | None = Field(description="Two-sided, of the same two together.")


class RocPoint(Record):
    """One point of a ROC curve."""

    false_positive_rate: float = Field(
        description="Share of children without the impairment who are called so."
    )
    true_positive_rate: float = Field(description="Share of children with it who are called so.")


class CalibrationGroup(Record):
    """Children of one range of predicted probability."""

    children: float | None = Field(
        description="Released number; noise may make it no whole number, or null where it would be below 0."
    )
    predicted: float | None = Field(description="Mean probability; null where too few are left.")
    observed: float | None = Field(description="Share with the impairment.")
    interval: Interval | None = Field(description="95 % by Wilson, the noise included.")


class OperatingPoint(Record):
    """What calling children impaired from a probability on would do."""

    threshold: float = Field(description="The probability.")
    sensitivity: Estimated | None = Field(description="Of children with the impairment; null where too few.")
    specificity: Estimated | None = Field(description="Of children without it.")
    positive_predictive_value: Estimated | None = Field(description="Of children who are called impaired.")
    negative_predictive_value: Estimated | None = Field(description="Of the others.")
    net_benefit: Estimated | None = Field(
        description="True positives less false ones at the threshold's odds, a child; null where the noise "
        "left nothing that can be true."
    )
    net_benefit_of_all: float | None = Field(
        description="Of calling every child impaired; that of nobody is 0."
    )


class ModelSummary(Record):
    """One model of one impairment, logistic; and of its score, linear.

    Area, Brier score, calibration and operating points are apparent: of the children that the model was
    fitted to. No model knows of sites.
    """

    outcome: str = Field(description="Name of the impairment.")
    predictors: list[str] = Field(description="Predictors, the intercept left out.")
    children: float | None = Field(description="Children whose score and own predictors are known.")
    impaired: float | None = Field(description="How many of them are impaired.")
    left_out: float | None = Field(
        default=None, description="Held-out children whose score or one of whose predictors is not known."
    )
    events_per_variable: float | None = Field(
        default=None, description="Children of the rarer outcome for each predictor."
    )
    coefficients: list[Coefficient] = Field(
        description="The intercept first; empty where the model could not be fitted."
    )
    converged: bool | None = Field(default=None, description="Whether the fit stood still at the last round.")
    log_likelihood: float | None = Field(description="Of the logistic model; the largest that there is.")
    model_p: float | None = Field(
        default=None,
        description="Likelihood ratio against the intercept alone; null under noise, and where the "
        "predictors separate the children, all or in part.",
    )
    aic: float | None = Field(description="Akaike's criterion.")
    bic: float | None = Field(description="Bayesian criterion.")
    auc: float | None = Field(description="Area under the ROC curve; apparent.")
    auc_interval: Interval | None = Field(description="95 % interval of the area.")
    auc_interval_by: str | None = Field(description="Whose interval it is.")
    auc_binning: float | None = Field(
        default=None, description="The area of the scores before rounding differs by no more than this."
    )
    roc: list[RocPoint] = Field(
        default_factory=list, description="The curve; its corners only where it turns."
    )
    brier: float | None = Field(description="Mean squared difference of probability and outcome; apparent.")
    brier_interval: Interval | None = Field(default=None, description="95 %, noise included.")
    expected_slope: Estimated | None = Field(
        default=None,
        description="Calibration slope to expect in other children: 1 less predictors over the model's "
        "chi-squared; null under noise, which does not tell it.",
    )
    calibration_in_the_large: Estimated | None = Field(
        default=None, description="Share with the impairment less mean probability; apparent."
    )
    calibration: list[CalibrationGroup] = Field(default_factory=list, description="By probability; apparent.")
    operating_points: list[OperatingPoint] = Field(
        default_factory=list, description="By threshold; apparent."
    )
    hosmer_lemeshow_p: float | None = Field(description="p of Hosmer and Lemeshow's test; null under noise.")
    guard: str | None = Field(description="What kept the fit from running away, in words.")
    r_squared: float | None = Field(description="Of the linear model of the score.")
    linear: list[LinearCoefficient] = Field(
        default_factory=list, description="Of the linear model of the score."
    )
    lost: list[str] = Field(
        default_factory=list,
        description="Figures that are null because the noise hides them or left nothing that can be true.",
    )
    failed: str | None = Field(description="Why something could not be fitted.")


class Contest(Record):
    """A model with the predicted severity against the same one with the clinical score."""

    outcome: str = Field(description="Name of the impairment.")
    others: list[str] = Field(description="What both models hold besides.")
    primary: bool = Field(
        default=False, description="Whether the protocol names it as the primary comparison."
    )
    aic_difference: float | None = Field(
        description="Predicted less clinical; negative: the prediction explains more."
    )
    bic_difference: float | None = Field(description="Likewise by BIC.")
    criterion_noise_sd: float | None = Field(
        default=None, description="Standard deviation that the privacy noise gives to both differences."
    )
    vuong_z: float | None = Field(
        description="Positive: predicted is closer to the truth; choice of children and noise together."
    )
    vuong_p: float | None = Field(description="Two-sided p of Vuong's test, of this comparison alone.")
    vuong_p_held: float | None = Field(
        default=None, description="The same, held to the comparisons that share 5 %, by Holm's method."
    )
    smallest_aic_difference: float | None = Field(
        default=None, description="What a test at 5 % finds in four of five such studies."
    )
    auc_difference: float | None = Field(
        description="Area of the predicted less that of the clinical severity."
    )
    auc_difference_interval: Interval | None = Field(
        description="95 % by DeLong; of both areas' own intervals where one is 0 or 1; null under noise."
    )
    auc_difference_p: float | None = Field(
        description="Two-sided p of DeLong's paired test; null where an area is 0 or 1."
    )
    added_p: float | None = Field(
        description="Likelihood ratio test of adding the prediction to the score; null where both together "
        "separate the children and the score alone does not."
    )
    failed: str | None = Field(default=None, description="Why something could not be computed.")
    verdict: str = Field(description="What this says, in plain words.")


class NeurocognitionSummary(Record):
    """Whether the predicted severity explains impairment better than the clinical one."""

    called_impaired_from: float | None = Field(
        default=None, description="Probability from which the protocol would call a child impaired."
    )
    exact: bool = Field(description="Whether the sums left without noise, and so without an epsilon.")
    models: list[ModelSummary] = Field(description="Every model of every outcome.")
    contests: list[Contest] = Field(description="Every comparison of predicted with clinical severity.")
