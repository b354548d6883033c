"""The pipeline: every subject of a BIDS dataset, in parallel, whatever becomes of the others."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from esn_client.imaging.derivatives import load_connectome, write_description
from esn_client.imaging.scans import list_participants
from esn_client.imaging.subject import prepare_subject
from esn_core.atlas import load_atlas
from esn_core.recipe import ImagingRecipe

__all__ = ["Failure", "load_connectome", "prepare"]

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Failure:
    """Why one subject has no connectome.

    Attributes
    ----------
    participant : str
    error_class : str
        ``DataError`` for files that cannot be used; anything else is worth a report to us.
    message : str
        One line; stays at the site, it may hold paths.

    """

    participant: str
    error_class: str
    message: str


Finished = Generator[tuple[str, Failure | None], None, None]


def prepare(
    bids: Path,
    out: Path,
    recipe: ImagingRecipe,
    *,
    participants: Sequence[str] | None,
    n_procs: int,
    progress: Progress | None = None,
) -> list[Failure]:
    """Make the connectomes of a BIDS dataset that are not there yet, or no longer current.

    Parameters
    ----------
    bids : Path
        The dataset with the scans.
    out : Path
        The derivative dataset to be made or completed.
    recipe : ImagingRecipe
    participants : sequence of str or None
        None means all.
    n_procs : int
        Subjects at a time, each in a process with one thread: threads add up in another order, and would
        give another connectome.
    progress : callable, optional
        Told ``(participant, done, total)`` after each subject, failed ones included.

    Returns
    -------
    list of Failure
        In the order of the participants; the other subjects were prepared.

    Raises
    ------
    DataError
        `bids` is no dataset, or has no such participant; nothing was done.
    ConfigError
        The recipe's atlas is unknown.

    """
    wanted = list_participants(bids, participants)
    load_atlas(recipe.atlas)
    write_description(out, source=bids)
    failures = []
    with closing(_in_processes(bids, out, recipe, wanted, n_procs)) as finished:
        for done, (name, failure) in enumerate(finished, start=1):
            if failure:
                failures.append(failure)
            if progress:
                progress(name, done, len(wanted))
    return sorted(failures, key=lambda failure: failure.participant)


def _attempt(bids: Path, out: Path, participant: str, recipe: ImagingRecipe) -> Failure | None:
    """Prepare one subject; no error of one subject may reach the others."""
    try:
        prepare_subject(bids, out, participant, recipe)
    except Exception as error:
        lines = str(error).split("\n")
        return Failure(participant, type(error).__name__, lines[0].replace(f"{bids}{os.sep}", ""))
    return None


def _in_processes(
    bids: Path, out: Path, recipe: ImagingRecipe, wanted: Sequence[str], n_procs: int
) -> Finished:
    """Prepare subjects in worker processes; yield each as it is finished."""
    left = list(wanted)
    try:
        with _pool(min(n_procs, len(left))) as pool:
            for name, failure in _finished(pool, bids, out, recipe, left):
                left.remove(name)
                yield name, failure
    except BrokenProcessPool:
        # A worker died, perhaps for want of memory; which subject it had is unknown. One at a time, each
        # in a pool of its own, shows which.
        for name in list(left):
            try:
                with _pool(1) as pool:
                    yield from _finished(pool, bids, out, recipe, [name])
            except BrokenProcessPool:
                yield (
                    name,
                    Failure(name, "BrokenProcessPool", "the worker process died; is there enough memory?"),
                )


def _finished(
    pool: ProcessPoolExecutor, bids: Path, out: Path, recipe: ImagingRecipe, names: Sequence[str]
) -> Finished:
    """Hand all subjects to a pool; yield each as it is finished."""
    running: dict[Future[Failure | None], str] = {
        pool.submit(_attempt, bids, out, name, recipe): name for name in names
    }
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda f: running[f]):
            failure = future.result()
            yield running.pop(future), failure


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start workers with one thread each, and leave none behind."""
    before = set(multiprocessing.active_children())
    inherited = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        for name, value in inherited.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this process when its parent is gone."""
    parent.join()
    os._exit(1)
