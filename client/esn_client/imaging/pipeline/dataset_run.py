"""The pipeline: every subject of a BIDS dataset, in parallel, whatever becomes of the others."""

import errno
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from pathlib import Path

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.derivatives import write_description
from esn_client.imaging.bids.failures import Failure, keep_failure
from esn_client.imaging.bids.scan_files import ScanFiles
from esn_client.imaging.bids.visits import Visit, segmentation_of
from esn_client.imaging.pipeline.subject import Making, prepare_subject
from esn_client.imaging.pipeline.workers import undisturbed, worker_pool
from esn_core.errors import ConfigError, DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe

Progress = Callable[[str, int, int], None]


Finished = Generator[tuple[str, Failure | None], None, None]


def prepare(
    bids: Path,
    out: Path,
    recipe: ImagingRecipe,
    *,
    participants: Sequence[str] | None,
    n_procs: int,
    sessions: Sequence[str] | None = None,
    mem_gb: float | None = None,
    device: str = "cpu",
    work_dir: Path | None = None,
    pages: bool = True,
    tractograms: bool = False,
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
    participants, sessions : sequence of str or None
        None means all.
    n_procs : int
        Subjects at a time, each in a process with one thread: threads add up in another order, and would
        give another connectome.
    mem_gb : float, optional
        Subjects wait while those under way are estimated to take so much together.
    device : 'auto', 'cpu' or 'cuda'
        Where streamlines are followed.
    work_dir : Path, optional
        Where the stages of unfinished subjects are kept, and of finished ones too. None keeps those of
        unfinished ones in ``out/work``.
    pages : bool
        Whether each subject gets a page on its quality.
    tractograms : bool
        Whether all streamlines are kept.
    progress : callable, optional
        Told ``(visit, done, total)`` after each visit, failed ones included.

    Returns
    -------
    list of Failure
        In the order of the visits; the others were prepared.

    Raises
    ------
    DataError
        `bids` is no dataset, or has no such participant; nothing was done.
    ConfigError
        The recipe's atlas is unknown.

    """
    if recipe.made_elsewhere:
        raise ConfigError(
            "the study's connectomes are made elsewhere: take them in by 'esn-client import'; the recipe is "
            f"{recipe.made_elsewhere}"
        )
    dataset = Dataset(bids)
    visits = dataset.visits(participants, sessions)
    _ = recipe.parcellation  # refuses one that this version does not have
    write_description(out, source=bids)
    making = Making(
        bids=dataset.bids,
        out=out,
        recipe=recipe,
        work=work_dir or out / "work",
        keep_work=work_dir is not None,
        pages=pages,
        tractograms=tractograms,
        device=device,
    )
    failures = []
    with closing(_each(dataset, visits, making, n_procs=n_procs, mem_gb=mem_gb)) as finished:
        for done, (name, failure) in enumerate(finished, start=1):
            keep_failure(out, recipe, name, failure)
            if failure:
                failures.append(failure)
            if progress:
                progress(name, done, len(visits))
    if work_dir is None:
        with suppress(OSError):  # not empty: somebody failed, and may go on from there
            (out / "work").rmdir()
    return sorted(failures, key=lambda failure: failure.visit)


def _each(
    dataset: Dataset, visits: Sequence[Visit], making: Making, *, n_procs: int, mem_gb: float | None
) -> Finished:
    """Refuse the visits whose files are not clear; prepare the others."""
    tasks: dict[str, tuple[ScanFiles, float]] = {}
    same, twice = dataset.same_scans(visits), dataset.scans_of_two_visits(visits)
    for visit in visits:
        try:
            if visit.participant in same:
                raise DataError(  # noqa: TRY301
                    f"its scan is {same[visit.participant]}'s too, byte for byte; one patient has one label"
                )
            if visit.label in twice:
                raise DataError(  # noqa: TRY301
                    f"its scan is {twice[visit.label]}'s too, byte for byte; each visit has a scan of its own"
                )
            files = dataset.files(visit, segmentation=segmentation_of(making.recipe.atlas))
            need_gb = files.memory_gb()
            if mem_gb is not None and need_gb > mem_gb:
                raise DataError(  # noqa: TRY301
                    f"needs about {need_gb:.1f} GB of memory; --mem-gb allows {mem_gb:g}"
                )
            tasks[visit.label] = (files, need_gb)
        except Exception as error:  # no error of one subject may reach the others
            words = str(error).split("\n")[0].removeprefix(f"{visit.label}: ")
            yield visit.label, Failure(visit.label, type(error).__name__, words)
    if tasks:
        yield from _in_processes(tasks, making, n_procs=n_procs, mem_gb=mem_gb)


def _attempt(files: ScanFiles, making: Making) -> Failure | None:
    """Prepare one subject; no error of one subject may reach the others."""
    try:
        prepare_subject(files, making)
    except Exception as error:
        line = str(error).split("\n")[0].replace(f"{making.bids}{os.sep}", "")
        line = line.removeprefix(f"{files.visit.label}: ")
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            line = f"no space left on the disk of {making.out} or {making.work}; free some and run this again"
        return Failure(files.visit.label, type(error).__name__, line)
    return None


def _in_processes(
    tasks: dict[str, tuple[ScanFiles, float]], making: Making, *, n_procs: int, mem_gb: float | None
) -> Finished:
    """Prepare subjects in worker processes; yield each as it is finished."""
    left = dict(tasks)
    try:
        with worker_pool(min(n_procs, len(left))) as pool:
            for name, failure in _finished(pool, dict(left), making, workers=n_procs, mem_gb=mem_gb):
                left.pop(name)
                yield name, failure
    except BrokenProcessPool:
        # A worker died, perhaps for want of memory; which subject it had is unknown. One at a time, each
        # in a pool of its own, shows which.
        for name, task in left.items():
            try:
                with worker_pool(1) as pool:
                    yield from _finished(pool, {name: task}, making, workers=1, mem_gb=mem_gb)
            except BrokenProcessPool:
                yield (
                    name,
                    Failure(name, "BrokenProcessPool", "the worker process died; is there enough memory?"),
                )


def _finished(
    pool: ProcessPoolExecutor,
    waiting: dict[str, tuple[ScanFiles, float]],
    making: Making,
    *,
    workers: int,
    mem_gb: float | None,
) -> Finished:
    """Hand subjects to a pool as memory allows; yield each as it is finished."""
    running: dict[Future[Failure | None], tuple[str, float]] = {}
    while running or waiting:
        for name, (files, need_gb) in list(waiting.items()):
            taken_gb = sum(gb for _, gb in running.values())
            if len(running) < workers and (mem_gb is None or not running or taken_gb + need_gb <= mem_gb):
                try:
                    with undisturbed():
                        future = pool.submit(_attempt, files, making)
                except OSError as error:  # a worker died while the pool was starting another
                    raise BrokenProcessPool(str(error)) from error
                running[future] = (name, need_gb)
                del waiting[name]
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda f: running[f]):
            failure = future.result()
            yield running.pop(future)[0], failure
