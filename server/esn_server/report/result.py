"""The result of a study, as data: what result.json holds and what each field means."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from esn_core.errors import ProtocolError
from esn_core.formats import RESULT, version_in
from esn_core.system.files import write_whole
from esn_server.report.analyses import (
    AgreementEstimates,
    CohortSummary,
    Compared,
    Correlation,
    CrossSite,
    ExactNetworkSummary,
    Explanation,
    Harmonisation,
    LocalOnly,
    RandomScore,
    Record,
    Subgroup,
)
from esn_server.report.impairment import NeurocognitionSummary

Epsilon = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Trust = Literal["local", "secure-sum"]
Noise = Literal["gaussian", "none"]
Children = Literal["training", "held-out", "controls", "none"]


class SiteSummary(Record):
    """One hospital, as far as the roll call told."""

    name: str = Field(min_length=1, description="The site's name in the roster of the protocol.")
    cohort_size_band: str = Field(
        description='Band of the number of children with epilepsy, e.g. "16-31"; not protected by ε.'
    )
    software: dict[str, str] = Field(description="Version of each program that the site answered with.")


class PublicInput(Record):
    """What entered the study beside people's data."""

    kind: Literal["atlas", "weights", "template"] = Field(description="What it is.")
    name: str = Field(description="By which the protocol calls it.")
    files: dict[str, str] = Field(description="SHA-256 of its files, by their names.")
    origin: str = Field(description="Where it is from, and whom to cite.")
    licence: str = Field(description="Its licence.")
    people: int = Field(ge=0, description="Made of so many people; 0: of none, or unknown.")
    ships: bool = Field(description="Whether it is part of the software; else it came with the protocol.")


class GaseBin(Record):
    """The held-out children of one step of clinical GASE, as noisy sums."""

    gase: int = Field(ge=1, le=7, description="Step of the clinical score.")
    children: float = Field(description="Released number of held-out children; noise may make it negative.")
    mean_prediction: float | None = Field(
        description="Mean predicted GASE; null where the noisy count is below 1, or the mean outside 1 to 7."
    )
    sd_prediction: float | None = Field(
        ge=0, description="Standard deviation of predicted GASE; null where the noisy sums allow none."
    )


