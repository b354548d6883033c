"""Who watches a study: told of each question, of how it stands, and of what the training learns.

An observer is called from the thread of the study, several times a second while a
question is under way. It must not take long, and not raise.
"""

from typing import Protocol as Structural

from esn_core.protocol.phases import PhaseName
from esn_server.study.question_progress import QuestionProgress


class Observer(Structural):
    """What a study tells while it runs; `run.progress.ProgressFile` writes it down."""

    def began(self, phase: PhaseName, round_: int, rounds: int) -> None:
        """Take note that a question begins: its phase, its round from 0, and how many rounds there are."""

    def progressed(self, question: QuestionProgress) -> None:
        """Take note of how the question at hand stands."""

    def learned(self, round_: int, loss: float) -> None:
        """Take note of the mean clipped loss of a round of training, from 0, noise included."""


class Unobserved:
    """The observer of a study that nobody watches."""

    def began(self, phase: PhaseName, round_: int, rounds: int) -> None:
        """Do nothing."""

    def progressed(self, question: QuestionProgress) -> None:
        """Do nothing."""

    def learned(self, round_: int, loss: float) -> None:
        """Do nothing."""
