"""A site's SuperNode: the Flower process that calls the centre."""

import contextlib
import secrets
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from esn_core.errors import AwayError, LinkError
from esn_core.system.child_process import ChildProcess
from esn_core.system.files import write_new
from esn_core.system.loopback import free_port

_RETRY_S = 1.0
# Answers are waited for before an end, unless the last was handed over so long ago that it never will leave.
_DRAIN_S, _LONGEST_WAY_S = 10.0, 60.0
# To say goodbye: where it is started again, and where a site is asked to stop, in three seconds at most.
_GOODBYE_S, _SHORT_GOODBYE_S = 8.0, 1.8
# The SuperLink keeps a node that vanished for two heartbeats of 30 s, and refuses its key meanwhile.
LEASE_S = 90.0


# What it says when it calls the centre no more. It may linger for ever after that, and hand out nothing.
_GAVE_UP = (b"Giving up reconnection", b"SSL/TLS handshake error", b"Server error '5")


@dataclass
class SuperNode:
    """A SuperNode that is connected to the centre.

    Attributes
    ----------
    runtime_address : str
        ``host:port`` on loopback at which it hands out questions.
    secret : bytes
        Proves to it that we may take them.

    """

    runtime_address: str
    secret: bytes
    _process: ChildProcess
    _gave_up: bool = False

    @property
    def running(self) -> bool:
        """Whether the SuperNode has neither ended nor given its connection up."""
        printed = self._process.printed_since()
        self._gave_up = self._gave_up or any(words in printed for words in _GAVE_UP)
        return self._process.running and not self._gave_up

    def last_words(self) -> str:
        """Return the SuperNode's last line."""
        return self._process.last_words()

    def drain(self, answer: str, *, last_s: float) -> None:
        """Wait until the last answer has left for the centre or was given up, for a bounded time.

        Those before it have by then: they are sent one at a time. They are not counted, as the SuperNode
        also sends errors of its own.

        Parameters
        ----------
        answer : str
            Its message's id.
        last_s : float
            When it was handed over, on the monotonic clock. What has not left long after that never will: its
            run may have ended meanwhile.

        """
        self._process.wait_until(
            lambda: _has_left(answer, self._process.log_lines()),
            timeout_s=min(_DRAIN_S, last_s + _LONGEST_WAY_S - time.monotonic()),
        )


def _has_left(answer: str, lines: list[str]) -> bool:
    """Tell whether a SuperNode says that it has sent an answer, or that it cannot."""
    begun = next((at for at, line in enumerate(lines) if "Sending:" in line and answer in line), len(lines))
    return any("Sent successfully" in line or answer in line for line in lines[begun + 1 :])


@contextlib.contextmanager
def run_supernode(
    *,
    server_address: str,
    ca_certificate: Path,
    node_key: Path,
    state_directory: Path,
    connect_timeout_s: float,
    stopped: Callable[[], bool],
) -> Iterator[SuperNode]:
    """Run a SuperNode, connected to the centre, until the block is left.

    It executes nothing: questions wait in it until this process takes them. No process outlives the
    block, nor this process if that is killed.

    Parameters
    ----------
    server_address, ca_certificate
        Where the centre is, and how it proves that it is the centre.
    node_key : Path
        This site's private key.
    state_directory : Path
        Where the log, the secret and Flower's own files are kept.
    connect_timeout_s : float
        How long the SuperNode may take to connect.
    stopped : callable
        Ends the wait for the connection when it returns true, and leaves less time for the end.

    Raises
    ------
    AwayError
        The SuperNode ended, or did not connect in time.
    LinkError
        The centre refuses the key.

    """
    lease = state_directory / "connected"
    give_up_s = time.monotonic() + (max(connect_timeout_s, LEASE_S) if lease.exists() else 0.0)
    while True:
        try:
            supernode = _connect(
                server_address, ca_certificate, node_key, state_directory, connect_timeout_s, stopped
            )
            break
        except AwayError:
            raise
        except LinkError:
            # We were connected, and ended without saying so: the centre takes us back when the lease is over.
            if time.monotonic() > give_up_s or stopped():
                raise
            time.sleep(_RETRY_S)
    lease.touch()
    try:
        yield supernode
    finally:
        connected = supernode.running
        in_time = supernode._process.stop(grace_s=_SHORT_GOODBYE_S if stopped() else _GOODBYE_S)
        if connected and in_time:  # and so it said goodbye
            lease.unlink(missing_ok=True)


def _connect(
    server_address: str,
    ca_certificate: Path,
    node_key: Path,
    state_directory: Path,
    connect_timeout_s: float,
    stopped: Callable[[], bool],
) -> SuperNode:
    """Start a SuperNode and wait until the centre has accepted it."""
    secret_file = state_directory / "superexec.secret"
    secret = _new_secret(secret_file)
    runtime_port = free_port()
    process = ChildProcess(
        [
            str(Path(sysconfig.get_path("scripts")) / "flower-supernode"),
            *("--superlink", server_address, "--root-certificates", str(ca_certificate)),
            *("--auth-supernode-private-key", str(node_key)),
            *("--host", "127.0.0.1", "--port", str(runtime_port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret_file)),
        ],
        log_file=state_directory / "logs" / "supernode.log",
        environment={
            "FLWR_HOME": str(state_directory / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        },
    )

    def connected() -> bool:
        return any("SuperNode ID:" in line for line in process.log_lines())

    try:
        in_time = process.wait_until(lambda: connected() or stopped(), timeout_s=connect_timeout_s)
    except BaseException:
        process.stop()
        raise
    if not in_time:
        error = _why_not_connected(process, server_address, node_key, connect_timeout_s)
        process.stop()
        raise error
    return SuperNode(f"127.0.0.1:{runtime_port}", secret, process)


def _why_not_connected(
    process: ChildProcess, server_address: str, node_key: Path, timeout_s: float
) -> LinkError:
    """Say in one line why the SuperNode is not connected."""
    where = f"(log: {process.log_file})"
    if process.running:
        return AwayError(
            f"the centre at {server_address} accepted no connection within {timeout_s:.0f} s {where}"
        )
    lines = process.log_lines()
    if any(line.startswith("[code:") for line in lines):
        return LinkError(
            f"the centre at {server_address} does not accept the key {node_key}: it is not enrolled there, "
            "or another process of this site is connected with it"
        )
    if any("terminated gracefully" in line for line in lines):
        return AwayError(
            f"the centre at {server_address} does not accept the signature made with {node_key}: do the "
            "clocks agree within five minutes?"
        )
    return AwayError(f"the SuperNode ended: {process.last_words()} {where}")


def _new_secret(path: Path) -> bytes:
    """Write a fresh secret that only this site's own processes can read, and return it."""
    secret = secrets.token_bytes(32)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    write_new(path, secret, mode=0o600)
    return secret
