"""Flower's grid, changed so that a reply that is not whole keeps nobody waiting.

Flower announces a reply before its parts have arrived, and its own grid then
waits for them, for two hours if need be, while all other replies lie there. A
site whose network is cut at that moment, or that sends more than the front lets
through, would stop every study.
"""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.superlink.grid import HttpGrid

from esn_server.link.superlink_api import runtime_client

# A SuperLink that is away for longer has ended; its runs end with it.
_RETRY_S = 3.0
# An honest answer is three: the message, what it holds, and the record with the bytes.
_MOST_PARTS = 8

_State = Literal["whole", "incomplete", "AnswerTooLarge", "ReplyUnavailable"]


@dataclass
class _Arriving:
    """A reply that was announced, and the parts of it that are here."""

    reply_to: str
    part_ids: tuple[str, ...]
    parts: dict[str, bytes] = field(default_factory=dict)


class PatientGrid(HttpGrid):
    """Sends messages and receives whole replies over a SuperLink, without waiting for any.

    Parameters
    ----------
    directory : Path
        The centre's.
    address : str
        ``host:port`` of the SuperLink.
    token : str
        Proves that this process is the run's.

    """

    def __init__(self, directory: Path, address: str, *, token: str) -> None:
        super().__init__(runtime_api_address=address, token=token)
        self._directory = directory
        self._arriving: dict[str, _Arriving] = {}

    def _connect(self) -> None:
        """Connect as this centre, and with bounds.

        Flower's own way retries for ever, and interrupts this process when the run has ended.
        """
        retry = RetryInvoker(
            lambda: exponential(base_delay=0.2, max_delay=5),
            httpx.TransportError,
            max_tries=None,
            max_time=_RETRY_S,
        )
        proof = RuntimeTokenHttpInterceptor(self._token)
        self._client = runtime_client(self._directory, self._addr, proof, retry_invoker=retry)

    def arrived(self, asked: Iterable[str]) -> Iterator[tuple[str, Message | str]]:
        """Yield the replies that are whole now.

        Parameters
        ----------
        asked : iterable of str
            Ids of the messages whose replies are wanted.

        Yields
        ------
        message_id : str
            Of the message that was replied to.
        reply : Message or str
            The reply, or the name of the error why there will be none.

        """
        # A reply is announced once: asked again, the SuperLink says that it knows no such message.
        wanted = set(asked) - {reply.reply_to for reply in self._arriving.values()}
        if wanted:
            self._look_for(wanted)
        for reply_id, reply in list(self._arriving.items()):
            state = self._fetch(reply)
            if state == "incomplete":
                continue
            del self._arriving[reply_id]
            self._forget(reply_id)
            yield reply.reply_to, _inflated(reply_id, reply.parts) if state == "whole" else state

    def _look_for(self, wanted: set[str]) -> None:
        """Note which replies have been announced."""
        announced = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=wanted))
        for message, tree in zip(announced.messages_list, announced.message_object_trees, strict=True):
            self._arriving[message.metadata.message_id] = _Arriving(
                message.metadata.reply_to_message_id,
                tuple(part.object_id for part in iterate_object_tree(tree)),
            )

    def _fetch(self, reply: _Arriving) -> _State:
        """Fetch the parts that are there and that we lack."""
        if len(reply.part_ids) > _MOST_PARTS:
            return "AnswerTooLarge"
        for part in reply.part_ids:
            if part in reply.parts:
                continue
            request = PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=part)
            found = self._runtime_client.PullObject(request)
            if not found.object_found:
                return "ReplyUnavailable"
            if not found.object_available:
                return "incomplete"
            reply.parts[part] = found.object_content
        return "whole"

    def _forget(self, reply_id: str) -> None:
        """Let the SuperLink throw a reply away, and refuse what is still to come of it."""
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=reply_id)
        )


def _inflated(reply_id: str, parts: dict[str, bytes]) -> Any:
    message: Any = inflate_object_from_contents(reply_id, parts)
    message.metadata.__dict__["_message_id"] = reply_id
    return message
