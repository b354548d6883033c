"""The further analyses of a study, as data; each is null in result.json where the protocol does not ask."""

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Interval = tuple[float, float]


class Correlation(_Record):
    """How well predictions follow scores in children that the prediction was not made from."""

    children: float = Field(description="Released number of children; noise may make it no whole number.")
    r: float | None = Field(description="Pearson correlation; null where undefined.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval, for the choice of children.")
    r_noise_sd: float | None = Field(description="Standard deviation that the privacy noise adds to r.")
    mae: float | None = Field(description="Mean absolute error, in steps of GASE.")


class LeftOut(Correlation):
    """The held-out children of one site, predicted by a pipeline that never saw the site."""

    site: str


class CrossSite(_Record):
    """Leave one site out."""

    by_site: list[LeftOut]
    together: Correlation = Field(
        description="All sites' held-out children, each predicted without its site."
    )


class RandomScore(_Record):
    """The pipeline on scores drawn at random: what r is worth by chance."""

    draws: list[Correlation] = Field(description="Over the federation, noised and priced like the study.")
    simulated: "Permutations | None" = Field(
        description="Permuted scores where nothing is spent: children of a simulation."
    )


class Permutations(_Record):
    """Correlations under permuted scores."""

    times: int
    mean: float
    sd: float
    interval: Interval = Field(description="Middle 95 % of the correlations.")


class Compared(_Record):
    """One way to predict GASE, trained and evaluated on pooled simulated children, without noise."""

    name: str
    r: float | None
    r_interval: Interval | None
    mae: float
    rmse: float


class AloneAtSite(_Record):
    """One site that has only its own children."""

    site: str
    training: int
    r: float | None = Field(description="On the held-out children of all sites.")
    r_interval: Interval | None


class LocalOnly(_Record):
    """What each site would reach alone, and all of them pooled; in simulation, nothing is spent."""

    note: str
    by_site: list[AloneAtSite]
    mean_r: float
    pooled_r: float | None
    pooled_r_interval: Interval | None


class Harmonisation(_Record):
    """How scanners' effects were removed."""

    method: str
    note: str
    compared: list[Compared] | None = Field(
        description="The same linear predictor under other ways, on the simulated children; null elsewhere."
    )


class EdgeShare(_Record):
    """What one connection adds to the predictions."""

    region_a: str
    region_b: str
    mean: float = Field(description="Mean attribution over the held-out children, in steps of GASE.")


class Explanation(_Record):
    """Integrated gradients of the held-out children's predictions."""

    edges: list[EdgeShare]
    noise_sd: float = Field(description="Standard deviation that the noise gives to each mean.")
    truth_r: float | None = Field(
        description="Correlation of attributions' size with the true effects; simulated children only."
    )


class GroupSummary(_Record):
    """Age and sex of a group."""

    people: float
    mean_age_years: float | None
    sd_age_years: float | None
    share_male: float | None


class CohortSummary(_Record):
    """Training children and controls, and who was left out."""

    children: GroupSummary
    controls: GroupSummary
    age_difference: float | None = Field(description="Standardised mean difference; below 0.1 is balanced.")
    sex_difference: float | None
    left_out: dict[str, float | None] = Field(description="By reason; null: fewer than the minimum.")


class Coefficient(_Record):
    """One predictor of one model."""

    name: str
    coefficient: float
    standard_error: float
    noise_sd: float
    odds_ratio: float | None = Field(description="Per unit; null where it is beyond all numbers.")
    odds_ratio_interval: Interval | None
    p_value: float


class ModelSummary(_Record):
    """One model of one impairment, logistic; and of its score, linear."""

    outcome: str
    predictors: list[str]
    children: float | None
    impaired: float | None
    coefficients: list[Coefficient]
    log_likelihood: float | None
    aic: float | None
    bic: float | None
    auc: float | None
    auc_interval: Interval | None
    auc_interval_by: str | None
    brier: float | None
    hosmer_lemeshow_p: float | None
    guard: str | None
    r_squared: float | None = Field(description="Of the linear model of the score.")
    failed: str | None


class Contest(_Record):
    """A model with the predicted severity against the same one with the clinical score."""

    outcome: str
    others: list[str] = Field(description="What both models hold besides.")
    aic_difference: float | None = Field(
        description="Predicted less clinical; negative: the prediction explains more."
    )
    bic_difference: float | None
    vuong_z: float | None = Field(description="Positive: predicted is closer to the truth.")
    vuong_p: float | None
    auc_difference: float | None
    auc_difference_interval: Interval | None
    auc_difference_p: float | None
    added_p: float | None = Field(description="Likelihood ratio test of adding the prediction to the score.")
    verdict: str


class NeurocognitionSummary(_Record):
    """Whether the predicted severity explains impairment better than the clinical one."""

    exact: bool = Field(description="Whether the sums left without noise, and so without an epsilon.")
    models: list[ModelSummary]
    contests: list[Contest]


RandomScore.model_rebuild()
