"""The order in which the studies of one centre run: one at a time, whoever came first goes first."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from esn_core.errors import ConfigError

_POLL_S = 0.5


@dataclass(frozen=True)
class Ticket:
    """A study's place in the queue.

    Attributes
    ----------
    number : int
        Lower numbers run first.
    study : str
    run_directory : str
        Absolute path.
    process : int
        Process id on the machine that drew the ticket.

    """

    number: int
    study: str
    run_directory: str
    process: int


@contextlib.contextmanager
def place_in_queue(
    centre: Path, *, study: str, run_directory: Path, behind: Callable[[Sequence[str]], None]
) -> Iterator[None]:
    """Wait until every study that came before has ended, and keep the others waiting meanwhile.

    A process that dies loses its place: a ticket counts only while its owner holds the lock on it.

    Parameters
    ----------
    centre : Path
        The centre's directory.
    study : str
    run_directory : Path
    behind : callable
        Told the names of the studies ahead, the running one first, whenever they change; not called
        when there are none.

    Raises
    ------
    ConfigError
        The queue cannot be written to.

    """
    directory = centre / "queue"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        ticket, file = _draw(directory, study, run_directory)
    except OSError as cause:
        raise ConfigError(f"{directory}: the queue of studies cannot be used: {cause.strerror}") from cause
    try:
        ahead: tuple[str, ...] = ()
        while True:
            before = tuple(t.study for t in queue(centre) if t.number < ticket.number)
            if not before:
                break
            if before != ahead:
                behind(before)
                ahead = before
            time.sleep(_POLL_S)
        yield
    finally:
        _path(directory, ticket.number).unlink(missing_ok=True)
        file.close()


def queue(centre: Path) -> tuple[Ticket, ...]:
    """Return the tickets of the studies that run or wait, the running one first."""
    directory = centre / "queue"
    if not directory.is_dir():
        return ()
    with _locked(directory):
        return tuple(_living(directory))


def _draw(directory: Path, study: str, run_directory: Path) -> tuple[Ticket, BinaryIO]:
    """Write the next ticket, and return it with the open file that keeps it alive."""
    with _locked(directory):
        number = 1 + max((t.number for t in _living(directory)), default=0)
        ticket = Ticket(number, study, str(run_directory.resolve()), os.getpid())
        descriptor = os.open(_path(directory, number), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps(asdict(ticket)).encode())
    return ticket, os.fdopen(descriptor, "r+b")


def _living(directory: Path) -> Iterator[Ticket]:
    """Yield the tickets whose owners live, in order, and throw the others away; under the lock."""
    for path in sorted(directory.glob("*.json")):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                yield Ticket(**json.loads(file.read()))
            else:
                path.unlink()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.json"
