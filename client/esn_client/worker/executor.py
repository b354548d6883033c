"""The process that answers questions, within the time and memory that the site allows.

One process answers all messages. It holds the ledger and the children's data;
the guard, which talks to Flower, holds neither. When a question takes too long
or too much memory, the process is killed and a new one takes its place: the
ledger is made for that, whatever the instant, and no half-interrupted state
lives on. The limit on memory is looked at five times a second, on Linux; what
is counted is the memory in use (resident), not what is reserved.
"""

import logging
import os
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from esn_core import errors
from esn_core.errors import EsnError, QuestionLimitError
from esn_core.system.child_process import ChildProcess

_log = logging.getLogger(__name__)

STALE = b"N"
"""Said by the process instead of an answer: the settings were edited since it began."""

_LOOK_S = 0.2
_STARTUP_S = 300.0
_END_S = 0.2
# A question is put once more after its process died: the answer that was paid for is found in the ledger.
_TRIES = 2


class Executor:
    """Answers questions in a process of its own; runs within ``with``, used by one thread.

    Parameters
    ----------
    command : sequence of str
        The program; it gets the number of a file descriptor as its last argument, and serves it by
        `esn_client.worker.process.serve`.
    log_file : Path
        Where its words go.
    question_limit_s : float
        Longest that one question may take.
    memory_limit_gb : float
        Most memory that the process may use, in 10^9 bytes.

    Raises
    ------
    EsnError
        The process cannot serve: the error is the one that it met.

    """

    def __init__(
        self, command: Sequence[str], *, log_file: Path, question_limit_s: float, memory_limit_gb: float
    ) -> None:
        self._command = list(command)
        self._log_file = log_file
        self._question_limit_s = question_limit_s
        self._memory_limit_bytes = memory_limit_gb * 1e9
        self._process: ChildProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        """Start the process."""
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._stop()

    def ask(self, body: bytes) -> bytes:
        """Return the answer to one question.

        Raises
        ------
        QuestionLimitError
            It took more time or memory than the site allows.
        EsnError
            The question was no question, or the process met an unforeseen error or died twice.

        """
        for _ in range(_TRIES):
            pipe = self._pipe if self._process is not None and self._process.running else None
            if pipe is None:
                pipe = self._start()
            try:
                pipe.send_bytes(body)
                answer = self._wait(pipe, until_s=time.monotonic() + self._question_limit_s)
            except (EOFError, OSError):
                _log.warning("the process that answers died; a new one is started: %s", self._log_file.name)
                self._stop()
                continue
            except QuestionLimitError:
                self._stop()
                raise
            if answer == STALE:
                _log.info("the settings were edited; the process that answers is started again")
                self._stop()
                continue
            kind, content = answer[:1], answer[1:]
            if kind == b"A":
                return content
            raise _error_of(content)
        raise EsnError("the process that answers died twice over one question")

    def _start(self) -> Connection:
        self._stop()
        ours, theirs = Pipe()
        with theirs:
            self._process = ChildProcess(
                [*self._command, str(theirs.fileno())],
                log_file=self._log_file,
                environment={},
                pass_fds=(theirs.fileno(),),
            )
        self._pipe = ours
        try:
            word = self._wait(ours, until_s=time.monotonic() + _STARTUP_S)
        except (EOFError, OSError, QuestionLimitError) as error:
            words = self._process.last_words()
            self._stop()
            raise EsnError(
                f"the process that answers did not start: {words} (log: {self._log_file})"
            ) from error
        if word[:1] != b"R":
            self._stop()
            raise _error_of(word[1:])
        return ours

    def _wait(self, pipe: Connection, *, until_s: float) -> bytes:
        """Return what the process says next."""
        while not pipe.poll(_LOOK_S):
            if time.monotonic() > until_s:
                raise QuestionLimitError(
                    f"a question took longer than {self._question_limit_s:g} s (question_limit_s)"
                )
            used_bytes = self._resident_bytes()
            if used_bytes > self._memory_limit_bytes:
                raise QuestionLimitError(
                    f"a question used {used_bytes / 1e9:.1f} GB, more than "
                    f"{self._memory_limit_bytes / 1e9:g} (memory_limit_gb)"
                )
        return pipe.recv_bytes()

    def _resident_bytes(self) -> int:
        if self._process is None:
            return 0
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _stop(self) -> None:
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.stop(grace_s=_END_S)


def _error_of(content: bytes) -> EsnError:
    """Return the error that the process met; one that is none of ours becomes an `EsnError`."""
    name, _, text = content.decode(errors="replace").partition("\n")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, EsnError):
        return kind(text)
    return EsnError(f"{name}: {text}" if text else name)
