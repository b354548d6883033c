"""Append-only files of JSON lines, each of which holds the hash of the line before.

A line that was changed, removed, added or moved breaks the chain; a tail that
was cut off is seen by whoever knows what the other side has logged. A process
that was killed may leave a part of a line: it stays, is closed by the next
writer, and the chain goes on over it.
"""

import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

GENESIS = "0" * 64
"""What the first line has for the hash of the one before."""

_TAIL_BYTES = 64 * 1024


class BrokenChainError(ValueError):
    """A line is not the one that was written, or not in its place; the text names it."""


@dataclass(frozen=True)
class Line:
    """One line of a log.

    Attributes
    ----------
    number : int
        From 1.
    facts : dict
        What was logged, `at` included.

    """

    number: int
    facts: dict[str, Any]


class ChainedLog:
    """A log, written by any number of processes of one machine.

    Parameters
    ----------
    path : Path
        Made at the first line.

    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, **facts: str | int | float) -> None:
        """Write one line, on disk before this returns.

        Raises
        ------
        OSError
            The file cannot be written to.

        """
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            torn, last = _last_line(file)
            at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"at": at, "previous": hash_of(last), **facts}, sort_keys=True)
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> Iterator[bytes]:
        """Yield every line as it stands, without its end; none when nothing was logged."""
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    yield line.removesuffix(b"\n")


def read_chain(lines: Sequence[bytes]) -> tuple[Line, ...]:
    """Read a whole log.

    Returns
    -------
    tuple of Line
        Without the parts of lines that killed processes left.

    Raises
    ------
    BrokenChainError
        At the first line that does not belong where it stands.

    """
    found = []
    previous = GENESIS
    for number, raw in enumerate(lines, start=1):
        facts = _facts(raw)
        last = number == len(lines)
        if facts is None:
            # What a kill left: the writer after it chained over it, unless there was none yet.
            follower = None if last else _facts(lines[number])
            if not last and (follower is None or follower.get("previous") != hash_of(raw)):
                raise BrokenChainError(f"line {number} is no line of a log")
        elif facts.get("previous") != previous:
            raise BrokenChainError(
                f"line {number} does not follow the one before it: a line was changed, removed, added or "
                "moved"
            )
        else:
            found.append(Line(number, facts))
        previous = hash_of(raw)
    return tuple(found)


def hash_of(line: bytes | None) -> str:
    """Return what the next line has for the hash of this one."""
    return GENESIS if line is None else hashlib.sha256(line).hexdigest()


def _facts(raw: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(raw)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _last_line(file: BinaryIO) -> tuple[bool, bytes | None]:
    """Return the last line, and whether it lacks its end."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return False, None
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    torn = not tail.endswith(b"\n")
    return torn, tail.removesuffix(b"\n").rpartition(b"\n")[2]
