"""Visits: who was scanned and when, and how the files of an atlas are named."""

from dataclasses import dataclass


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
