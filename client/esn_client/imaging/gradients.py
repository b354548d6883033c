"""Gradient tables: how strongly, and along which voxel axes, each volume is diffusion weighted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import DataError

B0_MAX_S_PER_MM2 = 50.0
"""Volumes up to this b-value count as not diffusion weighted."""
SHELL_WIDTH = 0.1
"""Weighted b-values may differ by this share of their median and still be one shell."""


@dataclass(frozen=True)
class Gradients:
    """The gradient table of one scan.

    Attributes
    ----------
    b_values_s_per_mm2 : (V,) float64
    directions : (V, 3) float64
        Unit vectors along the voxel axes i, j, k of the image as it is stored; zero where there is no
        weighting. This is the frame in which DIPY fits and tracks.

    """

    b_values_s_per_mm2: NDArray[np.float64]
    directions: NDArray[np.float64]

    @property
    def is_b0(self) -> NDArray[np.bool_]:
        """Which volumes are not diffusion weighted."""
        return self.b_values_s_per_mm2 <= B0_MAX_S_PER_MM2


def coefficients_of_order(sh_order_max: int) -> int:
    """Count the even spherical harmonics up to an order."""
    return (sh_order_max + 1) * (sh_order_max + 2) // 2


def read_gradients(
    bval: Path, bvec: Path, *, affine: NDArray[np.float64], volumes: int, sh_order_max: int
) -> Gradients:
    """Read FSL's gradient files for an image that is stored with a given affine.

    FSL writes vectors along the voxel axes, with x negated where the affine's determinant is positive
    (FSL wiki, FDT user guide: "bvecs use the radiological voxel convention"); DIPY does not undo that.

    Parameters
    ----------
    bval, bvec : Path
    affine : (4, 4) float64
        Of the image.
    volumes : int
        Of the image.
    sh_order_max : int
        Order that the directions must support.

    Returns
    -------
    Gradients

    Raises
    ------
    DataError
        A file cannot be read, the counts differ, a vector is no direction, there is no b0, several
        shells, or too few directions for the order.

    """
    b = _read_numbers(bval).ravel()
    vectors = _read_numbers(bvec)
    if vectors.ndim == 2 and vectors.shape[0] != 3 and vectors.shape[1] == 3:
        vectors = vectors.T
    if vectors.ndim != 2 or vectors.shape[0] != 3:
        raise DataError(f"{bvec.name}: three rows of numbers are needed; found shape {vectors.shape}")
    if not len(b) == vectors.shape[1] == volumes:
        raise DataError(
            f"{bval.name} has {len(b)} b-values, {bvec.name} has {vectors.shape[1]} vectors and the image "
            f"has {volumes} volumes; the three must be equal"
        )
    if (b < 0).any():
        raise DataError(f"{bval.name}: b-values must not be negative; the least is {b.min():g}")
    directions = vectors.T.copy()
    if np.linalg.det(affine[:3, :3]) > 0:
        directions[:, 0] *= -1
    weighted = b > B0_MAX_S_PER_MM2
    norms = np.linalg.norm(directions, axis=1)
    bad = np.flatnonzero(weighted & (np.abs(norms - 1) > 0.05))
    if bad.size:
        raise DataError(
            f"{bvec.name}: volume {bad[0]} has b = {b[bad[0]]:g} and a vector of length {norms[bad[0]]:.3g}; "
            "1 is needed"
        )
    directions = np.where(weighted[:, None], directions / np.where(norms > 0, norms, 1)[:, None], 0.0)
    if weighted.all():
        raise DataError(
            f"{bval.name}: no b0; one volume of b <= {B0_MAX_S_PER_MM2:g} s/mm2 or more is needed"
        )
    if weighted.any():
        shell = np.median(b[weighted])
        if (np.abs(b[weighted] - shell) > SHELL_WIDTH * shell).any():
            found = ", ".join(f"{value:g}" for value in np.unique(np.round(b[weighted], -2)))
            raise DataError(f"{bval.name}: one shell is needed; found b near {found} s/mm2")
    unique = _count_distinct(directions[weighted])
    needed = coefficients_of_order(sh_order_max)
    if unique < needed:
        raise DataError(
            f"{bvec.name}: {unique} distinct directions; order {sh_order_max} needs {needed} or more"
        )
    return Gradients(b, directions)


def _read_numbers(path: Path) -> NDArray[np.float64]:
    """Read a text file of finite numbers."""
    try:
        numbers = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: not a table of numbers: {error}") from None
    if not np.isfinite(numbers).all():
        raise DataError(f"{path.name}: numbers must be finite")
    return numbers


def _count_distinct(directions: NDArray[np.float64]) -> int:
    """Count directions that differ by more than two degrees; opposite ones are the same."""
    cosine = np.abs(directions @ directions.T)
    same = np.triu(cosine > np.cos(np.radians(2.0)), k=1)
    return int(len(directions) - same.any(axis=0).sum())
