"""Following a log: its new lines are shown to whoever looks, as they come."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_S = 0.3


@contextmanager
def followed(path: Path, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell each line that is written to a file from now on, until this is left; what came last is told then.

    Parameters
    ----------
    path : Path
        May not be there yet, and may be begun anew.
    tell : callable
        Takes a line, without its end.

    """
    stop = threading.Event()
    at = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        position, rest = at, b""
        while True:
            last = stop.wait(_LOOK_S)  # before the look, so that nothing that was written is missed
            position, new = _read_on(path, position)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                if line.strip():
                    tell(line.decode(errors="replace"))
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _read_on(path: Path, position: int) -> tuple[int, bytes]:
    try:
        if path.stat().st_size < position:  # begun anew
            position = 0
        with path.open("rb") as file:
            file.seek(position)
            new = file.read()
    except OSError:
        return position, b""
    return position + len(new), new
