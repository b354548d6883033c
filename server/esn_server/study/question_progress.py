"""How one question stands while it is asked: of whom, since when, and who is waited for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from esn_core.messages.facts import SiteFacts
from esn_core.messages.question import QuestionId

State = Literal["not-connected", "not-asked", "asked", "lost", "answered", "refused"]
"""Of one site: 'lost' means that its link failed and it is asked again; 'refused', that it is not."""


@dataclass(frozen=True)
class QuestionAtSite:
    """How the question stands at one site.

    Attributes
    ----------
    state : State
    tries : int
        How often it was asked.
    asked_at, answered_at : float or None
        Of the last try, on the clock of the rounds.
    error : str or None
        The last one, in words of our own: it names an error's class, never a site's text.
    facts : SiteFacts or None
        What it said at roll call.

    """

    state: State
    tries: int
    asked_at: float | None
    answered_at: float | None
    error: str | None
    facts: SiteFacts | None


@dataclass(frozen=True)
class QuestionProgress:
    """One question and all sites that it is asked of.

    Attributes
    ----------
    id : QuestionId
    step : {'answers', 'masks'}
        Whether sums are asked for, or the seeds of their masks.
    sites : dict of str to QuestionAtSite
    began_at, now, until : float
        On the clock of the rounds; at `until` nobody is waited for any more.

    """

    id: QuestionId
    step: Literal["answers", "masks"]
    sites: Mapping[str, QuestionAtSite]
    began_at: float
    now: float
    until: float

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The sites that have neither answered nor refused."""
        return tuple(s for s, site in self.sites.items() if site.state not in ("answered", "refused"))
