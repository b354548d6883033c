"""Scans: the files of one participant in a BIDS dataset, found, read and checked."""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from esn_client.imaging.gradients import Gradients, read_gradients
from esn_core.atlas import Atlas
from esn_core.errors import DataError

AFFINE_TOLERANCE_MM = 1e-3
"""Two grids are the same if no entry of their affines differs by more."""


@dataclass(frozen=True)
class ScanFiles:
    """The four files from which a connectome is made.

    Attributes
    ----------
    participant : str
    dwi, bval, bvec, labels : Path

    """

    participant: str
    dwi: Path
    bval: Path
    bvec: Path
    labels: Path

    def sha256s(self, bids: Path) -> dict[str, str]:
        """Compute the digest of each file, by its path inside the dataset."""
        return {
            path.relative_to(bids).as_posix(): sha256_of(path)
            for path in (self.dwi, self.bval, self.bvec, self.labels)
        }


@dataclass(frozen=True)
class Scan:
    """One participant's scan, checked.

    Attributes
    ----------
    signal : (X, Y, Z, V) float32
    affine : (4, 4) float64
        Voxels to millimetres, RAS+.
    gradients : Gradients
    labels : (X, Y, Z) int64
        On the grid of the signal.

    """

    signal: NDArray[np.float32]
    affine: NDArray[np.float64]
    gradients: Gradients
    labels: NDArray[np.int64]

    @property
    def voxel_size_mm(self) -> NDArray[np.float64]:
        """The (3,) edge lengths of a voxel."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), dtype=np.float64)


def sha256_of(path: Path) -> str:
    """Compute the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def segmentation_of(atlas: str) -> str:
    """Give the BIDS ``seg-`` label of an atlas: its name without what BIDS does not allow."""
    return "".join(c for c in atlas if c.isalnum())


def list_participants(bids: Path, asked: Sequence[str] | None) -> list[str]:
    """List the participants of a dataset, or check those that are asked for.

    Parameters
    ----------
    bids : Path
    asked : sequence of str, optional
        With or without ``sub-``.

    Returns
    -------
    list of str
        With ``sub-``, sorted, each once.

    Raises
    ------
    DataError
        This is no BIDS dataset, it has no participant, or not one that is asked for.

    """
    if not (bids / "dataset_description.json").is_file():
        raise DataError(f"{bids}: no BIDS dataset; dataset_description.json is missing")
    there = sorted(path.name for path in bids.glob("sub-*") if path.is_dir())
    if not there:
        raise DataError(f"{bids}: no participant; a directory sub-<label> is needed for each")
    if asked is None:
        return there
    wanted = sorted({name if name.startswith("sub-") else f"sub-{name}" for name in asked})
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise DataError(
            f"{bids}: unknown participant {', '.join(unknown)}; there are {len(there)}, "
            f"{there[0]} to {there[-1]}"
        )
    return wanted


def find_scan(bids: Path, participant: str, *, atlas: str) -> ScanFiles:
    """Find the one diffusion scan of a participant and its ready label volume.

    The scan is ``sub-*/[ses-*/]dwi/*_dwi.nii.gz``; the labels, on the scan's grid, are
    ``derivatives/*/sub-*/[ses-*/](dwi|anat)/*_seg-<atlas>_dseg.nii.gz``.

    Raises
    ------
    DataError
        A file is missing, or there are several.

    """
    dwi = _only(bids, [f"{participant}{ses}/dwi/{participant}_*dwi.nii.gz" for ses in ("", "/ses-*")], "scan")
    stem = dwi.name.removesuffix(".nii.gz")
    for suffix in (".bval", ".bvec"):
        if not dwi.with_name(stem + suffix).is_file():
            raise DataError(f"{participant}: {stem}{suffix} is missing beside {dwi.name}")
    labels = _only(
        bids,
        [
            f"derivatives/*/{participant}{ses}/{kind}/{participant}_*seg-{segmentation_of(atlas)}_dseg.nii.gz"
            for ses in ("", "/ses-*")
            for kind in ("dwi", "anat")
        ],
        "label volume",
    )
    return ScanFiles(participant, dwi, dwi.with_name(stem + ".bval"), dwi.with_name(stem + ".bvec"), labels)


def load_scan(files: ScanFiles, *, atlas: Atlas, sh_order_max: int) -> Scan:
    """Read a participant's files and refuse what cannot be used.

    Parameters
    ----------
    files : ScanFiles
    atlas : Atlas
        Whose regions the label volume shows.
    sh_order_max : int
        Order that the gradient directions must support.

    Returns
    -------
    Scan

    Raises
    ------
    DataError
        A file is damaged, the gradients do not fit the image, voxels are not finite, or the labels lie on
        another grid or are not the atlas's.

    """
    signal, affine = _read_volume(files.dwi)
    if signal.ndim != 4:
        raise DataError(f"{files.dwi.name}: a series of volumes (4-D) is needed; found shape {signal.shape}")
    shell = read_gradients(
        files.bval, files.bvec, affine=affine, volumes=signal.shape[3], sh_order_max=sh_order_max
    )
    unusable = int(signal.size - np.isfinite(signal).sum())
    if unusable:
        raise DataError(f"{files.dwi.name}: {unusable} voxels are NaN or infinite; all must be finite")
    labels, labels_affine = _read_volume(files.labels)
    if labels.shape != signal.shape[:3]:
        raise DataError(
            f"{files.labels.name}: the label volume has grid {labels.shape}; the scan has {signal.shape[:3]}"
        )
    gap = float(np.abs(labels_affine - affine).max())
    if gap > AFFINE_TOLERANCE_MM:
        raise DataError(
            f"{files.labels.name}: its affine differs from the scan's by up to {gap:.3g}; 0 is needed"
        )
    values = np.unique(labels)
    known = {0, *(region.index for region in atlas.regions)}
    strange = [value for value in values.tolist() if value not in known]
    if strange:
        raise DataError(f"{files.labels.name}: label {strange[0]:g} is not in atlas {atlas.name}")
    absent = sorted(known - set(values.tolist()) - {0})
    if absent:
        raise DataError(f"{files.labels.name}: region {absent[0]} of atlas {atlas.name} has no voxel")
    return Scan(signal[..., shell.kept], affine, shell.gradients, labels.astype(np.int64))


def _only(bids: Path, patterns: Sequence[str], what: str) -> Path:
    """Find the one file that matches any pattern."""
    found = sorted({path for pattern in patterns for path in bids.glob(pattern)})
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.relative_to(bids).as_posix() for path in found) or "none"
    raise DataError(f"one {what} is needed ({patterns[0]}); found {names}")


def _read_volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a whole NIfTI image."""
    try:
        image = nib.load(path)
        return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged")), np.asarray(image.affine)
    except (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError) as error:
        raise DataError(f"{path.name}: not a whole NIfTI image: {error}") from None
