"""One question to every site of the roster: quorum, deadline, retry, and the sum of the answers.

Under masks only the sum of a whole set of sites can be read. It is asked of
the full roster first. Sites that are still missing when half the time is over
count as dropped out, and the question is repeated with those that answered.
Once seeds were asked for, the set is final: a site that is lost then is waited
for until the deadline. The set of the first sum without noise is that of all others
without noise: two sets would be subtracted from one another.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_core.errors import ProtocolError, StudyError
from esn_core.identity.public_keys import identity_key
from esn_core.messages.answer import Answer
from esn_core.messages.facts import SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.fixed_point import add_up, check_range, leave_grid
from esn_core.privacy.release import ReleaseKind
from esn_core.privacy.secure_sum import Attempt, unmask
from esn_core.protocol.price import price_of
from esn_core.protocol.signature import SignedProtocol
from esn_core.transcript.course import steering
from esn_core.transcript.relay import relayed_sum
from esn_server.study.asking import Pooled
from esn_server.study.courier import Courier
from esn_server.study.exchange import Exchange, Read
from esn_server.study.link import Link
from esn_server.study.memory import Memory
from esn_server.study.observer import Observer, Unobserved

_log = logging.getLogger(__name__)

# The set of sites of all sums without noise is kept under this name.
_EXACT = "exact"


class Rounds:
    """Asks questions of the sites of a roster.

    Parameters
    ----------
    link : Link
    nodes : dict of str to int
        Node of each site; nobody else is ever asked.
    protocol : SignedProtocol
        Its quorum, its deadline (waiting for sites to appear included), whether vectors are masked, and
        the identity keys by which the sites sign their answers.
    signing_key : Ed25519PrivateKey
        The centre's, by which it signs its questions.
    memory : Memory
    observer : Observer
        Told how the question at hand stands.
    clock, sleep : callable
        Of `time`; tests bring their own.

    """

    def __init__(
        self,
        link: Link,
        nodes: Mapping[str, int],
        *,
        protocol: SignedProtocol,
        signing_key: Ed25519PrivateKey,
        memory: Memory,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._nodes = dict(nodes)
        self._protocol = protocol.protocol
        self._steering = steering(self._protocol)
        self._memory = memory
        self._quorum = self._protocol.rounds.quorum
        self._deadline_s = self._protocol.rounds.deadline_s
        self._clock = clock
        self._courier = Courier(
            link,
            signing_key=signing_key,
            identity_keys={entry.site: identity_key(entry.identity_key) for entry in self._protocol.roster},
            memory=memory,
            observer=observer or Unobserved(),
            clock=clock,
            sleep=sleep,
        )

    def roll_call(self, question: Question) -> dict[str, SiteFacts]:
        """Ask every site what it runs, and compare its ledger with the one that the centre knows.

        Raises
        ------
        StudyError
            Fewer sites than the quorum answered in time.

        """
        exchange = Exchange(question, self._nodes, self._read_facts, self._quorum)
        self._courier.carry(exchange, until=self._clock() + self._deadline_s)
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
        exchange = Exchange(question, self._nodes, self._reader(kind), self._quorum)
        self._courier.carry(exchange, until=deadline)
        answers = self._enough(exchange)
        totals = [answer.total for answer in answers.values() if answer.total is not None]
        return Pooled(add_up(totals, kind), tuple(answers), self._relayed(question, exchange.bodies))

    def _masked_sum(self, question: Question, kind: ReleaseKind, deadline: float) -> Pooled:
        final = self._memory.final_set(str(question.id)) or self._exact_set(question)
        sites = final or tuple(self._nodes)
        failures: dict[str, str] = {}
        while True:
            attempt = replace(question, participants=sites)
            needed = len(sites) if final else self._quorum
            exchange = Exchange(attempt, {s: self._nodes[s] for s in sites}, self._reader(kind), needed)
            may_drop = len(sites) > needed
            self._courier.carry(exchange, until=(self._clock() + deadline) / 2 if may_drop else deadline)
            if exchange.complete:
                break
            failures |= exchange.reasons(self._link.online())
            left = tuple(site for site in sites if site in exchange.answers)
            if final or len(left) < self._quorum or self._clock() >= deadline:
                raise StudyError(self._shortfall(question, len(exchange.answers), failures))
            _log.warning("%s: goes on without %s", question.id, ", ".join(s for s in sites if s not in left))
            sites = left
        seeds: dict[str, bytes] = {}
        revealed: dict[str, bytes] = {}
        if self._protocol.self_masked:
            opened = self._reveal(replace(question, participants=sites, relayed=b""), deadline)
            seeds = {site: a.seed for site, a in opened.answers.items() if a.seed is not None}
            revealed = opened.bodies
        masked = {site: a.total for site, a in exchange.answers.items() if a.total is not None}
        try:
            attempted = Attempt(self._protocol.sha256, str(question.id), sites, question.after.head)
            total = unmask(masked, attempted, seeds=seeds)
            check_range(total, kind, sites=len(sites))
        except ProtocolError as error:
            raise StudyError(f"phase {question.id.phase}, round {question.id.round}: {error}") from error
        relayed = self._relayed(question, exchange.bodies, revealed)
        return Pooled(leave_grid(total, kind), sites, relayed)

    def _relayed(self, question: Question, *said: Mapping[str, bytes]) -> bytes:
        """Return the answers, and then the seeds, as later questions bring them to the sites."""
        if question.id.phase not in self._steering:
            return b""
        place = {site: i for i, site in enumerate(self._protocol.sites)}
        return relayed_sum((place[site], body) for bodies in said for site, body in bodies.items())

    def _is_exact(self, question: Question) -> bool:
        return question.id.phase in {phase.phase for phase in price_of(self._protocol).exact}

    def _exact_set(self, question: Question) -> tuple[str, ...] | None:
        """Return the sites of the first exact sum, for the question of another; None where there is none."""
        return self._memory.final_set(_EXACT) if self._is_exact(question) else None

    def _reveal(self, question: Question, deadline: float) -> Exchange:
        """Ask the sites of a complete set for their seeds."""
        self._memory.finalise(str(question.id), question.participants)
        if self._is_exact(question):
            self._memory.finalise(_EXACT, question.participants)
        nodes = {site: self._nodes[site] for site in question.participants}
        exchange = Exchange(replace(question, reveal=True), nodes, self._read_seed, len(nodes))
        self._courier.carry(exchange, until=deadline)
        if not exchange.complete:
            raise StudyError(
                "every site answered, but not all revealed their masks: "
                + self._shortfall(question, len(exchange.answers), exchange.reasons(self._link.online()))
            )
        return exchange

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

    def _enough(self, exchange: Exchange) -> dict[str, Answer]:
        if len(exchange.answers) < self._quorum:
            raise StudyError(
                self._shortfall(
                    exchange.question, len(exchange.answers), exchange.reasons(self._link.online())
                )
            )
        return {site: exchange.answers[site] for site in self._nodes if site in exchange.answers}

    def _shortfall(self, question: Question, answered: int, reasons: Mapping[str, str]) -> str:
        said = [f"{site}: {reasons[site]}" for site in self._nodes if site in reasons]
        return (
            f"phase {question.id.phase}, round {question.id.round}: {answered} of "
            f"{len(self._nodes)} sites answered, the quorum is {self._quorum} and the deadline "
            f"{self._deadline_s:g} s ({'; '.join(said)})"
        )
