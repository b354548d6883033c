"""Strata: who of a hospital's controls judge a participant, where the table says that scans differ.

What a scanner does to every edge is in the mean and the spread of the controls whom it scanned. Where
participants.tsv has a column `scanner` or `session`, a participant is judged by the controls of the same one,
if these are enough; otherwise by all controls, of which `esn-client check` warns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esn_client.cohort.participants import Participant
from esn_core.protocol.data_dictionary import MISSING

STRATA = ("scanner", "session")
"""Columns of participants.tsv by which people may have been scanned differently."""


def stratum_of(participant: Participant) -> tuple[str, ...]:
    """Return what a participant's line says of these columns; empty texts where it says nothing."""
    found = (participant.row.get(column, "").strip() for column in STRATA)
    return tuple("" if value == MISSING else value for value in found)


def in_words(stratum: Sequence[str]) -> str:
    """Name a stratum: its columns and their values."""
    return " and ".join(f"{column} {value}" for column, value in zip(STRATA, stratum, strict=True) if value)


def judges(participant: Participant, controls: Sequence[Participant], *, minimum: int) -> NDArray[np.bool_]:
    """Tell which of n controls judge a participant.

    Parameters
    ----------
    participant : Participant
    controls : sequence of n Participant
    minimum : int
        So many of one stratum are enough.

    Returns
    -------
    (n,) bool
        Those of the participant's stratum, or all of them.

    """
    own = stratum_of(participant)
    same = np.array([stratum_of(control) == own for control in controls], dtype=np.bool_)
    return same if any(own) and same.sum() >= minimum else np.ones(len(controls), dtype=np.bool_)
