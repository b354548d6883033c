"""The files of a BIDS dataset: what their names say, and which tables hold for which image."""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEFT_ASIDE = re.compile(r"(sourcedata|code|stimuli|work|\..*)")
"""Names of files and directories that are never looked at: nobody keeps scans there that should be used."""


@dataclass(frozen=True)
class BidsFile:
    """One file of a dataset, read by its name.

    Attributes
    ----------
    path : Path
    dataset : Path
        The dataset that it belongs to: the raw one, or one of its derivatives.
    entities : dict of str to str or int
        The values behind ``sub-``, ``run-``, ``desc-`` and all other keys of the name; keys that BIDS does
        not know are kept. What BIDS calls an index is a number, so ``run-01`` and ``run-1`` are the same.
        The directories' ``sub-`` and ``ses-`` win over the name's.
    suffix : str
        ``dwi`` of ``sub-012_dwi.nii.gz``; empty if there is none.
    extension : str
        All that follows the first dot, and the dot, in small letters.

    """

    path: Path
    dataset: Path
    entities: dict[str, str | int]
    suffix: str
    extension: str

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return self.path.name[: -len(self.extension)] if self.extension else self.path.name

    def may_inherit(self, other: "BidsFile") -> bool:
        """Tell whether another file's values hold for this one: nothing in its name contradicts."""
        return other.suffix == self.suffix and all(
            self.entities.get(key) == value for key, value in other.entities.items()
        )


def is_label(text: str) -> bool:
    """Tell whether a text can stand behind ``sub-`` or ``ses-``: letters, digits and ``+``."""
    return re.fullmatch(_schema().objects.formats.label.pattern, text) is not None


def datasets_of(bids: Path) -> list[Path]:
    """Find a dataset and its derivatives.

    Parameters
    ----------
    bids : Path

    Returns
    -------
    list of Path
        `bids`, then ``derivatives`` if that is a dataset itself, and else each directory in it that is one:
        a dataset has a ``dataset_description.json``, be it a link whose content is not there.

    """
    derivatives = bids / "derivatives"
    if _is_described(derivatives):
        return [bids, derivatives]
    return [bids, *(path for path in _directories_in(derivatives) if _is_described(path))]


def undescribed_in(bids: Path) -> list[Path]:
    """Find the directories of ``derivatives`` that are no datasets, as nothing describes them."""
    derivatives = bids / "derivatives"
    if _is_described(derivatives):
        return []
    return [path for path in _directories_in(derivatives) if not _is_described(path)]


def _directories_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*") if path.is_dir())


def _is_described(directory: Path) -> bool:
    return os.path.lexists(directory / "dataset_description.json")


def files_of(dataset: Path) -> Iterator[BidsFile]:
    """Find the files of one dataset, without its derivatives and what is left aside.

    Links are followed; one whose content is not there (git-annex) counts as a file. No file is opened.

    Parameters
    ----------
    dataset : Path

    Yields
    ------
    BidsFile
        In no particular order.

    """
    for path in _walk(dataset, above=frozenset()):
        parts = path.relative_to(dataset).parts
        if parts[0] != "derivatives":
            yield _read(path, dataset, parts)


def files_of_visits(directory: Path) -> Iterator[BidsFile]:
    """Find the files in ``dwi`` and ``anat`` of a directory that need not be a dataset, and nowhere else."""
    for place in ("dwi", "anat"):
        for pattern in (f"sub-*/{place}/*", f"sub-*/ses-*/{place}/*"):
            for path in directory.glob(pattern):
                yield _read(path, directory, path.relative_to(directory).parts)


def nearest_above(file: BidsFile, candidates: Iterable[BidsFile]) -> list[BidsFile]:
    """Apply BIDS's inheritance principle.

    Parameters
    ----------
    file : BidsFile
    candidates : iterable of BidsFile
        Of the extension that is looked for; files of other directories and datasets are passed over.

    Returns
    -------
    list of BidsFile
        Those that hold for `file`, the nearest first; of one directory the one that says most. A table is
        the first; a sidecar is all of them, the nearer over the farther.

    """
    held = [
        other
        for other in candidates
        if other.dataset == file.dataset
        and other.path.parent in file.path.parents
        and file.may_inherit(other)
    ]
    return sorted(
        held,
        key=lambda other: (len(other.path.parts), len(other.entities), other.path),
        reverse=True,
    )


def _walk(directory: Path, *, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        stat = directory.stat()
        entries = list(os.scandir(directory))
    except OSError:
        return  # it may not be read; whose scans are missing is told by subject
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return  # a link back to a directory that this one is in
    for entry in entries:
        if LEFT_ASIDE.fullmatch(entry.name):
            continue
        if os.path.isdir(entry.path):  # noqa: PTH112  # a link in a circle is no directory, and no error
            yield from _walk(Path(entry.path), above=above | {here})
        else:
            yield Path(entry.path)


def _read(path: Path, dataset: Path, parts: tuple[str, ...]) -> BidsFile:
    stem, dot, extension = path.name.partition(".")
    *pairs, last = stem.split("_")
    if "-" in last:
        pairs, last = [*pairs, last], ""
    placed = [part for part in parts[:-1] if part.startswith(("sub-", "ses-"))]
    entities: dict[str, str | int] = {}
    for pair in (*placed, *pairs):
        key, dash, value = pair.partition("-")
        if dash:
            entities.setdefault(key, int(value) if key in _indices() and value.isdecimal() else value)
    return BidsFile(path, dataset, entities, last, (dot + extension).lower())


@functools.cache
def _indices() -> frozenset[str]:
    """List the keys whose values BIDS counts: run, echo and a few more."""
    return frozenset(
        entity.name for entity in _schema().objects.entities.values() if entity.format == "index"
    )


@functools.cache
def _schema() -> Any:
    from bidsschematools.schema import load_schema

    return load_schema()
