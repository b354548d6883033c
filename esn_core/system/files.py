"""Files that are whole or not there."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever meets half of it.

    Parameters
    ----------
    path : Path
        The file; its directory is made where it is missing.
    content : bytes

    """
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that no reader ever meets half of.

    The content goes to a temporary name beside the file, reaches the disk, and takes the name in one step. A
    failure leaves an older file as it was.

    Parameters
    ----------
    path : Path
        The file; its directory is made where it is missing.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            temporary.unlink()
        _name(error, path, temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the name, too, survives a power cut
    finally:
        os.close(directory)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, with its final mode from its first byte on.

    A failure leaves nothing in its place.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        _name(error, path)
        raise


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files, none of which exists yet, or none: a failure takes back what was written.

    Parameters
    ----------
    files : mapping of Path to bytes
        Files of directories that are made where they are missing.

    """
    made = {path.parent for path in files if not path.parent.exists()}
    try:
        for path, content in files.items():
            write_whole(path, content)
    except BaseException:
        for path in files:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        for directory in made:
            with suppress(OSError):
                directory.rmdir()
        raise


def _name(error: BaseException, path: Path, temporary: Path | None = None) -> None:
    """Let an error of a descriptor (a full disk), or of a temporary file, name the file that was meant."""
    if isinstance(error, OSError) and error.filename in (None, str(temporary)):
        error.filename = str(path)
