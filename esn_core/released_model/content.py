"""What a released model says of itself: model.json, which is signed."""

import hashlib
import json
import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import stdtrit

from esn_core.arrays import Floats
from esn_core.gase import GASE_LEVELS
from esn_core.identity.roster import SiteName

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Interval = tuple[float, float]

# A probability from here to there says nothing about a child.
_WIDEST_RISK = 0.8
_Z_95 = 1.959963984540054


class Record(BaseModel):
    """Frozen, without unknown fields, without NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def half_width(children: float, rmse: float) -> float:
    """Return half of the 95 % interval of one child's clinical GASE, in steps.

    Student's quantile times the error of one more child, as if errors were normal, and alike at any severity.

    Parameters
    ----------
    children : float
        In whom the error was found.
    rmse : float
        Root mean squared error, in steps of GASE.

    """
    quantile = float(stdtrit(max(children - 1, 1.0), 0.975))
    return quantile * rmse * math.sqrt(1 + 1 / children)


class ErrorOfPrediction(Record):
    """How far predictions lay from clinical GASE in held-out children, in steps of GASE."""

    children: float = Field(gt=1, description="How many; noise may make it no whole number.")
    rmse: float = Field(gt=0, description="Root mean squared error.")
    rmse_interval: Interval = Field(description="95 % interval of it, the noise included.")
    r: float = Field(ge=-1, le=1, description="Correlation of predicted and clinical GASE.")
    r_interval: Interval = Field(description="95 % interval of it, the noise included.")

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of one child's clinical GASE, in steps: no release of its own."""
        return half_width(self.children, self.rmse)

    def interval(self, predicted: float) -> Interval:
        """Return the 95 % interval of the clinical GASE of a child, held to the scale."""
        low, high = float(GASE_LEVELS[0]), float(GASE_LEVELS[-1])
        return max(predicted - self.half_width, low), min(predicted + self.half_width, high)


class StudysChildren(Record):
    """What the study released of its children, by which another child is called unlike them."""

    mean_prediction: float | None = Field(description="Of the held-out children, in steps of GASE.")
    sd_prediction: float | None = Field(description="Standard deviation between them.")
    mean_age_years: float | None = Field(description="Of the training children; null: not released.")
    sd_age_years: float | None = Field(
        description="Between them; null: not released, or not told from noise."
    )


class RiskModel(Record):
    """A fitted logistic model of one impairment."""

    outcome: str = Field(description="Name of the impairment.")
    column: str = Field(description="The score that it is read from.")
    impaired_below: float = Field(description="Its cut-off.")
    predictors: tuple[str, ...] = Field(min_length=1, description="In the units of the data dictionary.")
    coefficients: tuple[float, ...] = Field(description="Log odds; the intercept first.")
    covariance: tuple[tuple[float, ...], ...] = Field(
        description="Of the coefficients, for the choice of children and the noise together."
    )
    children: float = Field(description="To whom it was fitted.")
    impaired: float = Field(description="How many of them are impaired.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        size = 1 + len(self.predictors)
        if len(self.coefficients) != size or [len(row) for row in self.covariance] != [size] * size:
            raise ValueError(f"{len(self.predictors)} predictors have {size} coefficients, and a covariance")
        return self

    def risk(self, values: Floats) -> tuple[float, Interval] | None:
        """Return the probability of the impairment with its 95 % interval; None where it says nothing.

        Parameters
        ----------
        values : (k,) float64
            Of the predictors, in their order and units.

        """
        features = np.concatenate([[1.0], values])
        logit = float(features @ np.array(self.coefficients))
        spread = _Z_95 * math.sqrt(max(float(features @ np.array(self.covariance) @ features), 0.0))
        low, middle, high = (_probability(logit + by) for by in (-spread, 0.0, spread))
        return None if high - low > _WIDEST_RISK else (middle, (low, high))


class Reference(Record):
    """What a child's connections are judged by, and where the candidates come from."""

    method: Literal["site-controls", "own-controls", "public-template"]
    words: str
    fewest_controls: int = Field(ge=3, description="Own controls that a hospital needs.")
    template_sha256: Digest
    candidates: str = Field(description="Where the list of candidate connections comes from, in words.")


class ModelContent(Record):
    """Everything that a released model says, but for its numbers and its texts, whose hashes it names."""

    format: Literal[1] = 1
    study: str
    run: str
    protocol_sha256: Digest
    simulated: bool
    sites: tuple[SiteName, ...] = Field(min_length=1, description="Who took part, and countersigns.")
    software: dict[str, str] = Field(description="Versions with which the study was computed.")
    atlas: str
    atlas_sha256: Digest
    recipe_sha256: Digest
    reference: Reference
    calibration: tuple[float, float] = Field(description="Intercept and slope of raw predictions.")
    error: ErrorOfPrediction
    children: StudysChildren
    probe: float = Field(description="What the network gives for a public pattern: software is tried by it.")
    random_r: tuple[float | None, ...] = Field(description="Of pipelines trained on random scores.")
    risks: tuple[RiskModel, ...]
    intended_use: str
    not_intended: str
    files: dict[str, Digest] = Field(description="SHA-256 of every other file of the model.")

    @property
    def canonical(self) -> bytes:
        """The bytes of model.json: one form for one content."""
        content = self.model_dump(mode="json")
        return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def sha256(self) -> str:
        """By which the model is known: what the centre and the sites sign."""
        return hashlib.sha256(self.canonical).hexdigest()


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 500.0), -500.0)))
