"""One question to every site of the roster: quorum, deadline, retry, and the sum of the answers.

Under masks only the sum of a whole set of sites can be read. It is asked of
the full roster first. Sites that are still missing when half the time is over
count as dropped out, and the question is repeated with those that answered.
Once seeds were asked for, the set is final: a site that is lost then is waited
for until the deadline.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from typing import Protocol as Structural

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_core.errors import EsnError, ProtocolError, StudyError
from esn_core.identity.public_keys import identity_key
from esn_core.messages.answer import Answer
from esn_core.messages.envelope import sha256_of
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.fixed_point import add_up, check_range, leave_grid
from esn_core.privacy.release import ReleaseKind
from esn_core.privacy.secure_sum import Attempt, unmask
from esn_core.protocol.protocol import Protocol
from esn_server.study.asking import Pooled
from esn_server.study.link import Link, ReceivedReply
from esn_server.study.question_progress import Observe, SiteStanding, Standing, State

_log = logging.getLogger(__name__)

_POLL_S = 0.2
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


class Memory(Structural):
    """What the centre keeps of its sites beyond one run's sums."""

    def ledger_seen(self, site: str) -> LedgerMark:
        """Return the newest entry of a site's ledger that the centre saw."""

    def see_ledger(self, site: str, mark: LedgerMark) -> None:
        """Keep an entry of a site's ledger; `ProtocolError` when it contradicts what was seen."""

    def final_set(self, question: str) -> tuple[str, ...] | None:
        """Return the sites whose seeds were asked for, if any were."""

    def finalise(self, question: str, sites: tuple[str, ...]) -> None:
        """Keep, durably, that seeds are asked for the sum of these sites."""


Read = Callable[[Answer, str], None]
"""Checks an answer of a site beyond its form; raises `ProtocolError`."""


@dataclass
class _Exchange:
    """One message to each of some sites, and what became of it."""

    question: Question
    nodes: Mapping[str, int]
    read: Read
    needed: int
    answers: dict[str, Answer] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    asked_at: dict[str, float] = field(default_factory=dict)
    answered_at: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        return [s for s in self.nodes if s not in self.answers and s not in self.failures]

    @property
    def complete(self) -> bool:
        return len(self.answers) == len(self.nodes)

    def standing_of(self, site: str, *, asked: bool, online: bool) -> SiteStanding:
        """Say how the question stands at one site."""
        answer = self.answers.get(site)
        state: State
        if answer is not None:
            state = "answered"
        elif site in self.failures:
            state = "refused"
        elif asked:
            state = "asked"
        elif site in self.errors:
            state = "lost"
        else:
            state = "not-asked" if online else "not-connected"
        return SiteStanding(
            state=state,
            tries=self.tries[site],
            asked_at=self.asked_at.get(site),
            answered_at=self.answered_at.get(site),
            error=self.errors.get(site),
            facts=answer.facts if answer is not None else None,
        )


