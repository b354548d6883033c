"""Scan files: those from which one connectome is made, and what their sidecars say."""

import codecs
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from esn_client.imaging.bids.images import shape_of
from esn_client.imaging.bids.susceptibility import Susceptibility
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.preprocessing.gradient_table import count_weighted
from esn_client.imaging.preprocessing.table_files import Convention, read_b_values
from esn_core.errors import DataError

AXES = ("i", "i-", "j", "j-", "k", "k-")
"""BIDS's names of the directions along an image's voxel axes."""
BYTES_PER_VALUE = 16
"""What a voxel of one volume costs at most: float32 before and after a stage, and float64 within it."""
GB_OF_A_PROCESS = 0.8
"""What a worker takes before it has read anything, streamlines of a batch included."""


@dataclass(frozen=True)
class RunFiles:
    """One series of volumes, its gradient table, and what its sidecars say.

    Attributes
    ----------
    dwi, bval, bvec : Path
    scanner : Path or None
        MRtrix's table beside a preprocessed series, where there is one.
    convention : 'fsl' or 'image'
        Of the vectors in `bvec`.
    direction : str or None
        The ``dir-`` of the name.
    sidecars : tuple of Path
        The nearest first.
    metadata : dict
        Of all sidecars together, the nearer over the farther.

    """

    dwi: Path
    bval: Path
    bvec: Path
    scanner: Path | None = None
    convention: Convention = "fsl"
    direction: str | int | None = None
    sidecars: tuple[Path, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that the connectome depends on."""
        return (self.dwi, self.bval, self.bvec, *((self.scanner,) if self.scanner else ()), *self.sidecars)

    @property
    def phase_encoding(self) -> str | None:
        """The voxel axis along which the image is warped, with its sign, as in ``j-``; None where unknown."""
        said = self.metadata.get("PhaseEncodingDirection")
        return said if said in AXES else None

    @property
    def readout_s(self) -> float | None:
        """How long one image is read out, which says how far it is warped; None where unknown."""
        said = self.metadata.get("TotalReadoutTime")
        return float(said) if isinstance(said, int | float) and 0 < said < math.inf else None

    @property
    def slice_axis(self) -> int | None:
        """The voxel axis along which the slices were stacked; None where unknown."""
        said = self.metadata.get("SliceEncodingDirection")
        return AXES.index(said) // 2 if said in AXES else None

    @property
    def not_understood(self) -> list[str]:
        """Name what the sidecars say of axes in words that BIDS does not have."""
        keys = ("PhaseEncodingDirection", "SliceEncodingDirection")
        said = {key: self.metadata[key] for key in keys if self.metadata.get(key) is not None}
        return [f"{key} is {value!r}" for key, value in said.items() if value not in AXES]

    def count_weighted(self) -> int:
        """Count the diffusion-weighted volumes; a table that cannot be read has none."""
        try:
            return count_weighted(read_b_values(self.bval))
        except DataError:
            return 0

    def has_b0s(self) -> bool:
        """Tell whether a volume is not diffusion weighted; a table that cannot be read has none."""
        try:
            return len(read_b_values(self.bval)) > self.count_weighted()
        except DataError:
            return False


@dataclass(frozen=True)
class AnatomyFiles:
    """A T1w image and a label volume on its grid.

    Attributes
    ----------
    t1w, labels : Path
    freesurfer : bool
        Whether the labels are ``aparc+aseg``, with FreeSurfer's numbers, or the atlas's own.

    """

    t1w: Path
    labels: Path
    freesurfer: bool


@dataclass(frozen=True)
class ScanFiles:
    """The files from which one connectome is made.

    Attributes
    ----------
    visit : Visit
    runs : tuple of RunFiles
        Joined one after the other.
    left_out : tuple of Path
        Series of the visit that are not used.
    labels : Path or None
        A ready label volume; None where regions are found by registration.
    anatomy : AnatomyFiles or None
        Labels in T1 space, which are carried to the scan where there are no ready ones.
    lesion : Path or None
        A mask of what is lost: a resection, or tissue in which no fibres can be.
    preprocessed_by : str or None
        The pipeline that denoised and aligned the scan already.
    susceptibility : Susceptibility or None
        Whether the warp by air beside the brain was undone; None where nobody has asked.
    warnings, remarks : tuple of str
        Of the choice of series: what somebody should look at, and what is good to know.

    """

    visit: Visit
    runs: tuple[RunFiles, ...]
    left_out: tuple[Path, ...]
    labels: Path | None
    lesion: Path | None
    preprocessed_by: str | None
    anatomy: AnatomyFiles | None = None
    susceptibility: Susceptibility | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def sha256s(self, bids: Path) -> dict[str, str]:
        """Compute the digest of each file, by its path inside the dataset."""
        paths = [path for run in self.runs for path in run.paths]
        paths += [path for path in (self.labels, self.lesion) if path]
        paths += [self.anatomy.t1w, self.anatomy.labels] if self.anatomy else []
        return {path.relative_to(bids).as_posix(): sha256_of(path) for path in paths}

    def memory_gb(self) -> float:
        """Estimate the memory that the subject takes, from the headers alone; 0 where they cannot be read."""
        values = 0
        for run in self.runs:
            shape = shape_of(run.dwi)
            if shape is None:
                return 0.0
            values += int(np.prod(shape))
        return GB_OF_A_PROCESS + values * BYTES_PER_VALUE / 1e9


def sha256_of(path: Path) -> str:
    """Compute the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_of(path: Path) -> dict[str, Any]:
    """Read a JSON object; what cannot be read says nothing."""
    try:
        return require_json(path)
    except DataError:
        return {}


def require_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, in UTF-8, in UTF-16 with its mark, or as older converters wrote umlauts (Latin-1).

    Raises
    ------
    DataError
        The file cannot be read, or is no JSON object.

    """
    try:
        raw = path.read_bytes()
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = raw.decode("utf-16")
        else:
            try:
                text = raw.decode("utf-8-sig")
            except UnicodeDecodeError:
                text = raw.decode("latin-1")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path.name}: a JSON object, in braces, is needed; found {type(content).__name__}")
    return content
