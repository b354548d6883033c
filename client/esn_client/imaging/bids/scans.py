"""Scans: the files of one visit, read and checked."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.images import Image, read_image
from esn_client.imaging.bids.scan_files import AnatomyFiles, RunFiles, ScanFiles
from esn_client.imaging.preprocessing.brightness import level_runs
from esn_client.imaging.preprocessing.gradient_table import (
    B0_MAX_S_PER_MM2,
    Gradients,
    Shell,
    read_gradients,
)
from esn_client.imaging.preprocessing.signal_check import check_signal
from esn_client.imaging.preprocessing.table_files import Convention, TableFiles
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe

AFFINE_TOLERANCE_MM = 1e-3
"""Two grids are the same if no entry of their affines differs by more."""
MOST_ABSENT = 0.25
"""A hemisphere's lobe may have been removed; a volume that lacks more of the atlas's regions shows another
atlas."""


@dataclass(frozen=True)
class Anatomy:
    """A T1w image and its labels, as they were read.

    Attributes
    ----------
    image, labels : (X, Y, Z) float32
        On one grid; the labels as the file has them.
    affine : (4, 4) float64
        Voxels to millimetres, RAS+.
    freesurfer : bool
        Whether the labels have FreeSurfer's numbers, or the atlas's own.
    name : str
        Of the labels' file, for words.

    """

    image: NDArray[np.float32]
    labels: NDArray[np.float32]
    affine: NDArray[np.float64]
    freesurfer: bool
    name: str


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
    sides : str
        Where the voxel axes lead, and what in the header says so: nothing else tells left from right.
    slice_axis : 0, 1 or 2
        The voxel axis along which slices were stacked.
    convention : Convention
        Of the gradient table, as it was read.
    stored_volumes : int
        In the files, those that are not used too.
    dropped_s_per_mm2 : tuple of float
        The b-values of shells that are not used.
    shell_s_per_mm2 : float
        The b-value of the shell that tensors are fitted to, where there are several.
    anatomy : Anatomy or None
        A T1w image and its labels, where they give the regions.
    warnings, remarks : tuple of str
        What somebody should look at, and what is good to know. They name files and stay at the site.

    """

    signal: NDArray[np.float32]
    affine: NDArray[np.float64]
    gradients: Gradients
    labels: NDArray[np.int64] | None
    preprocessed: bool
    sides: str = ""
    slice_axis: int = 2
    convention: Convention = "fsl"
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    lesion: NDArray[np.bool_] | None = None
    anatomy: Anatomy | None = None
    stored_volumes: int = 0
    dropped_s_per_mm2: tuple[float, ...] = ()
    shell_s_per_mm2: float | None = None

    @property
    def in_shell(self) -> NDArray[np.bool_]:
        """Which (V,) volumes a tensor is fitted to: b0s and one shell."""
        if self.shell_s_per_mm2 is None:
            return np.ones(len(self.gradients.is_b0), dtype=np.bool_)
        return self.gradients.with_shell(self.shell_s_per_mm2)

    @property
    def voxel_size_mm(self) -> NDArray[np.float64]:
        """The (3,) edge lengths of a voxel."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), dtype=np.float64)


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
    images = [read_image(run.dwi) for run in files.runs]
    for run, image in zip(files.runs, images, strict=True):
        if image.voxels.ndim != 4:
            raise DataError(
                f"{run.dwi.name}: a series of volumes (4-D) is needed; found shape {image.voxels.shape}"
            )
        _check_grid(run.dwi, image, like=images[0])
    affine, orientation = images[0].affine, images[0].orientation
    signals = [image.voxels for image in images]
    first, *rest = files.runs
    shell = read_gradients(
        [
            TableFiles(run.bval, run.bvec, signal.shape[3], run.convention, run.scanner)
            for run, signal in zip(files.runs, signals, strict=True)
        ],
        affine=affine,
        sh_order_max=recipe.sh_order_max,
        shell_s_per_mm2=recipe.shell_s_per_mm2,
        shell_width=recipe.shell_width,
        all_shells=recipe.shells == "all",
    )
    brightness = level_runs([run.dwi.name for run in files.runs], signals, shell)
    signal = np.concatenate(signals, axis=3) if rest else signals[0]
    if len(shell.kept) < signal.shape[3]:
        signal = signal[..., shell.kept]
    sound = check_signal(signal, shell.gradients, name=first.dwi.name, ceiling=images[0].ceiling)
    labels = None if files.labels is None else _read_labels(files.labels, like=images[0], atlas=atlas)
    lesion, unmarked = None, []
    if files.lesion is not None:
        lesion = _read_lesion(files.lesion, like=images[0])
        unmarked = [] if lesion.any() else [f"{files.lesion.name} is empty: nothing is marked"]
    return Scan(
        sound.signal,
        affine,
        shell.gradients,
        labels,
        files.preprocessed_by is not None,
        sides=f"stored {orientation.axes}, by the header's {orientation.source}",
        slice_axis=_slice_axis(first, affine),
        convention=shell.conventions[0],
        warnings=(
            *files.warnings,
            *(words for image in images for words in image.orientation.warnings),
            *brightness,
            *unmarked,
        ),
        remarks=(*files.remarks, *_remarks(first, shell), *sound.remarks),
        lesion=lesion,
        anatomy=None if files.anatomy is None else _read_anatomy(files.anatomy),
        stored_volumes=sum(image.voxels.shape[3] for image in images),
        dropped_s_per_mm2=shell.dropped_s_per_mm2,
        shell_s_per_mm2=shell.b_value_s_per_mm2 if recipe.shells == "all" else None,
    )


def _slice_axis(run: RunFiles, affine: NDArray[np.float64]) -> int:
    """Give the axis that the sidecar names, else the one nearest to upright."""
    said = run.slice_axis
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return int(np.abs(axes[2]).argmax()) if said is None else said


def _remarks(run: RunFiles, shell: Shell) -> list[str]:
    """Say how the gradient table was read, where that is not plain."""
    said = []
    if run.scanner:
        said.append(f"directions are read from {run.scanner.name}, in the scanner's coordinates")
    elif run.convention == "image":
        said.append(f"{run.bvec.name} follows the image's axes, as its pipeline writes it, not FSL's rule")
    if shell.traces:
        places = ", ".join(map(str, shell.traces))
        said.append(
            f"volume {places} has a b-value and no direction, as a mean over the directions; not used"
        )
    if shell.gradients.b0_max_s_per_mm2 > B0_MAX_S_PER_MM2:
        lowest = shell.gradients.b_values_s_per_mm2.min()
        said.append(f"the b0s have b = {lowest:g} s/mm2: there is nothing lower")
    return said


def _read_labels(path: Path, *, like: Image, atlas: Atlas) -> NDArray[np.int64]:
    """Read a label volume that must lie on the scan's grid and show the atlas; a resection may lack in it."""
    image = _read_volume(path)
    _check_grid(path, image, like=like)
    labels = image.voxels
    values = np.unique(labels)
    known = {0, *(region.index for region in atlas.regions)}
    strange = [value for value in values.tolist() if value not in known]
    if strange:
        raise DataError(f"{path.name}: label {strange[0]:g} is not in atlas {atlas.name}")
    absent = sorted(known - set(values.tolist()) - {0})
    if len(absent) > MOST_ABSENT * len(atlas.regions):
        raise DataError(
            f"{path.name}: {len(absent)} of {len(atlas.regions)} regions of atlas {atlas.name} have no "
            "voxel, such as "
            f"region {absent[0]}"
        )
    return labels.astype(np.int64)


