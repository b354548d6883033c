"""Constrained spherical deconvolution of many voxels at a time (Tournier et al. 2007, Neuroimage 35:1459).

The signal s of a voxel is X f; f holds its fODF's coefficients. Where the fODF is below a share of its mean
along a direction of H, it is pulled to zero: (X'X + B'B) f = X's, with B the rows of H that are so, again and
again until these rows no longer change. DIPY solves voxel after voxel in Python; here the sums B'B of a batch
are one matrix product, and its systems are solved in compiled code.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from esn_client.imaging.compilation import compiled

SMOOTH_COEFFICIENTS = 15
"""The first guess at where the fODF is small is one of order 4."""
ITERATIONS = 50
RIDGE = 1e-5


@dataclass(frozen=True)
class Deconvolution:
    """The matrices of one gradient table and response.

    Attributes
    ----------
    forward : (V, C) float64
        X: signals of the V weighted volumes from coefficients.
    constraints : (D, C) float64
        H, already scaled by the weight of the constraint.
    threshold_share : float
        Of the mean fODF, below which it counts as small.

    """

    forward: NDArray[np.float64]
    constraints: NDArray[np.float64]
    threshold_share: float

    def solve(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Deconvolve.

        Parameters
        ----------
        signals : (n, V) float64

        Returns
        -------
        (n, C) float64
            A few voxels swing between two sets of small directions for ever: their last fODF is returned.

        """
        normal = self.forward.T @ self.forward
        if np.linalg.cond(normal) > 1 / np.finfo(np.float64).eps:
            normal += RIDGE * np.eye(len(normal))
        rows, columns = np.tril_indices(len(normal))
        # Each direction's share of B'B, its lower triangle packed row by row.
        outer = self.constraints[:, rows] * self.constraints[:, columns]
        projected = signals @ self.forward
        found = np.ascontiguousarray(cho_solve(cho_factor(normal), projected.T).T)
        # H's first row times the first coefficient is the mean of the fODF on H's scale.
        threshold = self.constraints[0, 0] * found[:, :1] * self.threshold_share
        smooth = found[:, :SMOOTH_COEFFICIENTS] @ self.constraints[:, :SMOOTH_COEFFICIENTS].T
        small = smooth < threshold
        smooth_enough = ~small.any(axis=1)
        small[smooth_enough] = found[smooth_enough] @ self.constraints.T < threshold[smooth_enough]
        active = np.flatnonzero(small.any(axis=1))
        for _ in range(ITERATIONS):
            if not active.size:
                break
            packed = small[active].astype(np.float64) @ outer
            packed += normal[rows, columns]
            solved = np.empty((len(active), len(normal)))
            _solve_packed(packed, projected[active], solved)
            found[active] = solved
            now_small = solved @ self.constraints.T < threshold[active]
            changed = (now_small != small[active]).any(axis=1)
            small[active] = now_small
            active = active[changed]
        return found


@compiled
def _solve_packed(
    packed: NDArray[np.float64], right: NDArray[np.float64], solved: NDArray[np.float64]
) -> None:
    """Solve symmetric positive definite systems by Cholesky's factorisation.

    Parameters
    ----------
    packed : (n, C (C + 1) / 2) float64
        Lower triangles, row by row.
    right : (n, C) float64
    solved : (n, C) float64
        Is filled in.

    """
    systems, size = right.shape
    lower, half = np.zeros((size, size)), np.empty(size)
    for system in range(systems):
        place = 0
        for i in range(size):
            row = lower[i]
            for j in range(i + 1):
                other = lower[j]
                total = packed[system, place]
                place += 1
                for k in range(j):
                    total -= row[k] * other[k]
                row[j] = np.sqrt(total) if i == j else total / other[j]
        for i in range(size):
            total = right[system, i]
            for k in range(i):
                total -= lower[i, k] * half[k]
            half[i] = total / lower[i, i]
        for i in range(size - 1, -1, -1):
            solved[system, i] = half[i] / lower[i, i]
            for k in range(i):
                half[k] -= lower[i, k] * solved[system, i]
