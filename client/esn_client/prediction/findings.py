"""What is predicted of one child, as data: the JSON beside its page."""

from typing import Literal

from pydantic import Field

from esn_core.released_model.content import Interval, Record

RESEARCH_USE = "Research use only. Not a medical device. Not for decisions about a patient."


class Risk(Record):
    """The risk of one impairment."""

    outcome: str
    impaired_below: float
    column: str
    predictors: tuple[str, ...]
    risk: float | None = Field(ge=0, le=1, description="Null where it is not shown.")
    interval: Interval | None = Field(description="95 %, of the model's coefficients.")
    not_shown: str | None = Field(description="Why there is no figure.")


class Driver(Record):
    """What one connection adds to the prediction, in steps of GASE."""

    region_a: str
    region_b: str
    weight: float = Field(description="Its contribution; negative: towards less severe.")
    posterior_sd: float = Field(default=0.0, description="0: the contribution is computed, not estimated.")
    score: float = Field(description="How far the connection lies from the controls' mean, in their sd.")


class Unlike(Record):
    """How unlike the study's children, and this hospital's controls, a child is."""

    prediction_z: float | None = Field(description="Of the prediction among those of the study's children.")
    age_z: float | None = Field(description="Of the age; null: the study released none, or noise alone.")
    spread: float = Field(description="Root mean square of the child's edge scores over the candidates.")
    controls_spread: Interval | None = Field(
        description="Least and largest of the own controls, each left out; null: judged by no own controls."
    )
    missing_edges: float = Field(ge=0, le=1, description="Share of the candidates without tissue.")
    words: str


class OwnPrediction(Record):
    """What the hospital's personal model says of its own patient."""

    predicted_gase: float = Field(ge=1, le=7)
    interval: Interval = Field(description="95 %, from the model's error in the own training children.")
    children: int = Field(description="Those training children.")
    cross_validated_r: float | None = Field(description="Of them, each by a fit without it.")


class Prediction(Record):
    """What the model says of one child."""

    format: Literal[1] = 1
    research_use_only: str = RESEARCH_USE
    participant: str
    visits: int = Field(ge=1)
    model_sha256: str
    study: str
    simulated_study: bool
    controls: int = Field(description="Own controls by which the child was scored.")
    pooled_reference: bool = Field(
        default=False, description="Whether it was scored by the study's pooled controls of other hospitals."
    )
    predicted_gase: float = Field(ge=1, le=7)
    interval: Interval = Field(description="95 %, from the error in the study's held-out children.")
    personal: OwnPrediction | None = Field(
        default=None, description="By this hospital's personal model; null: there is none here."
    )
    baseline_gase: float = Field(description="What a child like the controls' mean would be predicted.")
    risks: tuple[Risk, ...]
    unlike: Unlike
    drivers: tuple[Driver, ...] = Field(description="Every candidate connection, the largest first.")
    quality: Literal["pass", "warn", "not measured"]
    notes: tuple[str, ...]
    made: str = Field(description="Version of the software.")
