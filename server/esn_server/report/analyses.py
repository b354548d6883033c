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

    site: str = Field(description="Name of the site that was left out.")


class CrossSite(_Record):
    """Leave one site out."""

    by_site: list[LeftOut] = Field(
        description="One entry a site; empty under noise, which would leave nothing of so few children."
    )
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

    times: int = Field(description="How many permutations.")
    mean: float = Field(description="Mean correlation.")
    sd: float = Field(description="Standard deviation of the correlations.")
    interval: Interval = Field(description="Middle 95 % of the correlations.")


class Compared(_Record):
    """One way to predict GASE, trained and evaluated on pooled simulated children, without noise."""

    name: str = Field(description="Name of the predictor.")
    r: float | None = Field(description="Pearson correlation; null where the prediction does not vary.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval.")
    mae: float = Field(description="Mean absolute error, in steps of GASE.")
    rmse: float = Field(description="Root mean squared error, in steps of GASE.")


class AloneAtSite(_Record):
    """One site that has only its own children."""

    site: str = Field(description="Name of the site.")
    training: int = Field(description="Its training children.")
    r: float | None = Field(description="On the held-out children of all sites.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval.")


class LocalOnly(_Record):
    """What each site would reach alone, and all of them pooled; in simulation, nothing is spent."""

    note: str = Field(description="How this was computed, in words.")
    by_site: list[AloneAtSite] = Field(description="One entry a site.")
    mean_r: float = Field(description="Mean correlation over the sites.")
    pooled_r: float | None = Field(description="Correlation with all training children pooled.")
    pooled_r_interval: Interval | None = Field(description="Fisher 95 % interval.")


class Harmonisation(_Record):
    """How scanners' effects were removed."""

    method: str = Field(description="Name of the method.")
    note: str = Field(description="What it does, in words.")
    compared: list[Compared] | None = Field(
        description="The same linear predictor under other ways, on the simulated children; null elsewhere."
    )


class EdgeShare(_Record):
    """What one connection adds to the predictions."""

    region_a: str = Field(description="Atlas name of one end.")
    region_b: str = Field(description="Atlas name of the other end.")
    mean: float = Field(description="Mean attribution over the held-out children, in steps of GASE.")


class Explanation(_Record):
    """Integrated gradients of the held-out children's predictions."""

    edges: list[EdgeShare] = Field(description="Every candidate connection, the largest contribution first.")
    noise_sd: float = Field(description="Standard deviation that the noise gives to each mean.")
    truth_r: float | None = Field(
        description="Correlation of attributions' size with the true effects; simulated children only."
    )


class ExactEdge(_Record):
    """One candidate connection of the exact network."""

    region_a: str = Field(description="Atlas name of one end.")
    region_b: str = Field(description="Atlas name of the other end.")
    r: float | None = Field(description="Partial correlation with GASE; null where nothing varies.")
    p: float | None = Field(description="Two-sided p, of this connection alone.")
    retained: bool = Field(description="At a false discovery rate of 5 % (Benjamini and Hochberg).")
    frequency: float | None = Field(description="Share of the bootstrap's draws that retain it.")
    component: int | None = Field(description="Number of its component; null below the threshold.")


class NetworkComponent(_Record):
    """Connections beyond the threshold that hang together."""

    number: int = Field(description="1 is the largest.")
    edges: int = Field(description="Its connections.")
    regions: int = Field(description="The regions that they join.")
    p: float | None = Field(description="By the largest component of each draw of the null.")


class ExactNetworkSummary(_Record):
    """The severity network by partial correlations given age, sex and site; from exact sums, no epsilon."""

    children: int = Field(description="Training children.")
    freedom: int = Field(description="Children less sites, covariates and one.")
    edges: list[ExactEdge] = Field(description="Every candidate connection, the largest correlation first.")
    retained: int = Field(description="Connections retained at the false discovery rate.")
    t_threshold: float = Field(description="Size of t beyond which a connection belongs to a component.")
    components: list[NetworkComponent] = Field(description="Of the network-based statistic, largest first.")
    null_draws: int = Field(description="Draws without an effect.")
    largest_by_chance: float | None = Field(
        description="Connections of the largest component in the 95th of a hundred draws; null without draws."
    )
    bootstrap_draws: int = Field(description="Draws of the network from other children.")


