"""The centre's SuperLink: the Flower process that sites connect to."""

import contextlib
import os
import secrets
import signal
import socket
import ssl
import sysconfig
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from esn_core.child_process import ChildProcess
from esn_core.errors import LinkError

_STARTUP_S = 60.0
_SERVE_POLL_S = 0.2
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink.

    Attributes
    ----------
    address : str
        ``host:port`` at which this machine reaches it.

    """

    address: str
    _process: ChildProcess

    def check(self) -> None:
        """Do nothing while the SuperLink runs.

        Raises
        ------
        LinkError
            It has ended; the message holds its last line.

        """
        if not self._process.running:
            raise LinkError(
                f"the SuperLink ended: {self._process.last_words()} (log: {self._process.log_file})"
            )


@contextlib.contextmanager
def run_superlink(directory: Path, *, host: str = "127.0.0.1", port: int) -> Iterator[SuperLink]:
    """Run a SuperLink, ready to be connected to, until the block is left.

    Its database, secret and log are kept in `directory`; no process outlives the block, nor this
    process if that is killed.

    Parameters
    ----------
    directory : Path
        Where `esn_server.identity.create_authority` wrote the certificates.
    host, port : str, int
        Where to listen. Anybody who reaches this port with the centre's certificate can start
        runs: keep it on loopback, or behind a front that lets ``/v1/fleet/`` through and nothing else.

    Raises
    ------
    LinkError
        A certificate is missing, the port is in use, or the SuperLink ended by itself.

    """
    for name in ("ca.crt", "server.crt", "server.key"):
        if not (directory / name).is_file():
            raise LinkError(f"{directory / name} is missing; create the centre's certificates first")
    _require_free_port(host, port)
    superlink_address = _join(_ANY_ADDRESS.get(host, host), port)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "flower-superlink"),
        *("--host", host, "--port", str(port)),
        *("--ssl-ca-certfile", str(directory / "ca.crt")),
        *("--ssl-certfile", str(directory / "server.crt")),
        *("--ssl-keyfile", str(directory / "server.key")),
        "--enable-supernode-auth",
        *("--database", str(directory / "superlink.db")),
        # The ServerApp runs in our own process, and only who holds the secret may act as it.
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(_secret_file(directory))),
        "--disable-runtime-dependency-installation",
    ]
    environment = {
        "FLWR_HOME": str(directory / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    log_file = directory / "logs" / "superlink.log"
    with ChildProcess(command, log_file=log_file, environment=environment) as process:
        superlink = SuperLink(address=superlink_address, _process=process)
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        if not process.wait_until(lambda: _answers(superlink.address, context), timeout_s=_STARTUP_S):
            superlink.check()
            raise LinkError(
                f"the SuperLink did not answer at {superlink.address} within {_STARTUP_S:.0f} s "
                f"(log: {log_file})"
            )
        yield superlink
        superlink.check()


def serve(directory: Path, *, host: str = "127.0.0.1", port: int, ready: Callable[[str], None]) -> None:
    """Run a SuperLink until this process is asked to end by SIGTERM or SIGINT.

    Parameters
    ----------
    directory, host, port
        As for `run_superlink`.
    ready : callable
        Called once with one line for the operator when sites can connect.

    Raises
    ------
    LinkError
        As for `run_superlink`.

    """
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda _signal, _frame: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with run_superlink(directory, host=host, port=port) as superlink:
            ready(f"the centre is ready at {_join(host, port)}")
            while not stop.wait(_SERVE_POLL_S):
                superlink.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_secret(directory: Path) -> bytes:
    """Return the secret that lets this centre's own programs act as the ServerApp.

    Raises
    ------
    LinkError
        No SuperLink has been started from `directory` yet.

    """
    try:
        return (directory / "superexec.secret").read_bytes()
    except FileNotFoundError:
        raise LinkError(f"no SuperLink was started from {directory} yet; start the centre first") from None


def _secret_file(directory: Path) -> Path:
    """Return the file with the secret, created at the first start."""
    path = directory / "superexec.secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path


def _require_free_port(host: str, port: int) -> None:
    """Refuse a port that another process listens on, before anything is started."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise LinkError(
            f"cannot listen on {_join(host, port)}: {reason}; choose another port or host"
        ) from error


def _answers(address: str, context: ssl.SSLContext) -> bool:
    """Return whether the SuperLink at `address` says that it is healthy."""
    # Never through a proxy: this is our own machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(f"https://{address}/health", timeout=2.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _join(host: str, port: int) -> str:
    """Return host and port as one address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
