"""Tractography: streamlines that follow the fibre orientations at random."""

import numpy as np
from dipy.core.sphere import Sphere
from dipy.data import get_sphere
from dipy.tracking.stopping_criterion import ThresholdStoppingCriterion
from dipy.tracking.tracker import probabilistic_tracking
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from esn_client.imaging.fodf import BASIS, amplitudes, legacy_basis
from esn_core.errors import DataError
from esn_core.recipe import ImagingRecipe

BATCH_SEEDS = 50_000
"""Bounds the memory that streamlines take before only their ends are kept."""


def track_ends(
    fodf: NDArray[np.float64], fa: NDArray[np.float64], affine: NDArray[np.float64], recipe: ImagingRecipe
) -> NDArray[np.float64]:
    """Track from random positions and keep both ends of each streamline.

    Streamlines start in a direction drawn from the fODF, not along its highest peak, so that the weaker of
    two crossing bundles is followed as often as it deserves.

    Parameters
    ----------
    fodf : (X, Y, Z, C) float64
        Coefficients in DIPY's legacy ``descoteaux07`` basis, along the voxel axes.
    fa : (X, Y, Z) float64
        0 outside the brain.
    affine : (4, 4) float64
    recipe : ImagingRecipe

    Returns
    -------
    (S, 2, 3) float64
        Ends in RAS+ mm, of the streamlines of allowed length that stay inside the grid.

    Raises
    ------
    DataError
        No voxel is anisotropic enough to start from.

    """
    start = np.argwhere((fa >= recipe.fa_seed_threshold) & (fodf[..., 0] > 0))
    if not len(start):
        raise DataError(
            f"no voxel reaches fa_seed_threshold {recipe.fa_seed_threshold}; the most is {fa.max():.2f}"
        )
    rng = np.random.default_rng(recipe.random_seed)
    sphere = get_sphere(name=recipe.sphere)
    stop = ThresholdStoppingCriterion(fa, recipe.fa_stop_threshold)
    last = np.array(fa.shape) - 1
    inverse = np.linalg.inv(affine)
    kept = [np.empty((0, 2, 3))]
    for begin in range(0, recipe.seeds, BATCH_SEEDS):
        voxels = start[rng.integers(len(start), size=min(BATCH_SEEDS, recipe.seeds - begin))]
        directions = _draw_directions(fodf, voxels, sphere, threshold=recipe.fodf_threshold, rng=rng)
        with legacy_basis():
            streamlines = probabilistic_tracking(
                apply_affine(affine, voxels + rng.uniform(-0.5, 0.5, voxels.shape)),
                stop,
                affine,
                seed_directions=directions,
                sh=fodf,
                sphere=sphere,
                basis_type=BASIS,
                legacy=True,
                min_len=recipe.min_length_mm,
                max_len=recipe.max_length_mm,
                step_size=recipe.step_size_mm,
                max_angle=recipe.max_angle_deg,
                pmf_threshold=recipe.fodf_threshold,
                random_seed=int(rng.integers(10_000, 5_000_000)),
                nbr_threads=1,
            )
        ends = np.array([(line[0], line[-1]) for line in streamlines], dtype=np.float64).reshape(-1, 2, 3)
        voxel = np.rint(apply_affine(inverse, ends))
        kept.append(ends[((voxel >= 0) & (voxel <= last)).all(axis=(1, 2))])
    return np.concatenate(kept)


def _draw_directions(
    fodf: NDArray[np.float64],
    voxels: NDArray[np.int64],
    sphere: Sphere,
    *,
    threshold: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw a direction of the sphere for each seed, in proportion to the fODF of its voxel."""
    amplitude = amplitudes(fodf[tuple(voxels.T)], sphere)
    amplitude = np.where(amplitude >= threshold * amplitude.max(axis=1, keepdims=True), amplitude, 0)
    cumulated = np.cumsum(np.clip(amplitude, 0, None), axis=1)
    chosen = (cumulated < rng.random((len(voxels), 1)) * cumulated[:, -1:]).sum(axis=1)
    return np.asarray(sphere.vertices[chosen], dtype=np.float64)
