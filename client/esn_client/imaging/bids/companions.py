"""Companions: what lies beside an image or above it, and holds for it: gradient tables and sidecars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esn_client.imaging.bids.files import BidsFile, nearest_above
from esn_client.imaging.bids.images import shape_of
from esn_client.imaging.bids.scan_files import RunFiles, json_of, require_json
from esn_client.imaging.preprocessing.table_files import read_b_values
from esn_core.errors import DataError

TABLES = (".bval", ".bvec")
SCANNER_TABLE = ".b"
SIDECAR = ".json"
BY_IMAGE_AXES = ("qsiprep", "qsirecon")
"""Pipelines whose b-vectors follow the image's axes, as containers are named too; all others are taken to
follow FSL's rule."""
POINTERS = (b"/annex/objects/", b"version https://git-lfs")
"""How a file begins that stands for content which is elsewhere."""


class Companions:
    """The gradient tables and sidecars of a dataset.

    Parameters
    ----------
    bids : Path
        The dataset, for messages.

    """

    def __init__(self, bids: Path) -> None:
        self._bids = bids
        self._known: dict[str, list[BidsFile]] = {
            extension: [] for extension in (*TABLES, SCANNER_TABLE, SIDECAR)
        }

    def add(self, file: BidsFile) -> None:
        """Take a file in, if it is a table or a sidecar of a diffusion series or of a fieldmap."""
        if file.suffix in ("dwi", "epi") and file.extension in self._known:
            self._known[file.extension].append(file)

    def run_of(self, dwi: BidsFile, *, label: str, generators: Sequence[str]) -> RunFiles | None:
        """Find what belongs to an image.

        Parameters
        ----------
        dwi : BidsFile
        label : str
            Of its visit, for messages.
        generators : sequence of str
            The pipelines that preprocessed it; none for a raw image.

        Returns
        -------
        RunFiles or None
            None where the image has neither b-values nor vectors, or has b0s alone.

        Raises
        ------
        DataError
            One of both tables is missing, or the content of a file was not fetched.

        """
        found = {extension: self._of(dwi, extension) for extension in self._known}
        scanner, sidecars = found[SCANNER_TABLE][:1] if generators else [], found[SIDECAR]
        bval, bvec = (next(iter(found[extension]), None) for extension in TABLES)
        for path in (bval, bvec, *scanner, *sidecars):
            if path is not None:
                self.check_fetched(path, label=label)
        if bval is not None and _is_anothers(dwi, bval):
            return None
        if bval is None and bvec is None:
            return None
        if bval is not None and bvec is None and not RunFiles(dwi.path, bval, bval).count_weighted():
            return None
        if bval is None or bvec is None:
            missing = TABLES[bval is not None]
            raise DataError(f"{label}: {dwi.stem}{missing} is missing beside {dwi.path.name}")
        metadata: dict[str, Any] = {}
        for path in reversed(sidecars):
            try:
                metadata |= require_json(path)
            except DataError as error:  # what it said of slices and warps would be missing without a word
                raise DataError(f"{label}: {error}; correct the file, or convert the scan again") from None
        by_axes = any(pipeline in name.lower() for name in generators for pipeline in BY_IMAGE_AXES)
        return RunFiles(
            dwi.path,
            bval,
            bvec,
            scanner=scanner[0] if scanner else None,
            convention="image" if by_axes else "fsl",
            direction=dwi.entities.get("dir"),
            sidecars=tuple(sidecars),
            metadata=metadata,
        )

    def phase_encoding_of(self, image: BidsFile) -> str | None:
        """Read along which voxel axis an image is warped, as in ``j-``; None where no sidecar says so."""
        said = [json_of(path).get("PhaseEncodingDirection") for path in self._of(image, SIDECAR)]
        return next((one for one in said if isinstance(one, str) and one), None)

    def check_fetched(self, path: Path, *, label: str) -> None:
        """Refuse a file that stands for content which git-annex or git-lfs has elsewhere."""
        try:
            with path.open("rb") as file:
                there = not file.read(40).startswith(POINTERS)
        except OSError:
            there = not path.is_symlink()  # what cannot be read for another reason is told where it is read
        if not there:
            raise DataError(
                f"{label}: the content of {path.name} is not here, only a link to it; run 'datalad get "
                f"{path.relative_to(self._bids).as_posix()}' in the dataset first"
            )

    def _of(self, dwi: BidsFile, extension: str) -> list[Path]:
        """List the files of an extension that hold for an image: the one of its name, then those above."""
        known = self._known[extension]
        own = [file.path for file in known if file.path.parent == dwi.path.parent and file.stem == dwi.stem]
        return list(dict.fromkeys(own + [file.path for file in nearest_above(dwi, known)]))


def _is_anothers(dwi: BidsFile, bval: Path) -> bool:
    """Tell whether an inherited table is that of a much longer series: a few b0s beside it have none."""
    if bval.name.lower() == f"{dwi.stem}.bval".lower():
        return False
    shape = shape_of(dwi.path)
    try:
        return shape is not None and 2 * int(np.prod(shape[3:])) < len(read_b_values(bval))
    except DataError:
        return False
