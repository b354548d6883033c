"""The transcript of a study's run: the sums that steer it, in the order in which they were released.

Both sides keep one. Each sum is bound to all before it by a hash; a question names that hash, a site's answer
names it, and the masks of the secure sum depend on it. So a sum is only opened when all of its sites computed
their answers from the same sums.
"""

from dataclasses import dataclass

from esn_core.analyses.planned_sums import kind_of
from esn_core.arrays import Floats
from esn_core.errors import ProtocolError, StudyError
from esn_core.messages.question import QuestionId
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.transcript.arguments import Arguments
from esn_core.transcript.course import Course, steering
from esn_core.transcript.released import Released


@dataclass(frozen=True)
class ReleasedSum:
    """A sum, and what it is the sum of.

    Attributes
    ----------
    phase : str
    round : int
    sites : tuple of str
        Whose answers were added up, in the order of the roster.
    total : (d,) float64

    """

    phase: PhaseName
    round: int
    sites: tuple[str, ...]
    total: Floats


class Transcript:
    """What was released so far in one run of a protocol.

    Parameters
    ----------
    protocol : Protocol
    run : str

    Attributes
    ----------
    sums : list of ReleasedSum
    course : Course
        What follows from them.

    """

    def __init__(self, protocol: Protocol, run: str) -> None:
        self.protocol, self.run = protocol, run
        self.sums: list[ReleasedSum] = []
        self.course = Course(protocol)
        self._marks = [NOTHING_RELEASED]
        self._steering = steering(protocol)

    @property
    def mark(self) -> TranscriptMark:
        """Of all sums so far."""
        return self._marks[-1]

    def mark_at(self, sums: int) -> TranscriptMark | None:
        """Return the mark that there was after so many sums; None of more than there are."""
        return self._marks[sums] if sums < len(self._marks) else None

    def question(self, phase: PhaseName, round_: int) -> QuestionId:
        """Return the id of a question of this run."""
        return QuestionId(
            protocol_sha256=self.protocol.sha256, run=self.run, phase=phase, round=round_, attempt=0
        )

    def append(self, released: ReleasedSum) -> TranscriptMark:
        """Add a sum; return the new mark.

        Raises
        ------
        ProtocolError
            No later question depends on such a sum, or the transcript has it already.

        """
        phase, round_ = released.phase, released.round
        if phase not in self._steering:
            raise ProtocolError(f"no question of this protocol depends on the sum of {phase}")
        if any((other.phase, other.round) == (phase, round_) for other in self.sums):
            raise ProtocolError(f"the transcript has the sum of {phase}, round {round_}, already")
        question = str(self.question(phase, round_))
        mark = self.mark.followed_by(question, released.sites, released.total)
        self.sums.append(released)
        self._marks.append(mark)
        kind = kind_of(phase, self.protocol)
        self.course.take(phase, round_, Released.of(self.protocol, kind, released.total, released.sites))
        return mark

    def arguments(self, phase: PhaseName, round_: int) -> Arguments:
        """Return the numbers that a question is asked with.

        Raises
        ------
        StudyError
            A sum that they depend on has not been released, or the sums allow no such numbers.

        """
        try:
            return self.course.arguments(phase, round_)
        except (ArithmeticError, ValueError) as cause:
            raise StudyError(f"the sums before allow no question of {phase}: {cause}") from cause
