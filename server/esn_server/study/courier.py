"""Carries one question to its sites: asks again where a site is silent or was lost, and reads the answers."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from esn_core.errors import EsnError, ProtocolError, StudyError
from esn_core.messages.answer import Answer
from esn_core.messages.envelope import sha256_of, unseal
from esn_core.system.polling import pause_s
from esn_server.study.exchange import Exchange, SiteState
from esn_server.study.link import Link, Reply
from esn_server.study.memory import Memory
from esn_server.study.observer import Observer
from esn_server.study.question_progress import QuestionProgress
from esn_server.study.relay import Relay

_log = logging.getLogger(__name__)


class _NotItsWordError(ProtocolError):
    """A reply that is not this site's answer to this question, whoever made it."""


class Courier:
    """Carries exchanges over a link; used by one thread.

    Parameters
    ----------
    link : Link
    signing_key : Ed25519PrivateKey
        The centre's, by which it signs its questions.
    identity_keys : dict of str to Ed25519PublicKey
        Each site's, by which it signs its answers.
    memory : Memory
        Its newest entry of a site's ledger is named at roll call.
    observer : Observer
        Told how the question at hand stands.
    clock, sleep : callable
        As of `time`.

    """

    def __init__(
        self,
        link: Link,
        *,
        signing_key: Ed25519PrivateKey,
        identity_keys: Mapping[str, Ed25519PublicKey],
        memory: Memory,
        observer: Observer,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._link = link
        self._signing_key = signing_key
        self._identity_keys = identity_keys
        self._memory = memory
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._waiting: dict[str, tuple[Exchange, str]] = {}
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._relay = Relay()

    def carry(self, exchange: Exchange, *, until: float) -> None:
        """Ask each site of an exchange until all have answered or failed, or the time is over.

        Raises
        ------
        StudyError
            What an answer says cannot be kept at the centre.

        """
        began = self._clock()
        while exchange.missing and self._clock() < until:
            online = self._link.online()
            self._ask_due(exchange, online)
            for reply in self._link.receive():
                self._take(reply, exchange)
            self._tell(exchange, online, began=began, until=until)
            if exchange.hopeless:
                break
            self._sleep(pause_s(self._clock() - began))

    def _ask_due(self, exchange: Exchange, online: Collection[int]) -> None:
        """Ask the sites that are connected and whose time has come."""
        for site, state in exchange.sites.items():
            if not state.missing or state.node not in online or not state.is_due(self._clock()):
                continue
            if state.under_way:
                _log.warning("%s has not answered %s; it is asked again", site, exchange.question.id)
            began = self._clock()
            self._ask(exchange, site, state)
            state.asked(began=began, now=self._clock())

    def _ask(self, exchange: Exchange, site: str, state: SiteState) -> None:
        """Send the question to one site, under the number of a new attempt."""
        question = exchange.question
        attempt = self._attempts[str(question.id), site]
        self._attempts[str(question.id), site] += 1
        question = replace(question, id=question.id.model_copy(update={"attempt": attempt}))
        if question.id.phase == "roll-call":
            question = replace(question, entries_seen=self._memory.ledger_seen(site).entries)
        body = self._relay.part_for(site, question).to_bytes(self._signing_key)
        self._waiting[self._link.send(state.node, body)] = (exchange, site)
        _log.debug("asked %s: %s, sha256 %s", site, question.id, sha256_of(body)[:16])

    def _take(self, reply: Reply, exchange: Exchange) -> None:
        """Note what a reply says about the exchange, or drop it."""
        if reply.message_id not in self._waiting:
            _log.warning("dropped an unknown reply")
            return
        other, site = self._waiting.pop(reply.message_id)
        state = other.sites[site]
        state.under_way -= 1
        if other is not exchange:
            _log.warning("dropped a late reply of %s to %s", site, other.question.id)
            return
        if state.answer is not None:
            return  # it was asked more than once
        try:
            answer = self._read(reply, exchange, site)
            if answer.noted is not None:
                as_sent = self._relay.noted(site, exchange.question, answer.noted)
                state.noted(as_sent=as_sent, now=self._clock())
                return
            self._relay.answered(site, exchange.question)
            state.answer, state.body = answer, reply.body
            state.answered_at = self._clock()
        except StudyError:
            raise  # the centre's own store or disk: no site is to blame
        except _NotItsWordError as error:
            # What anybody can send says nothing about the site: it is asked again.
            _log.warning("dropped a reply of %s to %s: %s", site, exchange.question.id, error)
            state.dropped(error, self._clock())
        except EsnError as error:
            _log.warning("%s, %s: %s", site, exchange.question.id, error)
            state.failed(error, reply, self._clock())

    def _read(self, reply: Reply, exchange: Exchange, site: str) -> Answer:
        """Return the answer in a reply, if it is the site's to this question."""
        if reply.body is None:
            raise ProtocolError(f"no answer ({reply.error or 'unknown reason'})")
        key = self._identity_keys[site]
        try:
            unseal(reply.body, key, "answer")
        except ProtocolError as error:
            raise _NotItsWordError(str(error)) from error
        answer = Answer.from_bytes(reply.body, key)
        asked = exchange.question.id.model_copy(update={"attempt": answer.id.attempt})
        if answer.site != site:
            raise ProtocolError(f"answered as {answer.site}, another site")
        if answer.id != asked:  # it was signed once, and may have been sent again by another
            raise _NotItsWordError(f"answered to {answer.id}, another question")
        if answer.refusal is not None:
            raise ProtocolError(f"refused ({answer.refusal.error})")
        if answer.noted is None:
            exchange.read(answer, site)
        return answer

    def _tell(self, exchange: Exchange, online: Collection[int], *, began: float, until: float) -> None:
        """Tell the observer how the question stands."""
        sites = {site: s.progress(online=s.node in online) for site, s in exchange.sites.items()}
        step: Literal["answers", "masks"] = "masks" if exchange.question.reveal else "answers"
        progress = QuestionProgress(exchange.question.id, step, sites, began, self._clock(), until)
        self._observer.progressed(progress)
