"""The messages of one run between the centre and its sites."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from esn_core.errors import LinkError
from esn_server.app import from_message, to_message
from esn_server.link.superlink_api import reaching
from esn_server.study.link import Reply


class Transport:
    """The messages of one run; made by `flower_run.open_flower_run`, used by one thread."""

    def __init__(self, grid: Any, *, address: str, lost: threading.Event) -> None:
        self._grid = grid
        self._address = address
        self._lost = lost
        self._asked: dict[str, int] = {}

    def send(self, node_id: int, body: bytes) -> str:
        """Hand a question for one site to the SuperLink.

        Returns
        -------
        str
            The message's id, which the reply to it repeats.

        Raises
        ------
        LinkError
            The SuperLink cannot be reached, or takes no message for this site.

        """
        with self._connected():
            (message_id,) = self._grid.push_messages([to_message(body, node_id=node_id)])
        if not message_id:
            raise LinkError(f"the SuperLink takes no message for node {node_id}: is it registered?")
        self._asked[message_id] = node_id
        return str(message_id)

    def receive(self) -> list[Reply]:
        """Return the replies that have come since the last call, without waiting for any.

        Raises
        ------
        LinkError
            The SuperLink cannot be reached, or has ended the run.

        """
        if not self._asked:
            return []
        replies = []
        with self._connected():
            for message_id, reply in self._grid.arrived(list(self._asked)):
                if message_id in self._asked:
                    body, error = (None, reply) if isinstance(reply, str) else from_message(reply)
                    replies.append(Reply(message_id, self._asked.pop(message_id), body, error))
        return replies

    def online(self) -> set[int]:
        """Return the nodes that the SuperLink hears from now.

        Raises
        ------
        LinkError
            The SuperLink cannot be reached, or has ended the run.

        """
        with self._connected():
            return set(self._grid.get_node_ids())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn Flower's ways to say that the SuperLink is gone into one."""
        if self._lost.is_set():
            raise LinkError("the SuperLink ended this run: it was stopped, or lost sight of us for too long")
        with reaching(self._address):
            yield
