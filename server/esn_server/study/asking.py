"""How a study asks its sites: for facts at roll call, and for one sum after the other."""

from dataclasses import dataclass
from typing import Protocol as Structural

import numpy as np
from numpy.typing import NDArray

from esn_core.messages.facts import SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.release import ReleaseKind
from esn_core.protocol.phases import PhaseName
from esn_core.transcript.released import Released


@dataclass(frozen=True)
class Pooled:
    """The sum of the sites' answers.

    Attributes
    ----------
    total : (d,) float64
    sites : tuple of str
        Who answered, in the order of the roster.
    relayed : bytes
        The answers and seeds, as sites are shown them (`esn_core.transcript.relay`); empty where no later
        question follows from the sum.

    """

    total: NDArray[np.float64]
    sites: tuple[str, ...]
    relayed: bytes = b""


class Asking(Structural):
    """What asks the sites: `rounds.Rounds`, and `run.checkpoints.Checkpoints` around it."""

    def roll_call(self, question: Question) -> dict[str, SiteFacts]:
        """Ask every site what it runs."""

    def sum(self, question: Question, kind: ReleaseKind) -> Pooled:
        """Ask every site for one release and add the answers up."""


class Ask(Structural):
    """Asks for one release of a phase, as the parts of a study do."""

    def __call__(self, phase: PhaseName, round_: int = 0, /) -> Released:
        """Return the sum, which the course of the study has taken."""
