"""A personal model as data: the JSON beside its page. It stays in the hospital."""

from typing import Literal

from pydantic import Field

from esn_client.prediction.findings import RESEARCH_USE
from esn_core.released_model.content import Interval, Record

STAYS = (
    "For this hospital alone: every figure here follows from raw records of its children, without a bound. "
    "Send nothing of it."
)


class Figures(Record):
    """How well predictions follow clinical GASE."""

    children: int
    r: float | None = Field(description="Pearson correlation; null where the prediction does not vary.")
    r_interval: Interval | None = Field(description="Fisher 95 % interval.")
    mae: float = Field(description="Mean absolute error, in steps of GASE.")
    rmse: float = Field(description="Root mean squared error, in steps of GASE.")


class Edge(Record):
    """One connection of the hospital's own severity network."""

    region_a: str
    region_b: str
    weight: float = Field(description="Negative: weaker in severe epilepsy.")
    posterior_sd: float = Field(default=0.0, description="0: the weight is as it is used.")


class PersonalFindings(Record):
    """A personal model at its hospital, and what it is compared with."""

    format: Literal[1] = 1
    research_use_only: str = RESEARCH_USE
    stays: str = STAYS
    site: str
    study: str
    simulated: bool
    atlas: str
    protocol_sha256: str
    run: str
    training: int = Field(description="Own training children.")
    controls: int = Field(description="Own controls.")
    cross_validated: Figures = Field(description="Of the own training children, each by a fit without it.")
    personal: Figures | None = Field(description="Of the own held-out children; null: fewer than four.")
    consortium: Figures | None = Field(description="The consortium's model on the same children.")
    alone: Figures | None = Field(description="The same model without partners, on the same children.")
    edges: tuple[Edge, ...] = Field(description="Every candidate connection, the heaviest first.")
    made: str = Field(description="Version of the software.")
