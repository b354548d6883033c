"""Visits: who was scanned and when, and how the files of an atlas are named."""

import re
from dataclasses import dataclass
from typing import Self

from esn_core.errors import ConfigError


@dataclass(frozen=True, order=True)
class Visit:
    """One session of one participant; of datasets without sessions, the participant.

    Attributes
    ----------
    participant : str
        With ``sub-``.
    session : str or None
        With ``ses-``.

    """

    participant: str
    session: str | None

    @classmethod
    def named(cls, participant: str, session: str | None) -> Self:
        """Return the visit that somebody named, with or without ``sub-`` and ``ses-``.

        Raises
        ------
        ConfigError
            A label is none of BIDS: it would be another file's name, or lie in another directory.

        """
        who, when = participant.removeprefix("sub-"), session and session.removeprefix("ses-")
        for what, label in (("participant", who), ("session", when)):
            if label is not None and not re.fullmatch(r"[A-Za-z0-9]+", label):
                raise ConfigError(f"{label!r} is no label of a {what}: letters and digits alone")
        return cls(f"sub-{who}", when and f"ses-{when}")

    @property
    def label(self) -> str:
        """The beginning of the names of its files."""
        return self.participant if self.session is None else f"{self.participant}_{self.session}"

    @property
    def folder(self) -> str:
        """Its directory inside a dataset."""
        return self.participant if self.session is None else f"{self.participant}/{self.session}"


def segmentation_of(atlas: str) -> str:
    """Give the BIDS ``seg-`` label of an atlas: its name without what BIDS does not allow."""
    return "".join(c for c in atlas if c.isalnum())
