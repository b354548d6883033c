"""The centre's SuperLink: the Flower process that sites connect to."""

import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from esn_core.errors import LinkError
from esn_core.system.child_process import ChildProcess

# Of a machine that does much else as well; a SuperLink that ends is seen at once.
_STARTUP_S = 300.0

PROOF_HEADER = "x-esn-centre"
"""With it the centre's own programs prove to the SuperLink that they are its own."""


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink.

    Attributes
    ----------
    address : str
        ``host:port`` at which this machine reaches it.
    process : ChildProcess

    """

    address: str
    process: ChildProcess

    def check(self) -> None:
        """Do nothing while the SuperLink runs.

        Raises
        ------
        LinkError
            It has ended; the message holds its last line.

        """
        if not self.process.running:
            raise LinkError(
                f"the SuperLink ended: {self.process.last_words()} (log: {self.process.log_file})"
            )


@contextlib.contextmanager
def run_superlink(directory: Path, *, port: int) -> Iterator[SuperLink]:
    """Run a SuperLink, ready to be connected to, until the block is left.

    Its database, secret and log are kept in `directory`; no process outlives the block, nor this
    process if that is killed.

    Parameters
    ----------
    directory : Path
        Where `esn_server.enrolment.centre_keys.create_authority` wrote the certificates.
    port : int
        Of the loopback interface. It answers nobody who does not know the secret, not even a site: sites
        reach the front only.

    Raises
    ------
    LinkError
        A certificate is missing, the port is in use, or the SuperLink ended by itself.

    """
    for name in ("ca.crt", "server.crt", "server.key"):
        if not (directory / name).is_file():
            raise LinkError(f"{directory / name} is missing; create the centre's certificates first")
    require_free_port("127.0.0.1", port)
    command = [
        *(sys.executable, "-m", "esn_server.link.flower_superlink"),
        *("--host", "127.0.0.1", "--port", str(port)),
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
        superlink = SuperLink(address=f"127.0.0.1:{port}", process=process)
        authority = directory / "ca.crt"
        if not process.wait_until(lambda: answers(superlink.address, authority), timeout_s=_STARTUP_S):
            superlink.check()
            raise LinkError(
                f"the SuperLink did not answer at {superlink.address} within {_STARTUP_S:.0f} s "
                f"(log: {log_file})"
            )
        yield superlink
        superlink.check()


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


def proof_of(secret: bytes) -> str:
    """Return what proves the knowledge of the secret, without being the secret: Flower signs with that."""
    return hmac.new(secret, b"esn-server asks its SuperLink", hashlib.sha256).hexdigest()


def _secret_file(directory: Path) -> Path:
    """Return the file with the secret, created at the first start."""
    path = directory / "superexec.secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path


def require_free_port(host: str, port: int) -> None:
    """Refuse a port that another process listens on, before anything is started."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise LinkError(
            f"cannot listen on {join_address(host, port)}: {reason}; choose another port or host"
        ) from error


def answers(address: str, authority: Path) -> bool:
    """Return whether what listens at `address` says that it is healthy, and proves that it is ours."""
    # Never through a proxy: this is our own machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(authority))),
    )
    try:
        with opener.open(f"https://{address}/health", timeout=4.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def join_address(host: str, port: int) -> str:
    """Return host and port as one address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
