"""Files of gradient tables: the numbers in them, and the axes that their vectors follow."""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError

Convention = Literal["fsl", "image", "scanner"]
"""Which axes a table's vectors follow.

``fsl``: the image's, x negated where the affine's determinant is positive (FSL wiki, FDT user guide: "bvecs
use the radiological voxel convention"). ``image``: the image's as it is stored, as DIPY reads them and
QSIPrep writes them. ``scanner``: right, front and up, as in MRtrix's table.
"""
LEAST_LENGTH = 0.05
"""A shorter vector is none: converters write 0 where a volume has no direction."""
MOST_APART_DEG = 3.0
"""Two tables of one scan differ by less: digits, and the turn of an oblique grid."""


@dataclass(frozen=True)
class TableFiles:
    """The files that tell how the volumes of one run were weighted.

    Attributes
    ----------
    bval, bvec : Path
        Of FSL's form: a row of b-values; three rows, or columns, of vectors.
    volumes : int
        Of the image.
    convention : 'fsl' or 'image'
        Of the vectors in `bvec`.
    scanner : Path or None
        MRtrix's table (x y z b in a row, scanner coordinates), where the pipeline wrote one: it is the one
        that leaves nothing open, and is believed.

    """

    bval: Path
    bvec: Path
    volumes: int
    convention: Convention = "fsl"
    scanner: Path | None = None


def read_table(
    files: TableFiles, affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], Convention]:
    """Read the b-values and vectors of one run.

    Parameters
    ----------
    files : TableFiles
    affine : (4, 4) float64
        Of the image.

    Returns
    -------
    b : (V,) float64
        As the file has them.
    vectors : (V, 3) float64
        Along the image's voxel axes as it is stored, of the length that the file has; 0 where it has none.
    convention : Convention
        Which one was read.

    Raises
    ------
    DataError
        A file cannot be read, the counts differ, a b-value is negative, or the two tables name other
        directions.

    """
    b, vectors = read_b_values(files.bval), _read_vectors(files.bvec)
    if not len(b) == len(vectors) == files.volumes:
        raise DataError(
            f"{files.bval.name} has {len(b)} b-values, {files.bvec.name} has {len(vectors)} vectors and "
            f"the image has {files.volumes} volumes; the three must be equal{_comma(files, b, vectors)}"
        )
    if (b < 0).any():
        raise DataError(f"{files.bval.name}: b-values must not be negative; the least is {b.min():g}")
    by_convention: dict[Convention, NDArray[np.float64]] = {
        "fsl": vectors @ flip_of(affine),
        "image": vectors,
    }
    if files.scanner is None:
        return b, by_convention[files.convention], files.convention
    believed = _read_scanner(files.scanner, affine, files.volumes)
    apart = {name: _apart_deg(believed, other) for name, other in by_convention.items()}
    if min(apart.values()) > MOST_APART_DEG:
        raise DataError(
            f"{files.scanner.name} and {files.bvec.name} name other directions, {min(apart.values()):.0f} "
            "degrees apart or more whether the .bvec follows FSL's rule or the image's axes; keep the "
            "right one"
        )
    return b, believed, "scanner"


def read_b_values(path: Path) -> NDArray[np.float64]:
    """Read the (V,) b-values of a file, in whatever unit they are.

    Raises
    ------
    DataError
        The file cannot be read, or a number is not finite.

    """
    numbers = _read_numbers(path).ravel()
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        raise DataError(
            f"{path.name}: volume {wrong[0]}, counted from 0, has {numbers[wrong[0]]:g}; numbers must be "
            "finite"
        )
    return numbers


def flip_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the (3, 3) matrix between FSL's vectors and the image's axes; it is its own inverse."""
    return np.diag([-1.0 if np.linalg.det(affine[:3, :3]) > 0 else 1.0, 1.0, 1.0])


def _read_vectors(path: Path) -> NDArray[np.float64]:
    """Read the (V, 3) vectors of a file; NaN, which some converters write at b0, is no vector."""
    vectors = _read_numbers(path)
    if vectors.shape[0] != 3 and vectors.shape[1] == 3:
        vectors = vectors.T
    if vectors.shape[0] != 3:
        raise DataError(f"{path.name}: three rows of numbers are needed; found shape {vectors.shape}")
    return _without_nan(vectors.T, path)


def _comma(files: TableFiles, b: NDArray[np.float64], vectors: NDArray[np.float64]) -> str:
    """Name the likely cause where a table has two numbers for each that there should be."""
    for path, count in ((files.bval, len(b)), (files.bvec, len(vectors))):
        if count == 2 * files.volumes and b"," in path.read_bytes():
            return f". A comma parts two numbers: if {path.name} has decimal commas, write points"
    return ""


def _read_scanner(path: Path, affine: NDArray[np.float64], volumes: int) -> NDArray[np.float64]:
    """Read the vectors of MRtrix's table, along the image's axes."""
    rows = _read_numbers(path)
    if rows.shape != (volumes, 4):
        raise DataError(f"{path.name}: {volumes} rows of x y z b are needed; found shape {rows.shape}")
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.linalg.solve(axes, _without_nan(rows[:, :3], path).T).T


def _without_nan(vectors: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    if np.isinf(vectors).any():
        raise DataError(f"{path.name}: numbers must be finite")
    return np.where(np.isnan(vectors).any(axis=1, keepdims=True), 0.0, vectors)


def _apart_deg(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Measure the largest angle between two tables' axes, over the volumes that have one in both."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = np.abs(np.sum(first * second, axis=1))[lengths > LEAST_LENGTH] / lengths[lengths > LEAST_LENGTH]
    return float(np.degrees(np.arccos(np.clip(cosine.min(initial=1.0), 0, 1))))


def _read_numbers(path: Path) -> NDArray[np.float64]:
    """Read a text file of rows of numbers, as converters and spreadsheets write it.

    Blanks, tabs, commas or semicolons between the numbers; a byte order mark, even UTF-16's, is no number.
    """
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig").replace(",", " ").replace(";", " ")
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: not a table of numbers: {error}") from None
    if not text.strip():
        raise DataError(f"{path.name}: not a table of numbers: it is empty")
    try:
        return np.loadtxt(text.splitlines(), dtype=np.float64, ndmin=2)
    except ValueError as error:
        words = str(error).partition(";")[0]  # what follows is advice on a call
        raise DataError(f"{path.name}: not a table of numbers: {words}") from None
