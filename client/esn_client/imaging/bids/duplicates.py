"""Duplicates: scans that stand under several participants or visits, byte for byte."""

import hashlib
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from esn_client.imaging.bids.scan_files import sha256_of

BLOCK_BYTES = 4096
BLOCKS = 9
"""Of each file, from its header on, evenly spaced: two scans differ in every one of them."""

Owned = tuple[str, Path]


def same_scans(scans: Iterable[Owned], *, wanted: frozenset[str]) -> dict[str, str]:
    """Find participants whose scan somebody else has too.

    Scans of equal size are told apart by a sample of their bytes; only where that is equal are they read
    whole.
    What is nobody's of the wanted is compared with nothing.

    Parameters
    ----------
    scans : iterable of (str, Path)
        Participant and file; files that are not there are passed over.
    wanted : frozenset of str
        Participants that are about to be prepared.

    Returns
    -------
    dict of str to str
        The other participant, for each wanted one whose scan somebody else has, byte for byte.

    """
    groups = _split([(who, path) for who, path in scans if path.is_file()], _size, wanted)
    for tell in (_sample, sha256_of):
        groups = [part for group in groups for part in _split(group, tell, wanted)]
    same: dict[str, str] = {}
    for group in groups:
        people = {who for who, _ in group}
        for one in people & wanted:
            same[one] = min(people - {one})
    return same


def _split(
    scans: Iterable[Owned], tell: Callable[[Path], Hashable], wanted: frozenset[str]
) -> list[list[Owned]]:
    """Group scans by what a function says of them; keep groups of a wanted participant and another one."""
    groups: dict[Hashable, list[Owned]] = {}
    for who, path in scans:
        groups.setdefault(tell(path), []).append((who, path))
    kept = []
    for group in groups.values():
        people = {who for who, _ in group}
        if len(people) > 1 and people & wanted:
            kept.append(group)
    return kept


def _size(path: Path) -> int:
    return path.stat().st_size


def _sample(path: Path) -> bytes:
    digest = hashlib.sha256()
    step = max((_size(path) - BLOCK_BYTES) // (BLOCKS - 1), BLOCK_BYTES)
    with path.open("rb") as file:
        for block in range(BLOCKS):
            file.seek(block * step)
            digest.update(file.read(BLOCK_BYTES))
    return digest.digest()
