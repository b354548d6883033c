"""Flower's ClientApp: translates between Flower messages and bytes, decides nothing."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from esn_core.errors import ProtocolError

app = ClientApp()  # unannotated: Flower looks for a plain assignment

Answer = Callable[[bytes], bytes]
_installed: list[Answer] = []


def install(answer: Answer) -> None:
    """Let `answer` answer every question from now on, in this process."""
    _installed[:] = [answer]


@app.query()
def query(message: Message, _context: Context) -> Message:
    """Hand a question's bytes to the installed function, and wrap what it returns."""
    try:
        body = message.content["question"]["body"]
    except KeyError:
        raise ProtocolError("the message holds no question") from None
    if not isinstance(body, bytes):
        raise ProtocolError(f"the question must be bytes, not {type(body).__name__}")
    (answer,) = _installed
    return Message(RecordDict({"answer": ConfigRecord({"body": answer(body)})}), reply_to=message)
