"""The centre's log of every message: written before a question is sent, and as soon as an answer is here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from esn_core.errors import StudyError
from esn_core.messages.envelope import sha256_of
from esn_core.messages.question import question_in
from esn_core.system.chained_log import ChainedLog
from esn_server.study.link import Link, Reply


class LoggedLink:
    """A link whose messages are logged, in one file for all studies of a centre.

    Parameters
    ----------
    link : Link
    nodes : dict of str to int
        Node of each site.
    centre : Path
        The centre's directory.

    """

    def __init__(self, link: Link, nodes: Mapping[str, int], *, centre: Path) -> None:
        self._link = link
        self._sites = {node: site for site, node in nodes.items()}
        self._path = log_of(centre)
        self._log = ChainedLog(self._path)
        self._asked: dict[str, tuple[str, str]] = {}

    def send(self, node_id: int, body: bytes) -> str:
        """Log a question, then send it.

        Raises
        ------
        StudyError
            It cannot be logged; it was not sent.

        """
        site, number = self._sites[node_id], question_in(body)
        self._write("asked", site=site, question=str(number), attempt=number.attempt, body=body)
        message_id = self._link.send(node_id, body)
        self._asked[message_id] = (site, str(number))
        return message_id

    def receive(self) -> Sequence[Reply]:
        """Return the replies that have arrived, and log the answers among them.

        Raises
        ------
        StudyError
            One cannot be logged.

        """
        replies = self._link.receive()
        for reply in replies:
            if reply.message_id in self._asked and reply.body is not None:
                site, question = self._asked.pop(reply.message_id)
                self._write("answered", site=site, question=question, body=reply.body)
        return replies

    def online(self) -> set[int]:
        """Return the nodes that are connected now."""
        return self._link.online()

    def _write(self, event: str, *, body: bytes, **facts: str | int) -> None:
        try:
            self._log.append(event=event, sha256=sha256_of(body), bytes=len(body), **facts)
        except OSError as cause:
            raise StudyError(
                f"{self._path}: the log of messages cannot be written to: {cause.strerror}"
            ) from cause


def log_of(centre: Path) -> Path:
    """Return the file with a centre's log of messages."""
    return centre / "messages.jsonl"
