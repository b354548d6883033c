"""One question to each of some sites, and what became of it at each: asked, answered, lost or refused."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from esn_core.errors import EsnError
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question
from esn_server.study.link import Reply
from esn_server.study.question_progress import QuestionAtSite, State

# A site that itself met an unforeseen error is asked so often.
_ATTEMPTS = 3
# What the link says of a site that it lost: such a site may come back, and is asked until the deadline.
_LOST = frozenset({"SiteUnavailable", "SiteCrashed", "MessageUnavailable", "ReplyUnavailable"})
# A site whose link failed is asked again after this long: a SuperNode that was
# restarted needs to be known again first.
_RETRY_AFTER_S = 3.0
# A question can be lost on its way without a word: the link hands each message out once. A site that is
# silent is asked again after this long, and later after longer; it answers what it paid for once.
_REPEAT_AFTER_S = 20.0

Read = Callable[[Answer, str], None]
"""Checks an answer of a site beyond its form; raises `ProtocolError`."""


@dataclass
class SiteState:
    """What became of a question at one site; times are on the courier's clock.

    Attributes
    ----------
    node : int
    tries : int
        How often it was asked.
    under_way : int
        Messages to it that nothing has replied to.
    asked_at, answered_at : float or None
    not_before : float
        A site whose link failed is asked again then.
    repeat_at : float
        A silent site is asked again then.
    answer : Answer or None
    body : bytes or None
        The answer as the site signed it.
    notes : int
        How often the site lacked another part of the transcript than it was sent.
    failure : str or None
        Why it is not asked any more.
    error : str or None
        The last one, whether it is asked again or not.

    """

    node: int
    tries: int = 0
    under_way: int = 0
    asked_at: float | None = None
    answered_at: float | None = None
    not_before: float = -math.inf
    repeat_at: float = math.inf
    answer: Answer | None = None
    body: bytes | None = None
    notes: int = 0
    failure: str | None = None
    error: str | None = None

    @property
    def missing(self) -> bool:
        """Whether the site is still waited for."""
        return self.answer is None and self.failure is None

    def is_due(self, now: float) -> bool:
        """Say whether the site is to be asked now, or asked again, if it is connected."""
        silent_for_too_long = now >= self.repeat_at
        return now >= self.not_before and (not self.under_way or silent_for_too_long)

    def asked(self, *, began: float, now: float) -> None:
        """Note that a message to the site is under way."""
        self.asked_at = began
        self.under_way += 1
        self.repeat_at = now + _REPEAT_AFTER_S * 2.0**self.tries
        self.tries += 1

    def failed(self, error: EsnError, reply: Reply, now: float) -> None:
        """Note why a reply cannot be used, and whether the site is asked again."""
        self.error = str(error)
        if reply.body is None and (reply.error in _LOST or self.tries < _ATTEMPTS):
            self.not_before = now + _RETRY_AFTER_S
        else:
            self.failure = str(error)

    def noted(self, *, as_sent: bool, now: float) -> None:
        """Note that the site needs more of the transcript: at once, unless it keeps saying otherwise."""
        self.tries -= 1
        self.notes += not as_sent
        self.not_before = now if self.notes < 2 else now + _RETRY_AFTER_S

    def dropped(self, error: EsnError, now: float) -> None:
        """Note a reply that was not the site's answer; the site is asked again, rarer and rarer."""
        self.error = str(error)
        self.not_before = now + _RETRY_AFTER_S * 2.0 ** (self.tries - 1)

    def progress(self, *, online: bool) -> QuestionAtSite:
        """Say how the question stands at the site."""
        state: State
        if self.answer is not None:
            state = "answered"
        elif self.failure is not None:
            state = "refused"
        elif self.under_way:
            state = "asked"
        elif self.error is not None:
            state = "lost"
        else:
            state = "not-asked" if online else "not-connected"
        return QuestionAtSite(
            state=state,
            tries=self.tries,
            asked_at=self.asked_at,
            answered_at=self.answered_at,
            error=self.error,
            facts=self.answer.facts if self.answer is not None else None,
        )


@dataclass
class Exchange:
    """One question, and what became of it at each of some sites.

    Attributes
    ----------
    question : Question
    nodes : dict of str to int
        The sites that are asked, and their nodes.
    read : Read
    needed : int
        When fewer sites than this can still answer, absent ones are not waited for.

    """

    question: Question
    nodes: Mapping[str, int]
    read: Read
    needed: int
    sites: dict[str, SiteState] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with sites that were not asked."""
        self.sites = {site: SiteState(node) for site, node in self.nodes.items()}

    @property
    def answers(self) -> dict[str, Answer]:
        """The answers so far, in the order of the sites."""
        return {site: state.answer for site, state in self.sites.items() if state.answer is not None}

    @property
    def bodies(self) -> dict[str, bytes]:
        """The answers so far as the sites signed them, in the order of the sites."""
        return {site: state.body for site, state in self.sites.items() if state.body is not None}

    @property
    def complete(self) -> bool:
        """Whether every site has answered."""
        return all(state.answer is not None for state in self.sites.values())

    @property
    def missing(self) -> bool:
        """Whether a site is still waited for."""
        return any(state.missing for state in self.sites.values())

    @property
    def hopeless(self) -> bool:
        """Whether too few sites are left that may answer, and none of them is at work."""
        left = sum(state.failure is None for state in self.sites.values())
        # What the sites still at work say is worth the wait, absent ones are not.
        return left < self.needed and not any(state.under_way for state in self.sites.values())

    def reasons(self, online: Collection[int]) -> dict[str, str]:
        """Return why sites have not answered: those that failed, and those that are missing."""
        failed = {site: state.failure for site, state in self.sites.items() if state.failure is not None}
        absent = {
            site: (state.error or "no answer") if state.node in online else "not connected"
            for site, state in self.sites.items()
            if state.missing
        }
        return {**failed, **absent}
