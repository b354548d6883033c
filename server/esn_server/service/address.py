"""Where a started centre is: the file ``link.json`` in its directory.

Written by ``esn-server start`` once everything answers, and removed when it
ends in order. A JSON object with

* ``pid`` - of the process that keeps the others running;
* ``started_at`` - ISO 8601, UTC;
* ``public`` - ``host:port`` at which sites connect;
* ``superlink`` - ``host:port`` of the SuperLink on loopback: the centre's own programs connect here;
* ``health`` - ``host:port`` of the gRPC health service.

Beside it, ``run.lock`` is locked while a study runs.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from esn_core.errors import LinkError
from esn_core.system.files import write_whole

_FILE = "link.json"


@dataclass(frozen=True)
class Address:
    """Where a started centre is; see the module."""

    pid: int
    started_at: str
    public: str
    superlink: str
    health: str

    def write(self, directory: Path) -> None:
        """Keep this in the centre's directory."""
        write_whole(directory / _FILE, json.dumps(asdict(self), indent=2).encode() + b"\n")


def read_address(directory: Path) -> Address:
    """Return where the centre of a directory is.

    Raises
    ------
    LinkError
        It is not started, or its file is damaged.

    """
    path = directory / _FILE
    try:
        return Address(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise LinkError(
            f"the centre of {directory} is not started; run 'esn-server start {directory}' first"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise LinkError(f"{path} cannot be read ({error}); start the centre again") from error


def forget(directory: Path) -> None:
    """Remove the file: the centre is not started any more."""
    (directory / _FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def study_lock(directory: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of the study that runs; raise `BlockingIOError` if somebody else holds it."""
    with (directory / "run.lock").open("w") as lock:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield


def study_is_open(directory: Path) -> bool:
    """Return whether a study runs from a centre's directory now."""
    try:
        with study_lock(directory, shared=True):
            return False
    except BlockingIOError:
        return True
