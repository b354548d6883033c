"""The centre's processes, kept running: the SuperLink, and the front that sites connect to."""

import contextlib
import datetime
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from esn_core.errors import LinkError
from esn_core.system.child_process import ChildProcess
from esn_core.system.logs import keep_in
from esn_core.system.loopback import free_port
from esn_server.service.address import Address, forget, study_is_open
from esn_server.service.health import HealthService
from esn_server.service.superlink import answers, join_address, require_free_port, run_superlink

_log = logging.getLogger(__name__)

_WATCH_S = 0.2
_HEALTH_EVERY_S = 1.0
_FRONT_STARTUP_S = 300.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
# A process that ends sooner than this after its start may never have worked.
_QUICK_S = 10.0
_QUICK_DEATHS = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


@dataclass
class _Kept:
    """A process that is started again when it ends, later and later, and at last not any more."""

    name: str
    start: Callable[[], contextlib.AbstractContextManager[ChildProcess]]
    quick_deaths: int = 0
    due_s: float = 0.0
    started_s: float = 0.0
    process: ChildProcess | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def watch(self) -> None:
        """Start the process if it is due; see whether it has ended."""
        if self.process is not None and not self.process.running:
            last_words, log_file = self.process.last_words(), self.process.log_file
            self.stop()
            self._died(last_words, log_file)
        if self.process is None and time.monotonic() >= self.due_s:
            self.started_s = time.monotonic()
            try:
                self.process = self._stack.enter_context(self.start())
            except LinkError as error:
                self._died(str(error), None)

    def _died(self, last_words: str, log_file: Path | None) -> None:
        lived_s = time.monotonic() - self.started_s
        self.quick_deaths = self.quick_deaths + 1 if lived_s < _QUICK_S else 0
        where = f" (log: {log_file})" if log_file else ""
        if self.quick_deaths >= _QUICK_DEATHS:
            raise LinkError(
                f"{self.name} ended {self.quick_deaths} times soon after its start: {last_words}{where}"
            )
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** max(0, self.quick_deaths - 1), _LONGEST_PAUSE_S)
        self.due_s = time.monotonic() + pause_s
        _log.warning("%s ended and is started again in %.1f s: %s%s", self.name, pause_s, last_words, where)

    def stop(self) -> None:
        """End the process."""
        self.process = None
        with contextlib.suppress(LinkError):  # that it has ended is known
            self._stack.close()


def serve(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    port: int,
    health_host: str = "127.0.0.1",
    health_port: int,
    ready: Callable[[str], None],
) -> None:
    """Serve the sites until this process is asked to end by SIGTERM or SIGINT.

    Parameters
    ----------
    directory : Path
        Where `esn_server.enrolment.centre_keys.create_authority` wrote the certificates.
    host, port : str, int
        Where sites connect.
    health_host, health_port : str, int
        Where the gRPC health service listens, without TLS; keep it inside the centre.
    ready : callable
        Called once with one line for the operator when sites can connect.

    Raises
    ------
    LinkError
        A certificate is missing, a port is in use, or a process cannot be kept running.

    """
    with _stop_signals() as stop, contextlib.ExitStack() as stack:
        keep_in(directory / "logs" / "centre.log")
        require_free_port(host, port)
        require_free_port(health_host, health_port)
        superlink_port = free_port()
        superlink = f"127.0.0.1:{superlink_port}"
        public = join_address(host, port)
        local = join_address(_ANY_ADDRESS.get(host, host), port)
        authority = directory / "ca.crt"
        kept = [
            _Kept("the SuperLink", lambda: _superlink(directory, superlink_port)),
            _Kept("the front", lambda: _front(directory, host, port, superlink)),
        ]
        # The front first: nobody may connect to a front whose SuperLink is being stopped and wonder.
        for process in kept:
            stack.callback(process.stop)
            process.process = process._stack.enter_context(process.start())
            process.started_s = time.monotonic()
        deadline_s = time.monotonic() + _FRONT_STARTUP_S
        while not answers(local, authority):
            front = kept[1].process
            if front is None or not front.running or time.monotonic() > deadline_s:
                said = front.last_words() if front is not None else ""
                raise LinkError(f"the front did not answer at {local}: {said}")
            time.sleep(_WATCH_S)
        health = stack.enter_context(HealthService(health_host, health_port))
        Address(
            pid=os.getpid(),
            started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            public=public,
            superlink=superlink,
            health=join_address(health_host, health_port),
        ).write(directory)
        stack.callback(forget, directory)
        ready(f"the centre is ready at {public}")
        asked_s = 0.0
        while not stop.wait(_WATCH_S):
            for process in kept:
                process.watch()
            if time.monotonic() - asked_s > _HEALTH_EVERY_S:
                health.set("fleet", answers(local, authority))
                health.set("study", study_is_open(directory))
                asked_s = time.monotonic()


@contextlib.contextmanager
def _superlink(directory: Path, port: int) -> Iterator[ChildProcess]:
    with run_superlink(directory, port=port) as superlink:
        yield superlink.process


def _front(directory: Path, host: str, port: int, superlink: str) -> ChildProcess:
    command = [sys.executable, "-m", "esn_server.front.server", str(directory), host, str(port), superlink]
    return ChildProcess(command, log_file=directory / "logs" / "front.log", environment={})


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Let SIGTERM and SIGINT set an event."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda _signal, _frame: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
