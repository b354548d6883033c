"""A list of candidates as a file: which edges may belong to a network, where that is known from, of whom.

It is public before anything is sized or priced: `esn-client candidates` makes it from controls who were
prepared by the study's recipe, the sites' votes make it, or somebody published it. A protocol carries it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import Field, model_validator

from esn_core.connectome.atlas import Atlas
from esn_core.formats import CANDIDATES
from esn_core.severity_network.pooled_reference import PooledReference
from esn_core.system.files import write_whole
from esn_core.system.toml_file import Table, read_toml

PRESENT_SHARE = 0.95
"""An edge is present where so many of the controls have streamlines."""


Line = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Origin(Table):
    """Where a list of candidates comes from, and how many people stand behind it."""

    kind: Literal["published", "prepared", "votes"]
    """In an article; in the controls of a cohort that was prepared with the recipe; in most of the sites'
    controls, by their votes."""
    people: int = Field(ge=0, le=10**6)
    """How many; for votes the fewest that it can be. 0 where nobody knows."""
    note: Line
    """In words: which article, which cohort, which votes."""
    licence: Line | None = None
    """Under which the list may be used, where somebody else published it."""

    @property
    def in_words(self) -> str:
        """The note, and the licence where one is named."""
        return self.note if self.licence is None else f"{self.note.rstrip('.')}. Licence: {self.licence}"


class CandidateList(Table):
    """A file of candidates."""

    format: Literal[1]
    atlas: str
    recipe_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the recipe that the connectomes were prepared by; None for a published list."""
    origin: Origin
    pairs: tuple[tuple[str, str], ...] = Field(min_length=1)
    reference: PooledReference | None = None
    """Mean and spread of each pair in the controls of all sites that voted, where they pooled them."""

    @model_validator(mode="after")
    def _reference_is_of_the_pairs(self) -> Self:
        if self.reference is not None and len(self.reference.mean) != len(self.pairs):
            raise ValueError(f"{len(self.pairs)} pairs have a reference of {len(self.reference.mean)}")
        return self

    def write(self, path: Path) -> None:
        """Write the file."""
        content = self.model_dump(mode="json", exclude_none=True)
        write_whole(path, tomli_w.dumps(content).encode())


def read_candidates(path: Path) -> CandidateList:
    """Read a file of candidates; `ConfigError` names every fault."""
    return read_toml(path, CandidateList, written_as=CANDIDATES)


def present_in_most(strengths: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of the (E,) edges have streamlines in nearly all of (n, E) controls.

    Where a control has no tissue for an edge, NaN, the control does not count there.
    """
    there = np.isfinite(strengths)
    with_streamlines = (np.where(there, strengths, 0.0) > 0).sum(axis=0)
    people = there.sum(axis=0)
    return np.asarray((people > 0) & (with_streamlines >= PRESENT_SHARE * people))


def pairs_of(atlas: Atlas, chosen: NDArray[np.bool_]) -> Sequence[tuple[str, str]]:
    """Return the names of the regions that the chosen ones of the atlas's (E,) edges join."""
    return [(atlas.names[a], atlas.names[b]) for a, b in atlas.edges[chosen]]
