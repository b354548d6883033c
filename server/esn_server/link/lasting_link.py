"""The link of one study, over as many Flower runs as it takes.

A SuperLink that is restarted ends the run that was open. A study does not mind:
its questions have ids of their own, and a site that is asked again sends what it
sent before. So a new run is opened, and every question that was on its way is
reported as lost; whoever asked it asks again.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, TypeVar

from esn_core.errors import LinkError
from esn_server.study.link import Link, Reply

_log = logging.getLogger(__name__)

_PATIENCE_S = 600.0
_PAUSE_S = 1.0
# A run that is lost sooner than this after its opening never worked.
_QUICK_S = 5.0
_QUICK_LOSSES = 10
# What is said of a question that was on its way when its run ended.
_LOST = "SiteUnavailable"
_Result = TypeVar("_Result")


class LastingLink:
    """Sends and receives the messages of one study; runs within ``with``, used by one thread.

    Parameters
    ----------
    open_run : callable
        Opens a Flower run.
    clock, sleep : callable
        Of `time`; tests bring their own.

    """

    def __init__(
        self,
        open_run: Callable[[], AbstractContextManager[Link]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._open_run = open_run
        self._clock = clock
        self._sleep = sleep
        self._stack = contextlib.ExitStack()
        self._asked: dict[str, int] = {}
        self._lost: list[Reply] = []
        self._quick_losses = 0

    def __enter__(self) -> Self:
        """Open the first run; a centre that cannot be reached now is an error."""
        self._run = self._stack.enter_context(self._open_run())
        self._opened_s = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run with its true status."""
        self._stack.__exit__(kind, error, trace)

    def send(self, node_id: int, body: bytes) -> str:
        """Hand a question for one site to the SuperLink; return the message's id.

        Raises
        ------
        LinkError
            The SuperLink stays away.

        """
        message_id = self._lasting(lambda: self._run.send(node_id, body))
        self._asked[message_id] = node_id
        return message_id

    def receive(self) -> Sequence[Reply]:
        """Return the replies that have come since the last call, and what was lost."""
        replies = list(self._lasting(lambda: self._run.receive()))
        for reply in replies:
            self._asked.pop(reply.message_id, None)
        lost, self._lost = self._lost, []
        return [*replies, *lost]

    def online(self) -> set[int]:
        """Return the nodes that the SuperLink hears from now."""
        return self._lasting(lambda: self._run.online())

    def _lasting(self, call: Callable[[], _Result]) -> _Result:
        while True:
            try:
                return call()
            except LinkError as error:
                self._reopen(error)

    def _reopen(self, why: LinkError) -> None:
        """Open another run, however long the SuperLink takes to be back, within bounds."""
        quick = self._clock() - self._opened_s < _QUICK_S
        self._quick_losses = self._quick_losses + 1 if quick else 0
        if self._quick_losses > _QUICK_LOSSES:
            raise why
        _log.warning("the link is opened again: %s", why)
        with contextlib.suppress(LinkError):
            self._stack.__exit__(type(why), why, None)
        self._lost += [Reply(message_id, node, None, _LOST) for message_id, node in self._asked.items()]
        self._asked.clear()
        until_s = self._clock() + _PATIENCE_S
        while True:
            self._sleep(_PAUSE_S)
            self._stack = contextlib.ExitStack()
            try:
                self._run = self._stack.enter_context(self._open_run())
            except LinkError:
                if self._clock() > until_s:
                    raise
            else:
                break
        self._opened_s = self._clock()
        _log.warning("the link is open again; %d questions are asked again", len(self._lost))
