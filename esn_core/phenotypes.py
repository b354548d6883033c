"""The data dictionary of a study: what the columns of participants.tsv mean, the same at every site."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from esn_core.errors import DataError

Floats = NDArray[np.float64]

Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]

MISSING = "n/a"
"""What BIDS writes where a value is not known."""


class Phenotype(BaseModel):
    """One column: a number with a unit and a range, or one of two codes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["number", "category"]
    unit: str = Field(default="", max_length=40)
    range: tuple[float, float] | None = None
    """Smallest and largest value of a number; what lies outside is a fault of the table."""
    codes: tuple[str, ...] = ()
    """The two values of a category; the second counts as 1."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind == "number" and (self.range is None or self.codes or not self.unit):
            raise ValueError("a number has a unit and a range, and no codes")
        if self.kind == "category" and (len(set(self.codes)) != 2 or self.range is not None or self.unit):
            raise ValueError("a category has two codes, and no unit or range")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"a range goes upwards, not from {self.range[0]:g} to {self.range[1]:g}")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value; 0 and 1 for a category."""
        return self.range or (0.0, 1.0)

    def value(self, text: str) -> float:
        """Read one field of the table; NaN where it is missing.

        Raises
        ------
        DataError
            It is no such value.

        """
        if text == MISSING:
            return math.nan
        if self.kind == "category":
            if text not in self.codes:
                raise DataError(f"must be {' or '.join(self.codes)} or {MISSING}, not {text!r}")
            return float(self.codes.index(text))
        low, high = self.span
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise DataError(f"must be {low:g} to {high:g} ({self.unit}) or {MISSING}, not {text!r}")
        return number


Phenotypes = Mapping[Column, Phenotype]


def scaled(values: Floats, span: tuple[float, float]) -> Floats:
    """Return (n,) values on a scale from -1 to 1 over their public range; beyond it, its ends."""
    low, high = span
    # Held to the range first: a number near the end of float64 would overflow.
    held = np.clip(values, low, high)
    place: Floats = np.clip((2 * held - low - high) / (high - low), -1.0, 1.0)
    return place
