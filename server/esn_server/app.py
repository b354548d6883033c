"""Flower's ServerApp: translates between bytes and Flower messages, decides nothing."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

import re

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()  # unannotated: Flower looks for a plain assignment

# A site that is asked after this time has answered a question nobody waits for.
_QUESTION_LIFETIME_S = 12 * 3600.0
# A site's error is the name of a class. Anything else is text of the site's choosing, and not shown.
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FLOWER_ERRORS = {
    3: "MessageUnavailable",
    4: "ReplyUnavailable",
    5: "SiteUnavailable",
    8: "SiteCrashed",
}


@app.main()
def main(_grid: Grid, _context: Context) -> None:
    """Refuse to run in a process that Flower started: the study runs in the centre's own."""
    raise RuntimeError("a study is started with 'esn-server run', not by Flower")


def to_message(body: bytes, *, node_id: int) -> Message:
    """Wrap a question for one site."""
    content = RecordDict({"question": ConfigRecord({"body": body})})
    return Message(content, dst_node_id=node_id, message_type=MessageType.QUERY, ttl=_QUESTION_LIFETIME_S)


def from_message(message: Message) -> tuple[bytes | None, str | None]:
    """Unwrap a site's answer.

    Returns
    -------
    body : bytes or None
        What the site answered, or None if it did not.
    error : str or None
        The name of the error that the site or Flower met, or None.

    """
    if message.has_error():
        reason = message.error.reason or ""
        if message.error.code in _FLOWER_ERRORS:
            return None, _FLOWER_ERRORS[message.error.code]
        return None, reason if _CLASS_NAME.fullmatch(reason) else "UnknownError"
    try:
        body = message.content["answer"]["body"]
    except KeyError:
        return None, "ProtocolError"
    return (body, None) if isinstance(body, bytes) else (None, "ProtocolError")
