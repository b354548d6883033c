"""Worker processes, which end when their parent ends, fails or is interrupted."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_INTERRUPTS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Make a pool whose workers have one thread each, and leave none behind, whatever ends this.

    Hand it work within `undisturbed`.

    Parameters
    ----------
    workers : int
        At most so many processes, each started when there is work for it.

    Yields
    ------
    ProcessPoolExecutor

    """
    before = set(multiprocessing.active_children())
    inherited = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        # Python waits for the pool's workers before it ends, however long they take: each of them is ended,
        # even if Ctrl-C comes again meanwhile.
        with undisturbed():
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            pool.shutdown(cancel_futures=True)
        raise
    finally:
        for name, value in inherited.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until this is done.

    An interrupt between a worker's start and its entry in the pool's books would leave a worker that nobody
    ends. The worker inherits the mask: Ctrl-C at a terminal, which reaches it too, does not end it amidst its
    imports with a traceback of its own. The mask alone would not do here: another thread may take the signal.
    """
    if threading.current_thread() is not threading.main_thread():  # no interrupt is raised there
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _INTERRUPTS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, end with it however it ends, and keep DIPY's news out of our log."""
    logging.getLogger("dipy").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this process when its parent is gone."""
    parent.join()
    os._exit(1)
