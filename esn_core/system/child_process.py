"""A child process that ends when its parent does, with its words in a log file."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from esn_core.system.logs import rotate

# Runs before the child's own program: Linux then ends the child when the thread that started it
# ends, however it ends. The parent may be gone already, so its identity is checked afterwards.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process ended")
os.execv(sys.argv[2], sys.argv[2:])
"""
_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_POLL_S = 0.05


class ChildProcess:
    """A program that runs until it is stopped, and never outlives this process.

    Parameters
    ----------
    command : sequence of str
        Absolute path of the program, and its arguments.
    log_file : Path
        What the program prints is appended here; the directory is created, and a file that has grown too
        large is begun anew.
    environment : mapping of str to str
        Variables added to this process's own.
    pass_fds : sequence of int
        File descriptors that the program keeps open, under the same numbers.

    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_file: Path,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_file)
        self.log_file = log_file
        self._log_start_bytes = log_file.stat().st_size if log_file.exists() else 0
        self._log_read_bytes = self._log_start_bytes
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # An interrupt typed at the terminal is for us: we stop the child in our own order.
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def __enter__(self) -> Self:
        """Return the running child."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the child."""
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child has not ended."""
        return self._process.poll() is None

    def log_lines(self) -> list[str]:
        """Return what the child has printed since it was started, without colours or empty lines."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start_bytes)
            text = log.read().decode("utf-8", errors="replace")
        lines = (_TERMINAL_COLOUR.sub("", line).strip() for line in text.splitlines())
        return [line for line in lines if line]

    def printed_since(self) -> bytes:
        """Return what the child has printed since the last call, as it stands."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_read_bytes)
            text = log.read()
        whole = text.rfind(b"\n") + 1  # a line that is being written is read the next time
        self._log_read_bytes += whole
        return text[:whole]

    def last_words(self) -> str:
        """Return why the child ended, as far as it said so: its last line, a signal or its exit status."""
        status = self._process.poll()
        if status is not None and status < 0:
            return f"it was ended by signal {-status}"
        lines = [line for line in self.log_lines() if "http://" not in line and "https://" not in line]
        return lines[-1] if lines else f"it ended with exit status {status} and no message"

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until `ready` holds, the child has ended or the time is over.

        Returns
        -------
        bool
            Whether `ready` held.

        """
        deadline_s = time.monotonic() + timeout_s
        while not ready():
            if not self.running or time.monotonic() > deadline_s:
                return ready()
            time.sleep(_POLL_S)
        return True

    def stop(self, *, grace_s: float = 8.0) -> bool:
        """Ask the child to end; after `grace_s` end it and whatever it started.

        Returns
        -------
        bool
            Whether it had ended by then.

        """
        try:
            if self.running:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=grace_s)
        finally:
            # The child leads its own process group: nothing that it started may stay behind, even if an
            # interrupt cuts the wait short.
            ended = not self.running
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return ended
