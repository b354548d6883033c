"""Faults of gradient tables, in words: what to change, and which rule the table seems to follow."""

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.table_files import Convention, flip_of
from esn_core.arrays import Floats


def words_of_change(change: NDArray[np.int64], convention: Convention) -> str:
    """Say what the rows of a .bvec file should be.

    Parameters
    ----------
    change : (3, 3) int64
        A signed permutation of the rows.
    convention : Convention
        By which the file was read.

    Returns
    -------
    str

    """
    if np.array_equal(change, np.eye(3)):
        return "the rows as they are"
    row_name = {"fsl": "row", "image": "row", "scanner": "image axis"}[convention]
    rows = []
    for row in change:
        source = int(np.flatnonzero(row)[0])
        rows.append(f"{'-' if row[source] < 0 else ''}{row_name} {source + 1}")
    what = (
        "the directions along the image's axes" if convention == "scanner" else "the rows of the .bvec file"
    )
    return f"{what} changed to " + ", ".join(rows)


def cause_of(variant: Floats, affine: Floats, convention: Convention) -> str:
    """Say under which other convention a table would be right, if a variant is what that one gives.

    Parameters
    ----------
    variant : (3, 3) float64
        The signed permutation of the image's axes that heals the table, up to a sign of all.
    affine : (4, 4) float64
        Of the image.
    convention : Convention
        By which the table was read.

    Returns
    -------
    str
        The end of a sentence; empty where no convention explains it.

    """
    flip = flip_of(affine)
    # Of a grid that is oblique, the nearest axes.
    axes = _nearest_axes(affine)
    to_image: dict[str, Floats] = {
        "the image's axes without FSL's flip of x, as QSIPrep and DIPY have it": np.eye(3),
        "FSL's rule": flip,
        "the scanner's axes (right, front, up), as MRtrix has it": axes.T,
        "the scanner's axes (left, back, up), as DICOM has it": axes.T @ np.diag([-1.0, -1.0, 1.0]),
    }
    read = {"fsl": flip, "image": np.eye(3), "scanner": axes.T}[convention]
    for words, right in to_image.items():
        found = right @ np.linalg.inv(read)
        if np.array_equal(found, variant) or np.array_equal(found, -variant):
            return f": the table seems to follow {words}"
    return ""


def _nearest_axes(affine: Floats) -> Floats:
    """Give the signed permutation that is nearest to an affine's axes."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = np.zeros((3, 3))
    left = np.abs(axes)
    for _ in range(3):
        row, column = np.unravel_index(left.argmax(), left.shape)
        nearest[row, column] = np.sign(axes[row, column])
        left[row, :], left[:, column] = -1, -1
    return nearest
