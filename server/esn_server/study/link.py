"""The link between the centre and its sites, as everything above Flower sees it: messages out, replies back.

One interface for all layers: a Flower run (`link.transport`), a study's link over several runs
(`link.lasting_link`), and the log around it (`link.message_log`). A question that was lost on its
way has a reply as well, without a body.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol as Structural


@dataclass(frozen=True)
class Reply:
    """What came of one message.

    Attributes
    ----------
    message_id : str
        What `Link.send` returned for the message.
    node_id : int
        The site that was asked.
    body : bytes or None
        The answer, or None if there is none.
    error : str or None
        The class of the error that stood in the way, or None.

    """

    message_id: str
    node_id: int
    body: bytes | None
    error: str | None = None


class Link(Structural):
    """What carries messages to the sites and back."""

    def send(self, node_id: int, body: bytes) -> str:
        """Send `body` to a node; return the id of the message."""

    def receive(self) -> Sequence[Reply]:
        """Return the replies that have arrived since the last call; do not wait."""

    def online(self) -> set[int]:
        """Return the nodes that are connected now."""
