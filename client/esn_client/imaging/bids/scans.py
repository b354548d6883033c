"""Scans: the files of one visit, read and checked."""

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.gradient_table import B0_MAX_S_PER_MM2, Gradients, read_gradients
from esn_client.imaging.preprocessing.signal_check import check_signal
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe

AFFINE_TOLERANCE_MM = 1e-3
"""Two grids are the same if no entry of their affines differs by more."""
BYTES_PER_VALUE = 16
"""What a voxel of one volume costs at most: float32 before and after a stage, and float64 within it."""
GB_OF_A_PROCESS = 0.8
"""What a worker takes before it has read anything, streamlines of a batch included."""


@dataclass(frozen=True, order=True)
class Visit:
    """One session of one participant; of datasets without sessions, the participant.

    Attributes
    ----------
    participant : str
        With ``sub-``.
    session : str or None
        With ``ses-``.

    """

    participant: str
    session: str | None

    @property
    def label(self) -> str:
        """The beginning of the names of its files."""
        return self.participant if self.session is None else f"{self.participant}_{self.session}"

    @property
    def folder(self) -> str:
        """Its directory inside a dataset."""
        return self.participant if self.session is None else f"{self.participant}/{self.session}"


@dataclass(frozen=True)
class RunFiles:
    """One series of volumes and its gradient table.

    Attributes
    ----------
    dwi, bval, bvec : Path

    """

    dwi: Path
    bval: Path
    bvec: Path

    def count_weighted(self) -> int:
        """Count the diffusion-weighted volumes; a table that cannot be read has none."""
        try:
            return int((np.loadtxt(self.bval, ndmin=1) > B0_MAX_S_PER_MM2).sum())
        except (OSError, ValueError):
            return 0


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
    lesion : Path or None
        A mask of what is lost: a resection, or tissue in which no fibres can be.
    preprocessed_by : str or None
        The pipeline that denoised and aligned the scan already.

    """

    visit: Visit
    runs: tuple[RunFiles, ...]
    left_out: tuple[Path, ...]
    labels: Path | None
    lesion: Path | None
    preprocessed_by: str | None

    def sha256s(self, bids: Path) -> dict[str, str]:
        """Compute the digest of each file, by its path inside the dataset."""
        paths = [path for run in self.runs for path in (run.dwi, run.bval, run.bvec)]
        paths += [path for path in (self.labels, self.lesion) if path]
        return {path.relative_to(bids).as_posix(): sha256_of(path) for path in paths}

    def memory_gb(self) -> float:
        """Estimate the memory that the subject takes, from the headers alone; 0 where they cannot be read."""
        values = 0
        for run in self.runs:
            try:
                values += int(np.prod(cast("SpatialImage", nib.load(run.dwi)).shape))
            except (EOFError, OSError, ValueError, zlib.error, ImageFileError):
                return 0.0
        return GB_OF_A_PROCESS + values * BYTES_PER_VALUE / 1e9


@dataclass(frozen=True)
class Scan:
    """One visit's scan, checked.

    Attributes
    ----------
    signal : (X, Y, Z, V) float32
    affine : (4, 4) float64
        Voxels to millimetres, RAS+.
    gradients : Gradients
    labels : (X, Y, Z) int64 or None
        On the grid of the signal.
    preprocessed : bool
        Whether the scan was denoised and aligned elsewhere.
    lesion : (X, Y, Z) bool or None
        What is marked as lost, on the grid of the signal.

    """

    signal: NDArray[np.float32]
    affine: NDArray[np.float64]
    gradients: Gradients
    labels: NDArray[np.int64] | None
    preprocessed: bool
    lesion: NDArray[np.bool_] | None = None

    @property
    def voxel_size_mm(self) -> NDArray[np.float64]:
        """The (3,) edge lengths of a voxel."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), dtype=np.float64)


def sha256_of(path: Path) -> str:
    """Compute the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_of(path: Path) -> dict[str, Any]:
    """Read a JSON object; what cannot be read says nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def segmentation_of(atlas: str) -> str:
    """Give the BIDS ``seg-`` label of an atlas: its name without what BIDS does not allow."""
    return "".join(c for c in atlas if c.isalnum())