class Rounds:
    """Asks questions of the sites of a roster.

    Parameters
    ----------
    link : Link
    nodes : dict of str to int
        Node of each site; nobody else is ever asked.
    protocol : Protocol
        Its quorum, its deadline (waiting for sites to appear included), whether vectors are masked, and
        the identity keys by which the sites sign their answers.
    signing_key : Ed25519PrivateKey
        The centre's, by which it signs its questions.
    memory : Memory
    observe : Observe
        Told how the question at hand stands.
    clock, sleep : callable
        Of `time`; tests bring their own.

    """

    def __init__(
        self,
        link: Link,
        nodes: Mapping[str, int],
        *,
        protocol: Protocol,
        signing_key: Ed25519PrivateKey,
        memory: Memory,
        observe: Observe = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._nodes = dict(nodes)
        self._protocol = protocol
        self._signing_key = signing_key
        self._identity_keys = {entry.site: identity_key(entry.identity_key) for entry in protocol.roster}
        self._memory = memory
        self._observe = observe
        self._quorum = protocol.rounds.quorum
        self._deadline_s = protocol.rounds.deadline_s
        self._clock = clock
        self._sleep = sleep
        self._waiting: dict[str, tuple[_Exchange, str]] = {}
        self._attempts: Counter[tuple[str, str]] = Counter()

    def roll_call(self, question: Question) -> dict[str, SiteFacts]:
        """Ask every site what it runs, and compare its ledger with the one that the centre knows.

        Raises
        ------
        StudyError
            Fewer sites than the quorum answered in time.

        """
        exchange = _Exchange(question, self._nodes, self._read_facts, self._quorum)
        self._run(exchange, until=self._clock() + self._deadline_s)
        answers = self._enough(exchange)
        return {site: answer.facts for site, answer in answers.items() if answer.facts is not None}

    def sum(self, question: Question, kind: ReleaseKind) -> Pooled:
        """Ask every site for one release and add the answers up.

        Raises
        ------
        StudyError
            Fewer sites than the quorum answered in time, with the names of the others and why; or the
            masks do not cancel.

        """
        deadline = self._clock() + self._deadline_s
        if self._protocol.masked:
            return self._masked_sum(question, kind, deadline)
        exchange = _Exchange(question, self._nodes, self._reader(kind), self._quorum)
        self._run(exchange, until=deadline)
        answers = self._enough(exchange)
        totals = [answer.total for answer in answers.values() if answer.total is not None]
        return Pooled(add_up(totals, kind), tuple(answers))

    def _masked_sum(self, question: Question, kind: ReleaseKind, deadline: float) -> Pooled:
        final = self._memory.final_set(str(question.id))
        sites = final or tuple(self._nodes)
        failures: dict[str, str] = {}
        while True:
            attempt = replace(question, participants=sites)
            needed = len(sites) if final else self._quorum
            exchange = _Exchange(attempt, {s: self._nodes[s] for s in sites}, self._reader(kind), needed)
            may_drop = len(sites) > needed
            self._run(exchange, until=(self._clock() + deadline) / 2 if may_drop else deadline)
            if exchange.complete:
                break
            failures |= self._reasons(exchange)
            left = tuple(site for site in sites if site in exchange.answers)
            if final or len(left) < self._quorum or self._clock() >= deadline:
                raise StudyError(self._shortfall(question, len(exchange.answers), failures))
            _log.warning("%s: goes on without %s", question.id, ", ".join(s for s in sites if s not in left))
            sites = left
        seeds: dict[str, bytes] = {}
        if self._protocol.self_masked:
            seeds = self._reveal(replace(question, participants=sites, arrays={}), deadline)
        masked = {site: a.total for site, a in exchange.answers.items() if a.total is not None}
        try:
            total = unmask(masked, Attempt(self._protocol.sha256, str(question.id), sites), seeds=seeds)
            check_range(total, kind, sites=len(sites))
        except ProtocolError as error:
            raise StudyError(f"phase {question.id.phase}, round {question.id.round}: {error}") from error
        return Pooled(leave_grid(total, kind), sites)

    def _reveal(self, question: Question, deadline: float) -> dict[str, bytes]:
        """Ask the sites of a complete set for their seeds."""
        self._memory.finalise(str(question.id), question.participants)
        nodes = {site: self._nodes[site] for site in question.participants}
        exchange = _Exchange(replace(question, reveal=True), nodes, self._read_seed, len(nodes))
        self._run(exchange, until=deadline)
        if not exchange.complete:
            raise StudyError(
                "every site answered, but not all revealed their masks: "
                + self._shortfall(question, len(exchange.answers), self._reasons(exchange))
            )
        return {site: answer.seed for site, answer in exchange.answers.items() if answer.seed is not None}

    def _run(self, exchange: _Exchange, *, until: float) -> None:
        """Ask each site of an exchange until all have answered or failed, or the time is over."""
        began = self._clock()
        ready_at = dict.fromkeys(exchange.nodes, float("-inf"))
        repeat_at = dict.fromkeys(exchange.nodes, float("inf"))
        while exchange.missing and self._clock() < until:
            online = self._link.online()
            asked = {site for other, site in self._waiting.values() if other is exchange}
            for site in exchange.missing:
                node = exchange.nodes[site]
                silent = site in asked and self._clock() < repeat_at[site]
                if silent or node not in online or self._clock() < ready_at[site]:
                    continue
                if site in asked:
                    _log.warning("%s has not answered %s; it is asked again", site, exchange.question.id)
                exchange.asked_at[site] = self._clock()
                self._ask(exchange, site)
                repeat_at[site] = self._clock() + _REPEAT_AFTER_S * 2.0 ** exchange.tries[site]
                exchange.tries[site] += 1
            for reply in self._link.receive():
                if reply.message_id not in self._waiting:
                    _log.warning("dropped an unknown reply")
                    continue
                other, site = self._waiting.pop(reply.message_id)
                if other is not exchange:
                    _log.warning("dropped a late reply of %s to %s", site, other.question.id)
                    continue
                if site in exchange.answers:
                    continue  # it was asked more than once
                try:
                    exchange.answers[site] = self._read(reply, exchange, site)
                    exchange.answered_at[site] = self._clock()
                except StudyError:
                    raise  # the centre's own store or disk: no site is to blame
                except EsnError as error:
                    _log.warning("%s, %s: %s", site, exchange.question.id, error)
                    exchange.errors[site] = str(error)
                    if reply.body is None and (reply.error in _LOST or exchange.tries[site] < _ATTEMPTS):
                        ready_at[site] = self._clock() + _RETRY_AFTER_S
                    else:
                        exchange.failures[site] = str(error)
            hopeless = len(exchange.nodes) - len(exchange.failures) < exchange.needed
            asked = {site for other, site in self._waiting.values() if other is exchange}
            self._tell(exchange, asked, online, began=began, until=until)
            if hopeless and not asked:
                break  # what the sites still at work say is worth the wait, absent ones are not
            self._sleep(_POLL_S)

    def _tell(
        self,
        exchange: _Exchange,
        asked: Collection[str],
        online: Collection[int],
        *,
        began: float,
        until: float,
    ) -> None:
        """Tell the observer how the question stands."""
        sites = {
            site: exchange.standing_of(site, asked=site in asked, online=node in online)
            for site, node in exchange.nodes.items()
        }
        step: Literal["answers", "masks"] = "masks" if exchange.question.reveal else "answers"
        self._observe(Standing(exchange.question.id, step, sites, began, self._clock(), until))

    def _ask(self, exchange: _Exchange, site: str) -> None:
        question = exchange.question
        attempt = self._attempts[str(question.id), site]
        self._attempts[str(question.id), site] += 1
        question = replace(question, id=question.id.model_copy(update={"attempt": attempt}))
        if question.id.phase == "roll-call":
            question = replace(question, entries_seen=self._memory.ledger_seen(site).entries)
        body = question.to_bytes(self._signing_key)
        self._waiting[self._link.send(exchange.nodes[site], body)] = (exchange, site)
        _log.debug("asked %s: %s, sha256 %s", site, question.id, sha256_of(body)[:16])

    def _read(self, reply: ReceivedReply, exchange: _Exchange, site: str) -> Answer:
        if reply.body is None:
            raise ProtocolError(f"no answer ({reply.error or 'unknown reason'})")
        answer = Answer.from_bytes(reply.body, self._identity_keys[site])
        asked = exchange.question.id.model_copy(update={"attempt": answer.id.attempt})
        if answer.id != asked or answer.site != site:
            raise ProtocolError(f"answered as {answer.site} to {answer.id}, another question or site")
        if answer.refusal is not None:
            raise ProtocolError(f"refused ({answer.refusal.error})")
        exchange.read(answer, site)
        return answer

    def _read_facts(self, answer: Answer, site: str) -> None:
        if answer.facts is None:
            raise ProtocolError("sent a sum to a roll call")
        seen, said = self._memory.ledger_seen(site), answer.facts
        if said.ledger_seen != seen or said.ledger.entries < seen.entries:
            raise ProtocolError(
                f"its ledger is not the one that this centre saw: entry {seen.entries} is another; it was "
                "replaced or restored from a backup"
            )
        self._memory.see_ledger(site, said.ledger)

    def _reader(self, kind: ReleaseKind) -> Read:
        def read(answer: Answer, site: str) -> None:
            if answer.total is None or answer.charged is None:
                raise ProtocolError("sent something else where a sum was asked")
            if self._protocol.masked:
                if answer.total.shape != (kind.dimension + 1,):
                    raise ProtocolError(
                        f"release {kind.name} holds {kind.dimension} numbers and a check number, not "
                        f"{answer.total.shape}"
                    )
            else:
                add_up([answer.total], kind)
            self._memory.see_ledger(site, answer.charged)

        return read

    def _read_seed(self, answer: Answer, site: str) -> None:
        if answer.seed is None or answer.charged is None:
            raise ProtocolError("sent something else where a mask's seed was asked")
        self._memory.see_ledger(site, answer.charged)

    def _enough(self, exchange: _Exchange) -> dict[str, Answer]:
        if len(exchange.answers) < self._quorum:
            raise StudyError(
                self._shortfall(exchange.question, len(exchange.answers), self._reasons(exchange))
            )
        return {site: exchange.answers[site] for site in self._nodes if site in exchange.answers}

    def _reasons(self, exchange: _Exchange) -> dict[str, str]:
        online = self._link.online()
        absent = {
            site: "no answer" if exchange.nodes[site] in online else "not connected"
            for site in exchange.missing
        }
        return {**exchange.failures, **absent}

    def _shortfall(self, question: Question, answered: int, reasons: Mapping[str, str]) -> str:
        said = [f"{site}: {reasons[site]}" for site in self._nodes if site in reasons]
        return (
            f"phase {question.id.phase}, round {question.id.round}: {answered} of "
            f"{len(self._nodes)} sites answered, the quorum is {self._quorum} and the deadline "
            f"{self._deadline_s:g} s ({'; '.join(said)})"
        )