class GroupSummary(_Record):
    """Age and sex of a group."""

    people: float = Field(description="Number of people; noise may make it no whole number.")
    mean_age_years: float | None = Field(description="Mean age; null where noise left nothing possible.")
    sd_age_years: float | None = Field(description="Standard deviation of age.")
    share_male: float | None = Field(description="Share of boys.")


class CohortSummary(_Record):
    """Training children and controls, and who was left out."""

    children: GroupSummary = Field(description="Training children with epilepsy.")
    controls: GroupSummary = Field(description="Healthy controls.")
    age_difference: float | None = Field(description="Standardised mean difference; below 0.1 is balanced.")
    sex_difference: float | None = Field(description="Standardised difference of the shares of boys.")
    left_out: dict[str, float | None] = Field(description="By reason; null: fewer than the minimum.")


class Coefficient(_Record):
    """One predictor of one model."""

    name: str = Field(description="Predictor, or intercept.")
    coefficient: float = Field(description="Log odds ratio per unit of the predictor.")
    standard_error: float = Field(description="For the choice of children.")
    noise_sd: float = Field(description="Standard deviation that the privacy noise gives to it.")
    odds_ratio: float | None = Field(description="Per unit; null where it is beyond all numbers.")
    odds_ratio_interval: Interval | None = Field(
        description="95 % by Wald, choice of children and noise together."
    )
    p_value: float = Field(description="Two-sided, of the same two together.")


class ModelSummary(_Record):
    """One model of one impairment, logistic; and of its score, linear."""

    outcome: str = Field(description="Name of the impairment.")
    predictors: list[str] = Field(description="Predictors, the intercept left out.")
    children: float | None = Field(description="Children whose predictors and score are all known.")
    impaired: float | None = Field(description="How many of them are impaired.")
    coefficients: list[Coefficient] = Field(
        description="The intercept first; empty where the model could not be fitted."
    )
    log_likelihood: float | None = Field(description="Of the logistic model.")
    aic: float | None = Field(description="Akaike's criterion.")
    bic: float | None = Field(description="Bayesian criterion.")
    auc: float | None = Field(description="Area under the ROC curve.")
    auc_interval: Interval | None = Field(description="95 % interval of the area.")
    auc_interval_by: str | None = Field(description="Whose interval it is.")
    brier: float | None = Field(description="Mean squared difference of probability and outcome.")
    hosmer_lemeshow_p: float | None = Field(description="p of Hosmer and Lemeshow's test; null under noise.")
    guard: str | None = Field(description="What kept the fit from running away, in words.")
    r_squared: float | None = Field(description="Of the linear model of the score.")
    failed: str | None = Field(description="Why something could not be fitted.")


class Contest(_Record):
    """A model with the predicted severity against the same one with the clinical score."""

    outcome: str = Field(description="Name of the impairment.")
    others: list[str] = Field(description="What both models hold besides.")
    aic_difference: float | None = Field(
        description="Predicted less clinical; negative: the prediction explains more."
    )
    bic_difference: float | None = Field(description="Likewise by BIC.")
    vuong_z: float | None = Field(description="Positive: predicted is closer to the truth.")
    vuong_p: float | None = Field(description="Two-sided p of Vuong's test.")
    auc_difference: float | None = Field(
        description="Area of the predicted less that of the clinical severity."
    )
    auc_difference_interval: Interval | None = Field(description="95 % by DeLong; null under noise.")
    auc_difference_p: float | None = Field(description="Two-sided p of DeLong's paired test.")
    added_p: float | None = Field(description="Likelihood ratio test of adding the prediction to the score.")
    verdict: str = Field(description="What this says, in plain words.")


class NeurocognitionSummary(_Record):
    """Whether the predicted severity explains impairment better than the clinical one."""

    exact: bool = Field(description="Whether the sums left without noise, and so without an epsilon.")
    models: list[ModelSummary] = Field(description="Every model of every outcome.")
    contests: list[Contest] = Field(description="Every comparison of predicted with clinical severity.")


RandomScore.model_rebuild()
