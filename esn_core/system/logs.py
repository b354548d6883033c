"""Logs: one place for how they look, and for what is in none of them: a patient's label, a path, a score.

A log is read by people who administer a machine, kept for years and copied to other systems. What it says of
people it says as numbers. Labels and directories are struck out of every line, whoever wrote it; of an
exception, the class and the place in the source are kept, and its text only where that is about protocols,
questions and keys (`said_of`).
"""

import copy
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO, TypeAlias

from esn_core.errors import DataError, EsnError, SubjectsFailedError

Form: TypeAlias = Literal["text", "json"]
LEVELS: Mapping[str, int] = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}

LARGEST_BYTES = 10 * 2**20
"""Of one file; then it is begun anew, and `KEPT` older ones stay."""
KEPT = 3

OURS = ("esn_core", "esn_client", "esn_server")
_FORM, _LEVEL = "ESN_LOG_FORMAT", "ESN_LOG_LEVEL"
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Labels of BIDS; sessions are dates at some hospitals.
_LABEL = re.compile(r"(?<![A-Za-z0-9])(sub|ses)-[A-Za-z0-9]+")
# What stands before the last name of a path, at a word's beginning: the rest of an address is none.
_DIRECTORIES = re.compile(r"(?<![\w:/.])(?:~|\.{1,2})?/(?:[^\s/'\",;:()]+/)+(?=[^\s/'\",;:()]*)")


def struck_out(text: str) -> str:
    """Return a text without labels of patients, and with files named without their directories."""
    return _LABEL.sub(r"\1-…", _DIRECTORIES.sub("…/", text))


def said_of(error: BaseException) -> str:
    """Return what a log says of an error: its class, and its text where that holds nobody's data."""
    name = type(error).__name__
    if not isinstance(error, EsnError) or isinstance(error, DataError | SubjectsFailedError):
        return f"{name} (its words may name people or files: 'esn-client check' says them)"
    return f"{name}: {error}"


class _Careful(logging.Formatter):
    """Writes one line a record, and of an exception no text that may hold data."""

    def format(self, record: logging.LogRecord) -> str:
        # Another handler may have kept the exception with its text.
        own = copy.copy(record)
        own.exc_text = None
        return struck_out(super().format(own))

    def formatException(  # noqa: N802
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        _, error, trace = ei
        if error is None:
            return ""
        frames = traceback.extract_tb(trace)
        at = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
        return f"{said_of(error)} at {at}"


class _AsJson(_Careful):
    """Writes each record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": struck_out(record.getMessage()),
        }
        if record.exc_info:
            said["exception"] = struck_out(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False)


class _AtStderr(logging.StreamHandler["TextIO"]):
    """Writes to what stderr is at that moment: a progress bar takes its place for a while."""

    @property
    def stream(self) -> TextIO:
        """What stderr is now."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Leave it."""


def set_up(*, form: Form | None = None, level: str | None = None, quiet: bool = False) -> None:
    """Begin logging in this process, and in those that it starts.

    Parameters
    ----------
    form : {'text', 'json'}, optional
        As the parent process has it where it is left out; text in the first.
    level : str, optional
        Of our own loggers; a library's news are warnings. As the parent process has it, or 'info'.
    quiet : bool
        Whether stderr gets warnings alone; files get what they always get.

    """
    os.environ[_FORM] = form or os.environ.get(_FORM, "text")
    os.environ[_LEVEL] = level or os.environ.get(_LEVEL, "info")
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _AtStderr)]:
        root.removeHandler(handler)
    handler = _AtStderr()
    handler.setFormatter(_formatter())
    handler.setLevel(logging.WARNING if quiet else logging.NOTSET)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for ours in OURS:
        logging.getLogger(ours).setLevel(LEVELS.get(os.environ[_LEVEL], logging.INFO))
    # Flower gives its logger a level and a handler of its own when it is imported.
    flower = logging.getLogger("flwr")
    if not flower.filters:
        flower.addFilter(lambda record: record.levelno >= logging.WARNING)


def keep_in(path: Path) -> None:
    """Write everything that is logged from now on into a file as well; it is rotated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LARGEST_BYTES, backupCount=KEPT, encoding="utf-8")
    handler.setFormatter(_formatter())
    logging.getLogger().addHandler(handler)


def rotate(path: Path) -> None:
    """Begin a file anew if it is too large: one that another program writes to, before that starts."""
    if not path.exists() or path.stat().st_size < LARGEST_BYTES:
        return
    for number in range(KEPT - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))


def _formatter() -> logging.Formatter:
    return _AsJson() if os.environ.get(_FORM) == "json" else _Careful(_TEXT)
