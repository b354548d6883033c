"""The data dictionary of a study: what the columns of participants.tsv mean, the same at every site."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from esn_core.arrays import Floats

if TYPE_CHECKING:  # a guard reads protocols, and no table
    import pandas as pd


Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]

_Value = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Of a clinical table: a life has some 40,000 days, and a score a few hundred points."""

MISSING = "n/a"
"""What BIDS writes where a value is not known."""

_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


class Phenotype(BaseModel):
    """One column: a number with a unit and a range, or one of two codes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["number", "category"]
    unit: str = Field(default="", max_length=60)
    """As people read it in a refusal, on one line."""
    range: tuple[_Value, _Value] | None = None
    """Smallest and largest value of a number; what lies outside is a fault of the table."""
    codes: tuple[Annotated[str, Field(max_length=40)], ...] = Field(default=(), max_length=10)
    """The two values of a category; the second counts as 1. More than two are refused in words of their own,
    and more than ten without reading them."""

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

    @property
    def expected(self) -> str:
        """What a field of the column may be, in words."""
        if self.kind == "category":
            return f"{' or '.join(self.codes)} or {MISSING}"
        low, high = self.span
        return f"{low:g} to {high:g} ({self.unit}) or {MISSING}"

    def values(self, texts: "pd.Series[str]") -> "pd.Series[float]":
        """Read a column of the table.

        Parameters
        ----------
        texts : (n,) Series of str
            As they stand in the table.

        Returns
        -------
        (n,) Series of float64
            Numbers, or the place of a code; NaN where the text is `MISSING`, and where it is no such value: a
            number is written with a decimal point, without spaces and without marks between thousands.

        """
        if self.kind == "category":
            return texts.map({code: float(k) for k, code in enumerate(self.codes)}).astype("float64")
        numbers = texts.where(texts.str.fullmatch(_NUMBER), "nan").astype("float64")
        return numbers.where(numbers.between(*self.span))


Phenotypes = Mapping[Column, Phenotype]


def scaled(values: Floats, span: tuple[float, float]) -> Floats:
    """Return (n,) values on a scale from -1 to 1 over their public range; beyond it, its ends."""
    low, high = span
    # Held to the range first: a number near the end of float64 would overflow.
    held = np.clip(values, low, high)
    place: Floats = np.clip((2 * held - low - high) / (high - low), -1.0, 1.0)
    return place