class Evaluation(Record):
    """How well the prediction follows clinical GASE in the pooled held-out children."""

    children: float = Field(description="Released number of held-out children, a noisy count.")
    r: float | None = Field(
        ge=-1, le=1, description="Pearson correlation of predicted and clinical GASE; null where undefined."
    )
    r_interval: tuple[float, float] | None = Field(
        description="Fisher 95 % interval of r for the choice of children, without the privacy noise."
    )
    r_noise_sd: float | None = Field(
        ge=0, description="Standard deviation that the privacy noise adds to r, by simulation."
    )
    mae: float | None = Field(ge=0, description="Mean absolute error, in steps of GASE.")
    mae_noise_sd: float | None = Field(
        ge=0, description="Standard deviation that the privacy noise adds to the mean absolute error."
    )
    rmse: float | None = Field(ge=0, description="Root mean squared error, in steps of GASE.")
    calibration_slope: float | None = Field(
        description="Slope of clinical GASE on predicted GASE; 1 is ideal."
    )
    calibration_intercept: float | None = Field(
        description="Intercept of clinical GASE on predicted GASE, in steps of GASE; 0 is ideal."
    )
    by_gase: list[GaseBin] = Field(description="Predictions summed by step of clinical GASE.")
    estimates: AgreementEstimates | None = Field(
        default=None, description="What the sums tell, with intervals that hold the noise."
    )
    undefined_because: str | None = Field(
        description="Why r, and with it the others, is null. An error alone is null if its sum is negative."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.r is None and not self.undefined_because:
            raise ValueError("r is null, so undefined_because must say why")
        if self.r_interval is not None and (
            self.r is None or not -1 <= self.r_interval[0] <= self.r_interval[1] <= 1
        ):
            raise ValueError("r_interval must be (low, high) within -1 and 1, and null where r is null")
        if len({row.gase for row in self.by_gase}) < len(self.by_gase):
            raise ValueError("by_gase must hold each step of GASE at most once")
        return self


class NetworkEdge(Record):
    """One connection of the severity network."""

    region_a: str = Field(description="Atlas name of one end.")
    region_b: str = Field(description="Atlas name of the other end.")
    weight: float = Field(
        description="Posterior mean of edge score times clipped severity residual, a covariance; negative: "
        "weaker when severe."
    )
    posterior_sd: float = Field(
        ge=0, description="Posterior standard deviation of the weight; 0 without noise."
    )
    score_per_gase: float | None = Field(
        default=None,
        description="The weight as a slope: by how much the connection's score changes per step of GASE, in "
        "standard deviations of the controls, shrunk as the weight is; null where no sum tells.",
    )


class NetworkTruth(Record):
    """How many of the listed connections belong to the hidden network of simulated children."""

    listed: int = Field(ge=0, description="Listed connections that belong to the true network.")
    same_sign: int = Field(ge=0, description="Those of them whose weight has the sign of the true effect.")
    candidates: int = Field(ge=0, description="Candidates that belong to the true network.")


class SeverityNetwork(Record):
    """The connections whose strength goes along with severity."""

    atlas: str = Field(description="Name of the atlas whose regions the edges join.")
    edges: list[NetworkEdge] = Field(
        description="The retained connections and others worth showing, strongest first."
    )
    candidates: int = Field(ge=0, description="Connections that were looked at.")
    retained: int = Field(
        ge=0,
        description="Connections that are more likely in the network than not, were they independent; no "
        "error rate holds for it.",
    )
    private: bool = Field(description="Whether the selection is protected by noise and priced in ε.")
    note: str = Field(description="How the candidates were named and the weights shrunk, in words.")
    truth: NetworkTruth | None = Field(
        default=None, description="Agreement with the true network, in simulation; null for real children."
    )

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if not self.retained <= len(self.edges) <= self.candidates:
            raise ValueError(
                f"edges must hold the {self.retained} retained connections and at most"
                f" the {self.candidates} candidates, not {len(self.edges)} connections"
            )
        return self


class RoundLoss(Record):
    """The training loss of one round, itself a released noisy sum."""

    round: int = Field(ge=0, description="Number of the training round.")
    loss: float | None = Field(
        description="Mean clipped squared error of a training child, in training's units; null where unknown."
    )


class PhasePrice(Record):
    """What one phase released, and what it would cost by itself."""

    phase: str = Field(description="Name of the phase in the protocol.")
    children: Children = Field(description="Whose records the phase touched.")
    releases: int = Field(ge=0, description="Vectors that each site released.")
    noise_multiplier: float | None = Field(
        ge=0, description="Noise sd of one release divided by its sensitivity; null without noise."
    )
    epsilon: Epsilon | None = Field(description="ε of this phase alone at the study's δ; null: no bound.")


class PrivacySummary(Record):
    """The price of the study for one child, and the terms it was computed under."""

    trust: Trust = Field(description="local: each site adds full noise; secure-sum: sites share the noise.")
    colluding_sites: int | None = Field(
        ge=0,
        description="So many sites may side with the centre and every ε below still holds; null: any number.",
    )
    noise: Noise = Field(description="gaussian, or none for a study declared without noise.")
    delta: float = Field(gt=0, lt=1, description="δ of (ε, δ) differential privacy.")
    unit: str = Field(description="What one unit of privacy is.")
    adjacency: str = Field(description="Which two data sets count as neighbours.")
    epsilon_training_child: Epsilon | None = Field(
        description="ε of the whole study for one training child; null: no bound."
    )
    epsilon_held_out_child: Epsilon | None = Field(
        description="ε of the whole study for one held-out child; null: no bound."
    )
    epsilon_replace_one_training_child: Epsilon | None = Field(
        description="ε for a training child under replace-one adjacency; null: no bound."
    )
    epsilon_replace_one_held_out_child: Epsilon | None = Field(
        description="ε for a held-out child under replace-one adjacency; null: no bound."
    )
    exact_phases: list[str] = Field(
        description="Phases of a private study that were declared exact: they have no ε."
    )
    epsilon_of_noised: Epsilon | None = Field(
        description="Larger ε of the two kinds of children, exact phases left out; null without noise."
    )
    members_found: float | None = Field(
        ge=0,
        le=1,
        description=(
            "Largest share of the children that any attack finds, at one false alarm in a hundred children "
            "who did not take part; null: no bound."
        ),
    )
    controls_note: str = Field(description="What is and is not promised to the controls.")
    phases: list[PhasePrice] = Field(description="Every phase in order, those that cost nothing included.")

    @model_validator(mode="after")
    def _bounded_by_noise(self) -> Self:
        totals = (
            self.epsilon_training_child,
            self.epsilon_held_out_child,
            self.epsilon_replace_one_training_child,
            self.epsilon_replace_one_held_out_child,
            self.members_found,
        )
        if self.noise == "none" and any(epsilon is not None for epsilon in totals):
            raise ValueError("without noise there is no bound, so each total must be null")
        return self


class StudyResult(Record):
    """All that a study found, and nothing about any one child."""

    format: Literal[1] = Field(default=1, description="Version of this schema.")
    study: str = Field(min_length=1, description="Identifier of the study in the protocol.")
    protocol_sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="SHA-256 of the protocol's canonical form, in hexadecimal."
    )
    run: str = Field(min_length=1, description="Identifier of this run of the study.")
    simulated: bool = Field(description="Whether the children were simulated.")
    sites: list[SiteSummary] = Field(description="The hospitals that answered.")
    inputs: list[PublicInput] = Field(
        default_factory=list, description="The public inputs; the candidates' origin is with the network."
    )
    evaluation: Evaluation = Field(description="Predicted against clinical GASE in held-out children.")
    local_only: LocalOnly | None = Field(
        default=None,
        description="One site alone, in simulation; null for real children: it stays at the site.",
    )
    baselines: list[Compared] | None = Field(
        default=None, description="Other predictors, in simulation; null for real children."
    )
    random_score: RandomScore | None = Field(default=None, description="Scores drawn at random.")
    cross_site: CrossSite | None = Field(default=None, description="Leave one site out.")
    cross_validation: Correlation | None = Field(default=None, description="Of the training children.")
    subgroups: list[Subgroup] | None = Field(
        default=None, description="The evaluation by sex and by age; a child is in one group of each."
    )
    severity_network: SeverityNetwork = Field(description="The epilepsy severity network (ESN).")
    exact_network: ExactNetworkSummary | None = Field(
        default=None, description="The network by partial correlations, from exact sums."
    )
    explanation: Explanation | None = Field(default=None, description="What each connection contributes.")
    harmonisation: Harmonisation = Field(description="How scanners' effects were removed.")
    cohort: CohortSummary | None = Field(default=None, description="Matching, and who was left out.")
    neurocognition: NeurocognitionSummary | None = Field(
        default=None, description="Predicted against clinical severity as explanations of impairment."
    )
    absent: dict[str, str] = Field(
        default_factory=dict, description="Why an analysis above is null, in words, by its name."
    )
    training: str | None = Field(default=None, description="The strategy, its rounds and steps, in words.")
    learning_curve: list[RoundLoss] = Field(description="Training loss by round.")
    privacy: PrivacySummary = Field(description="The privacy price by phase and in total.")
    timing_s: dict[str, Seconds] = Field(description="Duration of each step, in seconds.")
    warnings: list[str] = Field(description="What a reader must know before trusting the figures.")

    @model_validator(mode="after")
    def _absent_where_null(self) -> Self:
        present = [name for name in self.absent if getattr(self, name, self) is not None]
        if present:
            raise ValueError(f"absent may name analyses that are null, not {', '.join(present)}")
        return self


def write_result(result: StudyResult, path: Path) -> None:
    """Write result.json, whole or not at all.

    Parameters
    ----------
    result : StudyResult
        What to write.
    path : Path
        The file; it is replaced in one step once the new content is on disk.

    """
    write_whole(path, (result.model_dump_json(indent=2) + "\n").encode())


def read_result(path: Path) -> StudyResult:
    """Read a result.json.

    Parameters
    ----------
    path : Path
        A file that `write_result` wrote.

    Returns
    -------
    StudyResult
        The checked content.

    Raises
    ------
    ProtocolError
        The file cannot be read, a newer release wrote it, or its content does not follow the schema; one
        line names every fault.

    """
    try:
        content = path.read_bytes()
        fault = RESULT.fault_in(version_in(content))
        if fault:
            raise ProtocolError(f"{path}: {fault}")
        return StudyResult.model_validate_json(content)
    except OSError as error:
        raise ProtocolError(f"{path}: cannot be read as a study result: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(_fault(fault["loc"], fault["msg"]) for fault in error.errors(include_url=False))
        raise ProtocolError(f"{path}: not a study result: {faults}") from error


def _fault(place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in place)
    return f"{name}: {message}" if name else message
