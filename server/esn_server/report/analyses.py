"""The further analyses of a study, as data; each is null in result.json where the protocol does not ask."""

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Frozen, without unknown fields, without NaN or infinity (JSON has neither)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Interval = tuple[float, float]


class Estimated(Record):
    """A figure with its interval, for the choice of children and the privacy noise together."""

    value: float = Field(description="The estimate; under noise the middle of what can be true.")
    interval: Interval = Field(description="95 % interval; choice of children and noise.")


class AgreementEstimates(Record):
    """What the sums of predicted and clinical GASE tell, whatever the noise did to them."""

    children: Estimated = Field(description="Number of children; without noise it is known.")
    r: Estimated | None = Field(description="Pearson correlation; null only if scores do not vary.")
    mae: Estimated | None = Field(description="Mean absolute error, in steps of GASE.")
    rmse: Estimated | None = Field(description="Root mean squared error; the interval is of normal errors.")
    calibration_slope: Estimated | None = Field(description="Of clinical on predicted GASE; 1 is ideal.")
    calibration_intercept: Estimated | None = Field(description="Likewise, in steps of GASE; 0 is ideal.")


class Subgroup(Record):
    """How the prediction does in one group of the held-out children."""

    name: str = Field(description="Girls, boys, or a band of ages.")
    estimates: AgreementEstimates | None = Field(
        description="What its sums tell; null where it has fewer children than the protocol's minimum, or "
        "may have, as far as the noise allows to know."
    )


class Correlation(Record):
    """How well predictions follow scores in children that the prediction was not made from."""

    children: float = Field(description="Released number of children; noise may make it no whole number.")
    r: float | None = Field(description="Pearson correlation; null where undefined.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval, for the choice of children.")
    r_noise_sd: float | None = Field(description="Standard deviation that the privacy noise adds to r.")
    mae: float | None = Field(description="Mean absolute error, in steps of GASE.")
    estimates: AgreementEstimates | None = Field(
        default=None, description="What the sums tell, with intervals that hold the noise."
    )


class LeftOut(Correlation):
    """The held-out children of one site, predicted by a pipeline that never saw the site."""

    site: str = Field(description="Name of the site that was left out.")


class CrossSite(Record):
    """Leave one site out."""

    by_site: list[LeftOut] = Field(
        description="One entry a site; empty under noise, which would leave nothing of so few children."
    )
    together: Correlation = Field(
        description="All sites' held-out children, each predicted without its site."
    )


class RandomScore(Record):
    """The pipeline on scores drawn at random: what r is worth by chance."""

    draws: list[Correlation] = Field(description="Over the federation, noised and priced like the study.")
    simulated: "Permutations | None" = Field(
        description="Permuted scores where nothing is spent: children of a simulation."
    )


class Permutations(Record):
    """Correlations under permuted scores."""

    times: int = Field(description="How many permutations.")
    mean: float = Field(description="Mean correlation.")
    sd: float = Field(description="Standard deviation of the correlations.")
    interval: Interval = Field(description="Middle 95 % of the correlations.")


class Compared(Record):
    """One way to predict GASE, trained and evaluated on pooled simulated children, without noise."""

    name: str = Field(description="Name of the predictor.")
    r: float | None = Field(description="Pearson correlation; null where the prediction does not vary.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval.")
    mae: float = Field(description="Mean absolute error, in steps of GASE.")
    rmse: float = Field(description="Root mean squared error, in steps of GASE.")


class AloneAtSite(Record):
    """One site that has only its own children."""

    site: str = Field(description="Name of the site.")
    training: int = Field(description="Its training children.")
    by: str | None = Field(
        default=None, description="What its own cross-validation chose; null: the study's own pipeline."
    )
    r: float | None = Field(description="On the held-out children of all sites.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval.")


class LocalOnly(Record):
    """What each site would reach alone, and all of them pooled; in simulation, nothing is spent."""

    note: str = Field(description="How this was computed, in words.")
    by_site: list[AloneAtSite] = Field(description="One entry a site.")
    mean_r: float = Field(description="Mean correlation over the sites.")
    pooled_r: float | None = Field(description="Correlation with all training children pooled.")
    pooled_r_interval: Interval | None = Field(description="Fisher 95 % interval.")


class Harmonisation(Record):
    """How scanners' effects were removed."""

    method: str = Field(description="Name of the method.")
    note: str = Field(description="What it does, in words.")
    compared: list[Compared] | None = Field(
        description="The same linear predictor under other ways, on the simulated children; null elsewhere."
    )


class EdgeShare(Record):
    """What one connection adds to the predictions."""

    region_a: str = Field(description="Atlas name of one end.")
    region_b: str = Field(description="Atlas name of the other end.")
    mean: float = Field(description="Mean attribution over the held-out children, in steps of GASE.")


class Explanation(Record):
    """Integrated gradients of the held-out children's predictions."""

    edges: list[EdgeShare] = Field(description="Every candidate connection, the largest contribution first.")
    noise_sd: float = Field(description="Standard deviation that the noise gives to each mean.")
    sampling_sd: float | None = Field(
        default=None,
        description="The most that the choice of children gives to a mean, root mean square of all edges.",
    )
    truth_r: float | None = Field(
        description="Correlation of attributions' size with the true effects; simulated children only."
    )


class ExactEdge(Record):
    """One candidate connection of the exact network."""

    region_a: str = Field(description="Atlas name of one end.")
    region_b: str = Field(description="Atlas name of the other end.")
    r: float | None = Field(description="Partial correlation with GASE; null where nothing varies.")
    p: float | None = Field(description="Two-sided p, of this connection alone.")
    retained: bool = Field(description="At a false discovery rate of 5 % (Benjamini and Hochberg).")
    frequency: float | None = Field(description="Share of the bootstrap's draws that retain it.")
    component: int | None = Field(description="Number of its component; null below the threshold.")


class NetworkComponent(Record):
    """Connections beyond the threshold that hang together."""

    number: int = Field(description="1 is the largest.")
    edges: int = Field(description="Its connections.")
    regions: int = Field(description="The regions that they join.")
    p: float | None = Field(description="By the largest component of each draw of the null.")


class ExactNetworkSummary(Record):
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


class GroupSummary(Record):
    """Age and sex of a group."""

    people: float = Field(description="Number of people; noise may make it no whole number.")
    mean_age_years: float | None = Field(
        description="Mean age, above 25 counted as 25; null where noise left nothing possible."
    )
    sd_age_years: float | None = Field(description="Standard deviation of age.")
    share_male: float | None = Field(description="Share of boys.")


class CohortSummary(Record):
    """Training children and controls, and who was left out."""

    children: GroupSummary = Field(description="Training children with epilepsy.")
    controls: GroupSummary = Field(description="Healthy controls.")
    age_difference: float | None = Field(description="Standardised mean difference; below 0.1 is balanced.")
    sex_difference: float | None = Field(description="Standardised difference of the shares of boys.")
    left_out: dict[str, float | None] = Field(description="By reason; null: fewer than the minimum.")


RandomScore.model_rebuild()
