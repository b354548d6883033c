"""One question to every site of the roster: quorum, deadline, retry, and the sum of the answers."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Structural

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import EsnError, ProtocolError, StudyError
from esn_core.fixed_point import add_up
from esn_core.questions import Answer, Question, SiteFacts, sha256_of
from esn_core.releases import ReleaseKind

_log = logging.getLogger(__name__)

_POLL_S = 0.2
# A site that itself met an unforeseen error is asked so often.
_ATTEMPTS = 3
# What the link says of a site that it lost: such a site may come back, and is asked until the deadline.
_LOST = frozenset({"SiteUnavailable", "SiteCrashed", "MessageUnavailable", "ReplyUnavailable"})
# A site whose link failed is asked again after this long: a SuperNode that was
# restarted needs to be known again first.
_RETRY_AFTER_S = 3.0


class ReceivedReply(Structural):
    """What a link returns for one message."""

    @property
    def message_id(self) -> str:
        """Which message this replies to."""

    @property
    def body(self) -> bytes | None:
        """The answer, or None when there is none."""

    @property
    def error(self) -> str | None:
        """Why there is no answer: the class of an error."""


class Link(Structural):
    """What carries messages to the sites and back."""

    def send(self, node_id: int, body: bytes) -> str:
        """Send `body` to a node; return the id of the message."""

    def receive(self) -> Sequence[ReceivedReply]:
        """Return the replies that have arrived since the last call; do not wait."""

    def online(self) -> set[int]:
        """Return the nodes that are connected now."""


@dataclass(frozen=True)
class Pooled:
    """The sum of the sites' answers.

    Attributes
    ----------
    total : (d,) float64
    sites : tuple of str
        Who answered, in the order of the roster.

    """

    total: NDArray[np.float64]
    sites: tuple[str, ...]


class Rounds:
    """Asks questions of the sites of a roster.

    Parameters
    ----------
    link : Link
    nodes : dict of str to int
        Node of each site; nobody else is ever asked.
    quorum : int
        Fewest sites that make a sum.
    deadline_s : float
        Longest that one question may take, waiting for sites to appear included.
    clock, sleep : callable
        Of `time`; tests bring their own.

    """

    def __init__(
        self,
        link: Link,
        nodes: Mapping[str, int],
        *,
        quorum: int,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._nodes = dict(nodes)
        self._quorum = quorum
        self._deadline_s = deadline_s
        self._clock = clock
        self._sleep = sleep

    def roll_call(self, question: Question) -> dict[str, SiteFacts]:
        """Ask every site what it runs.

        Raises
        ------
        StudyError
            Fewer sites than the quorum answered in time.

        """
        answers = self._ask(question, kind=None)
        return {site: answer.facts for site, answer in answers.items() if answer.facts is not None}

    def sum(self, question: Question, kind: ReleaseKind) -> Pooled:
        """Ask every site for one release and add the answers up.

        Raises
        ------
        StudyError
            Fewer sites than the quorum answered in time, with the names of the others and why.

        """
        answers = self._ask(question, kind)
        totals = [answer.total for answer in answers.values() if answer.total is not None]
        return Pooled(add_up(totals, kind), tuple(answers))

    def _ask(self, question: Question, kind: ReleaseKind | None) -> dict[str, Answer]:
        deadline = self._clock() + self._deadline_s
        waiting: dict[str, str] = {}
        attempts = dict.fromkeys(self._nodes, 0)
        ready_at = dict.fromkeys(self._nodes, float("-inf"))
        answers: dict[str, Answer] = {}
        failures: dict[str, str] = {}
        while len(answers) + len(failures) < len(self._nodes) and self._clock() < deadline:
            online = self._link.online()
            for site, node in self._nodes.items():
                settled = site in answers or site in failures or site in waiting.values()
                if settled or node not in online or self._clock() < ready_at[site]:
                    continue
                attempt = replace(question, id=question.id.model_copy(update={"attempt": attempts[site]}))
                body = attempt.to_bytes()
                waiting[self._link.send(node, body)] = site
                attempts[site] += 1
                _log.debug("asked %s: %s, sha256 %s", site, question.id, sha256_of(body)[:16])
            for reply in self._link.receive():
                answering = waiting.pop(reply.message_id, None)
                if answering is None:
                    _log.warning("dropped a late or unknown reply")
                    continue
                try:
                    answers[answering] = self._read(reply, question, answering, kind)
                except EsnError as error:
                    _log.warning("%s, %s: %s", answering, question.id, error)
                    if reply.body is None and (reply.error in _LOST or attempts[answering] < _ATTEMPTS):
                        ready_at[answering] = self._clock() + _RETRY_AFTER_S
                    else:
                        failures[answering] = str(error)
            hopeless = len(self._nodes) - len(failures) < self._quorum
            if hopeless and not waiting:
                break  # what the sites still at work say is worth the wait, absent ones are not
            self._sleep(_POLL_S)
        if len(answers) < self._quorum:
            raise StudyError(self._shortfall(question, answers, failures))
        return {site: answers[site] for site in self._nodes if site in answers}

    def _read(self, reply: ReceivedReply, question: Question, site: str, kind: ReleaseKind | None) -> Answer:
        if reply.body is None:
            raise ProtocolError(f"no answer ({reply.error or 'unknown reason'})")
        answer = Answer.from_bytes(reply.body)
        asked = question.id.model_copy(update={"attempt": answer.id.attempt})
        if answer.id != asked or answer.site != site:
            raise ProtocolError(f"answered as {answer.site} to {answer.id}, another question or site")
        if answer.refusal is not None:
            raise ProtocolError(f"refused ({answer.refusal.error})")
        if kind is None and answer.facts is None:
            raise ProtocolError("sent a sum to a roll call")
        if kind is not None:
            if answer.total is None:
                raise ProtocolError("sent facts where a sum was asked")
            add_up([answer.total], kind)
        return answer

    def _shortfall(
        self, question: Question, answers: Mapping[str, Answer], failures: Mapping[str, str]
    ) -> str:
        online = self._link.online()
        said = []
        for site, node in self._nodes.items():
            if site in failures:
                said.append(f"{site}: {failures[site]}")
            elif site not in answers:
                why = "no answer" if node in online else "not connected"
                said.append(f"{site}: {why}")
        return (
            f"phase {question.id.phase}, round {question.id.round}: {len(answers)} of "
            f"{len(self._nodes)} sites answered, the quorum is {self._quorum} and the deadline "
            f"{self._deadline_s:g} s ({'; '.join(said)})"
        )
