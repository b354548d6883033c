"""The link of a study, as its rounds see it: messages to the sites and back."""

from collections.abc import Sequence
from typing import Protocol as Structural


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