def _read_anatomy(files: AnatomyFiles) -> Anatomy:
    """Read a T1w image and labels that lie on its grid."""
    image, labels = _read_volume(files.t1w), _read_volume(files.labels)
    _check_grid(files.labels, labels, like=image)
    return Anatomy(image.voxels, labels.voxels, image.affine, files.freesurfer, files.labels.name)


def _read_lesion(path: Path, *, like: Image) -> NDArray[np.bool_]:
    """Read a mask that must lie on the scan's grid and hold nothing but 0 and 1."""
    image = _read_volume(path)
    _check_grid(path, image, like=like)
    strange = image.voxels[~np.isin(image.voxels, (0, 1))]
    if strange.size:
        raise DataError(
            f"{path.name}: a lesion mask holds 0 and 1 alone; found {strange[0]:g}: write 1 where tissue "
            "is lost"
        )
    return np.asarray(image.voxels > 0, dtype=np.bool_)


def _read_volume(path: Path) -> Image:
    """Read one volume; converters leave axes of length 1 behind it."""
    image = read_image(path)
    shape = image.voxels.shape
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise DataError(f"{path.name}: one 3-D volume is needed; found shape {shape}")
    return replace(image, voxels=image.voxels.reshape(shape[:3]))


def _check_grid(path: Path, image: Image, *, like: Image) -> None:
    """Refuse a volume on another grid than the scan's."""
    if image.voxels.shape[:3] != like.voxels.shape[:3] or image.voxels.ndim not in (3, 4):
        raise DataError(
            f"{path.name}: its grid is {image.voxels.shape}; the scan has {like.voxels.shape[:3]}"
        )
    gap = float(np.abs(image.affine - like.affine).max())
    if gap > AFFINE_TOLERANCE_MM:
        raise DataError(f"{path.name}: its affine differs from the scan's by up to {gap:.3g}; 0 is needed")