def load_scan(files: ScanFiles, *, atlas: Atlas, recipe: ImagingRecipe) -> Scan:
    """Read the files of a visit and refuse what cannot be used.

    Parameters
    ----------
    files : ScanFiles
    atlas : Atlas
        Whose regions the label volume shows.
    recipe : ImagingRecipe
        Names the shell and the order that the gradient directions must support.

    Returns
    -------
    Scan
        Runs joined; volumes of other shells left out.

    Raises
    ------
    DataError
        A file is damaged, its voxels are no scan's, runs or labels lie on other grids, the gradients do not
        fit the image, or the labels are not the atlas's.

    """
    signals: list[NDArray[np.float32]] = []
    affine, ceiling = np.eye(4), None
    for run in files.runs:
        signal, run_affine, own_ceiling = _read_volume(run.dwi)
        if signal.ndim != 4:
            raise DataError(
                f"{run.dwi.name}: a series of volumes (4-D) is needed; found shape {signal.shape}"
            )
        if not signals:
            affine, ceiling = run_affine, own_ceiling
        _check_grid(run.dwi, signal, run_affine, like=signals[0] if signals else signal, affine=affine)
        signals.append(signal)
    sizes = [signal.shape[3] for signal in signals]
    first, *rest = files.runs
    shell = read_gradients(
        first.bval,
        first.bvec,
        affine=affine,
        volumes=sizes[0],
        sh_order_max=recipe.sh_order_max,
        shell_s_per_mm2=recipe.shell_s_per_mm2,
        shell_width=recipe.shell_width,
        more_runs=[(run.bval, run.bvec, size) for run, size in zip(rest, sizes[1:], strict=True)],
    )
    signal = np.concatenate(signals, axis=3) if rest else signals[0]
    if len(shell.kept) < signal.shape[3]:
        signal = signal[..., shell.kept]
    check_signal(signal, shell.gradients, name=first.dwi.name, ceiling=ceiling)
    labels = None if files.labels is None else _read_labels(files.labels, signal, affine, atlas)
    lesion = None if files.lesion is None else _read_lesion(files.lesion, signal, affine)
    return Scan(signal, affine, shell.gradients, labels, files.preprocessed_by is not None, lesion)


def _read_labels(
    path: Path, signal: NDArray[np.float32], affine: NDArray[np.float64], atlas: Atlas
) -> NDArray[np.int64]:
    """Read a label volume that must lie on the scan's grid and show every region."""
    labels, labels_affine, _ = _read_volume(path)
    _check_grid(path, labels, labels_affine, like=signal, affine=affine)
    values = np.unique(labels)
    known = {0, *(region.index for region in atlas.regions)}
    strange = [value for value in values.tolist() if value not in known]
    if strange:
        raise DataError(f"{path.name}: label {strange[0]:g} is not in atlas {atlas.name}")
    absent = sorted(known - set(values.tolist()) - {0})
    if absent:
        raise DataError(f"{path.name}: region {absent[0]} of atlas {atlas.name} has no voxel")
    return labels.astype(np.int64)


def _read_lesion(
    path: Path, signal: NDArray[np.float32], affine: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Read a mask that must lie on the scan's grid and hold nothing but 0 and 1."""
    mask, mask_affine, _ = _read_volume(path)
    _check_grid(path, mask, mask_affine, like=signal, affine=affine)
    if mask.ndim != 3 or not np.isin(mask, (0, 1)).all():
        raise DataError(f"{path.name}: a lesion mask is 3-D and holds 0 and 1 alone")
    return mask > 0


def _check_grid(
    path: Path,
    volume: NDArray[np.float32],
    own: NDArray[np.float64],
    *,
    like: NDArray[np.float32],
    affine: NDArray[np.float64],
) -> None:
    """Refuse a volume on another grid than the scan's."""
    if volume.shape[:3] != like.shape[:3] or volume.ndim not in (3, 4):
        raise DataError(f"{path.name}: its grid is {volume.shape}; the scan has {like.shape[:3]}")
    gap = float(np.abs(own - affine).max())
    if gap > AFFINE_TOLERANCE_MM:
        raise DataError(f"{path.name}: its affine differs from the scan's by up to {gap:.3g}; 0 is needed")


def _read_volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64], float | None]:
    """Read a whole NIfTI image, its affine, and the largest value that its integers can hold."""
    try:
        image = cast("SpatialImage", nib.load(path))
        volume = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
        kind, ceiling = image.get_data_dtype(), None
        if np.issubdtype(kind, np.integer):
            stored: Any = image.dataobj
            slope, start = stored.slope, stored.inter
            ceiling = float(np.iinfo(kind).max * slope + start)
    except (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError) as error:
        raise DataError(f"{path.name}: not a whole NIfTI image: {error}") from None
    return volume, np.asarray(image.affine), ceiling
