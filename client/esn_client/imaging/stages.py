"""Stages: what each step of a subject made, kept on disk so that a killed job goes on where it was."""

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.provenance import version_of, versions_of_software
from esn_core.system.files import whole_file

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Stage:
    """The result of one stage.

    Attributes
    ----------
    key : str
        Digest of everything that the result depends on: inputs, parameters, the
        stage's version, the software beneath it.
    arrays : mapping of str to array

    """

    key: str
    arrays: Arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Give one array."""
        return self.arrays[name]


@dataclass
class Stages:
    """The stages of one subject, in order, with what each took.

    Attributes
    ----------
    directory : Path or None
        Where results are kept; None keeps none.
    log : list of dict
        Of each stage its name, wall and CPU seconds, parameters, whether the result was found on disk, and
        its digest.

    """

    directory: Path | None
    log: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self,
        name: str,
        make: Callable[[], Arrays],
        *,
        inputs: Sequence[str],
        parameters: Mapping[str, Any],
    ) -> Stage:
        """Give a stage's result: from disk if it was made from the same things, otherwise made now.

        Parameters
        ----------
        name : str
        make : callable
            Returns the arrays.
        inputs : sequence of str
            Digests of files, or keys of other stages.
        parameters : mapping
            What else the result depends on.

        Returns
        -------
        Stage

        Raises
        ------
        KeyError
            The stage has no version.

        """
        key = hashlib.sha256(
            json.dumps(
                [name, version_of(name), versions_of_software(), list(inputs), dict(parameters)],
                sort_keys=True,
            ).encode()
        ).hexdigest()
        path = None if self.directory is None else self.directory / f"{name}-{key[:20]}.npz"
        found = None if path is None else _read(path)
        if found is None:
            wall, cpu = time.perf_counter(), time.process_time()
            arrays = {what: np.asarray(array) for what, array in make().items()}
            about = {
                "WallSeconds": round(time.perf_counter() - wall, 3),
                "CpuSeconds": round(time.process_time() - cpu, 3),
                "Sha256": digest_of(arrays),
            }
            if path is not None:
                with whole_file(path) as file:
                    np.savez(file, allow_pickle=False, **arrays, _about=np.array(json.dumps(about)))
        else:
            arrays, about = found
        self.log.append(
            {"Name": name, "Parameters": dict(parameters), "FromDisk": found is not None, **about}
        )
        return Stage(key, arrays)


def digest_of(arrays: Arrays) -> str:
    """Compute one digest of several arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Read a result; what is missing or damaged is made again (each array carries a checksum)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("_about")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays, about
