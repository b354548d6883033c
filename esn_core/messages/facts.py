"""What a site says of itself: at roll call, and with every sum, the end of its ledger."""

import math
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

_SMALLEST_STEP, _LARGEST_STEP = 7, 46


def size_band(children: int, *, secret: float) -> str:
    """Return a band that holds a cohort's size: 0-15, 12-22, 16-31, 23-45, 32-63 and so on.

    Each band overlaps the next. Where within the overlap one ends and the other begins is not to be seen in
    the bands: a size on a known edge would tell of one child more or less.

    Parameters
    ----------
    children : int
    secret : float
        At least 0 and below 1; the site's, and always the same, as several would average out.

    """
    step = math.floor(2.0 * math.log2(max(children, 1)) + secret)
    return _band(min(max(step, _SMALLEST_STEP), _LARGEST_STEP))


def _band(step: int) -> str:
    """Return the sizes that are more than 2 ** ((step - 1) / 2) and less than 2 ** ((step + 1) / 2)."""
    low = 0 if step == _SMALLEST_STEP else math.isqrt(2 ** (step - 1)) + (step % 2 == 0)
    return f"{low}-{math.isqrt(2 ** (step + 1) - 1)}"


# Versions before this one had 0-7 and 8-15 as well.
_BANDS = frozenset(map(_band, range(_SMALLEST_STEP, _LARGEST_STEP + 1))) | {"0-7", "8-15"}


def _check_band(band: str) -> str:
    if band not in _BANDS:
        raise ValueError(f"a band of cohort sizes is one such as 16-31, not {band}")
    return band


# What the other side says of itself ends up in logs and reports: plain words of bounded length.
_PackageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]

_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+!_-]{1,60}$")]

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_Band = Annotated[str, Field(pattern=r"^[0-9]{1,7}-[0-9]{1,7}$"), AfterValidator(_check_band)]


class LedgerMark(BaseModel):
    """A place in a site's ledger: so many entries, the last of which has this hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: int = Field(ge=0, le=2**53)
    head: _Sha256


EMPTY_LEDGER = LedgerMark(entries=0, head="0" * 64)
"""The mark of a ledger without entries; its head is what the first entry has for the one before."""


class SiteFacts(BaseModel):
    """What a site says of itself at roll call; nothing of it depends on a child's data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    software: dict[_PackageName, _Version] = Field(max_length=32)
    recipe_sha256: _Sha256
    atlas_sha256: _Sha256
    template_sha256: _Sha256
    cohort_band: _Band
    """Number of training and held-out children together, as a band such as 16-31; see `size_band`."""
    ledger: LedgerMark
    """The end of the site's ledger."""
    ledger_seen: LedgerMark
    """The entry up to which the centre said that it knows the ledger."""
    said_at: AwareDatetime
    """The time on the site's clock."""
