"""What a site says of itself: at roll call, and with every sum, the end of its ledger."""

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field


def size_band(children: int) -> str:
    """Return the band of a cohort's size: 0-7, 8-15, 16-31, 32-63 and so on."""
    if children < 8:
        return "0-7"
    low = 1 << (children.bit_length() - 1)
    return f"{low}-{2 * low - 1}"


def _check_band(band: str) -> str:
    low = int(band.partition("-")[0])
    if band != size_band(low):
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
    """Number of training and held-out children together, as a band such as 16-31."""
    ledger: LedgerMark
    """The end of the site's ledger."""
    ledger_seen: LedgerMark
    """The entry up to which the centre said that it knows the ledger."""
    said_at: AwareDatetime
    """The time on the site's clock."""
