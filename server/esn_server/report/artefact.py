"""An artefact: a file of the centre that is whole or not there."""

import os
from contextlib import suppress
from pathlib import Path


def write_artefact(text: str, path: Path) -> None:
    """Write a text file so that no reader ever meets half of it.

    Parameters
    ----------
    text : str
        What the file shall hold, encoded as UTF-8.
    path : Path
        The file; its directory is made where it is missing. The text goes to a temporary name beside
        it, reaches the disk, and takes the name in one step. A failure leaves an older file as it was.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the name, too, survives a power cut
    finally:
        os.close(directory)
