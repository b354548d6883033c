"""The hospital in a process of its own: reads questions from its guard, and answers each through the gate.

It ends when no question came for a while, and is started again by the next one: what a study loaded (torch,
the children, a model) is some hundred MB, which a hospital need not hold between two studies.
"""

import logging
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from esn_core.errors import EsnError, GateError
from esn_core.messages.question import LARGEST_MESSAGE_BYTES

_log = logging.getLogger(__name__)

_IDLE_S = 300.0


def serve(pipe: Connection, reply: Callable[[bytes], bytes], *, idle_s: float = _IDLE_S) -> None:
    """Answer until the guard closes its end, or asks nothing for so long.

    Parameters
    ----------
    pipe : Connection
        To the guard.
    reply : callable
        Takes a question's bytes and returns the answer's. Of an exception, the guard learns the class.
    idle_s : float
        Longest wait for a question.

    """
    pipe.send_bytes(b"R")
    while pipe.poll(idle_s):
        try:
            body = pipe.recv_bytes()
        except EOFError:
            return
        try:
            said = b"A" + _bounded(reply(body))
        except Exception as error:
            # Without its text, which may name a patient; with it where debugging was asked for.
            name = type(error).__name__
            _log.warning("no answer: %s", name, exc_info=_log.isEnabledFor(logging.DEBUG))
            said = b"E" + name.encode()
        pipe.send_bytes(said)


def _bounded(answer: bytes) -> bytes:
    """Return an answer that the centre can take; a longer one would be on its way for ever."""
    if len(answer) > LARGEST_MESSAGE_BYTES:
        raise GateError(f"an answer may hold {LARGEST_MESSAGE_BYTES} bytes at most, not {len(answer)}")
    return answer


def main() -> None:
    """Serve a site: ``python -m esn_client.worker.process SITE.TOML DESCRIPTOR``."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for ours in ("esn_core", "esn_client"):
        logging.getLogger(ours).setLevel(logging.INFO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the guard ends us, after the last answer
    pipe = Connection(int(sys.argv[2]))
    try:
        from esn_client.site.settings import load_site
        from esn_client.worker.site import open_hospital

        with open_hospital(load_site(Path(sys.argv[1]))) as (hospital, _):
            serve(pipe, hospital.reply)
    except EsnError as error:
        pipe.send_bytes(b"F" + f"{type(error).__name__}\n{error}".encode())


if __name__ == "__main__":
    main()
