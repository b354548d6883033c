"""The gradient table put to the test: fibres run on from voxel to voxel under the right one only."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.fibres.table_faults import cause_of, words_of_change
from esn_client.imaging.fibres.tensor import dipy_table
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.table_files import Convention, flip_of
from esn_core.arrays import Floats
from esn_core.errors import DataError

LEAST_FA = 0.35
LEAST_PAIRS = 300
MOST_VOXELS = 30_000
"""The most anisotropic voxels suffice, and keep the test within a second or two."""
COSINE_POWER = 4
"""How sharply fibres must point along the line between neighbours, which lie 45 or 55 degrees apart."""
SURE_MARGIN = 0.03
"""A table is called wrong if another one has this share more coherence, and surely so."""
SURE_ERRORS = 3.0
"""And if that is so many standard errors: of 23 other tables, chance favours one by two of them."""
MOST_GROUPS = 8
"""Parts of the table that are left out in turn to learn how much hangs on each."""
LEAST_LEFT = 8
"""Directions that must be left for a tensor, which has six numbers, to be more than an interpolation."""


@dataclass(frozen=True)
class GradientCheck:
    """How well fibres run on from voxel to voxel under each table.

    Attributes
    ----------
    coherence : dict of str to float
        By variant: the mean over neighbouring voxels of how far both fibres point along the line that joins
        them, from 0 to 1.
    margin : float
        Coherence of the table as read over that of the best other one, less 1, plain or beside chance, by
        whichever is less. Below 0 another one is better, but not surely.
    pairs : int
        Of neighbours that were compared.
    doubt : str
        In words, where another table seems better and the scan is too poor to tell; else empty.

    """

    coherence: dict[str, float]
    margin: float
    pairs: int
    doubt: str = ""


def check_gradient_table(
    signal: NDArray[np.float32],
    gradients: Gradients,
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    *,
    convention: Convention = "fsl",
) -> GradientCheck:
    """Compare a gradient table with those that have axes exchanged or negated, and refuse a wrong one.

    Under the right table the principal directions of neighbouring voxels run along each other (the fibre
    coherence index of Schilling et al. 2019, Magn Reson Imaging 58:62; the idea of Jeurissen et al. 2014,
    Med Image Anal 18:953, without tracking). If a table's vectors change by an orthogonal matrix, so do the
    tensors fitted with it: one fit serves all 24 variants.

    Tensors of few or badly spread directions lean towards the table, all over the brain alike, and the more
    so the thicker the slices: then the number of voxels makes nothing sure. Where another table seems better,
    the directions are left out in parts, in turn, and the jackknife's standard error of the logarithm of the
    ratio (Efron & Tibshirani 1993, chapter 11) decides whether that is known.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
    mask : (X, Y, Z) bool
        The brain.
    affine : (4, 4) float64
        Voxels to mm, RAS+.
    convention : Convention
        By which the table was read, for the message.

    Returns
    -------
    GradientCheck

    Raises
    ------
    DataError
        Another table is surely better; or too few anisotropic voxels lie beside each other to tell.

    """
    directions = _principal_directions(signal, gradients, mask)
    size_mm = np.linalg.norm(affine[:3, :3], axis=0)
    coherence, ratios, pairs = _compare(directions, size_mm)
    if pairs < LEAST_PAIRS:
        raise DataError(
            f"the gradient table cannot be tested: {pairs} pairs of neighbours have FA >= {LEAST_FA:g}; "
            f"{LEAST_PAIRS} or more are needed"
        )
    # By FSL's rule x is negated in the file where the affine's determinant is positive.
    flip = flip_of(affine) if convention == "fsl" else np.eye(3)
    names = [
        words_of_change(np.rint(flip @ variant @ flip).astype(np.int64), convention) for variant in variants()
    ]
    best = 1 + int(np.argmax(ratios.min(axis=0)[1:]))
    ratio = float(ratios.min(axis=0)[best])
    seeming = 1 + int(np.argmax(ratios.max(axis=0)[1:]))
    most = float(ratios.max(axis=0)[seeming])
    doubt = ""
    if ratio > 1 + SURE_MARGIN:
        better = f"fibres run on from voxel to voxel {ratio:.2f} times as well with {names[best]}"
        better += cause_of(variants()[best], affine, convention)
        error = _standard_error(signal, gradients, directions, size_mm, best)
        if np.log(ratio) > SURE_ERRORS * error:
            raise DataError(f"the b-vectors do not fit the image: {better}")
        doubt = (
            f"the b-vectors could not be tested: {better}; but {(~gradients.is_b0).sum()} directions as "
            f"these leave a standard error of {error:.0%}, and {SURE_ERRORS:g} of them are needed: look at "
            "the colours of the main fibre direction"
        )
    elif most > 1 + SURE_MARGIN:
        voxel = " x ".join(f"{side:.1f}" for side in size_mm)
        doubt = (
            f"the b-vectors could not be tested: in voxels of {voxel} mm fibres seem to run on {most:.2f} "
            f"times as well with {names[seeming]} by one measure, and not by the other: look at the "
            "colours of the main fibre direction"
        )
    return GradientCheck(dict(zip(names, coherence.tolist(), strict=True)), 1 / most - 1, pairs, doubt)


def variants() -> list[Floats]:
    """Give the 24 ways to exchange and negate axes, up to a sign of all; the first changes nothing."""
    signs = [np.diag([1.0, *rest]) for rest in product((1.0, -1.0), repeat=2)]
    return [np.eye(3)[list(order)] @ sign for order in permutations(range(3)) for sign in signs]


def _principal_directions(
    signal: NDArray[np.float32], gradients: Gradients, mask: NDArray[np.bool_]
) -> Floats:
    """Give the (X, Y, Z, 3) principal directions of the most anisotropic voxels, 0 elsewhere."""
    values, vectors = _fit(signal[mask], gradients, brightest=float(signal.max()))
    from dipy.reconst.dti import fractional_anisotropy

    fa = np.nan_to_num(fractional_anisotropy(np.clip(values, 0, None)))
    # FA near 1 is noise at the rim of the brain, or air.
    good = (fa >= LEAST_FA) & (fa < 0.95) & (values[:, 2] > 0)
    if good.sum() > MOST_VOXELS:
        good &= fa >= np.partition(fa[good], -MOST_VOXELS)[-MOST_VOXELS]
    directions = np.zeros((*mask.shape, 3))
    directions[mask] = np.where(good[:, None], vectors[..., :, 0], 0.0)
    return directions


def _fit(voxels: NDArray[np.float32], gradients: Gradients, *, brightest: float) -> tuple[Floats, Floats]:
    """Fit tensors to (n, V) voxels; give their (n, 3) eigenvalues, descending, and (n, 3, 3) eigenvectors."""
    from dipy.reconst.dti import TensorModel

    fit = TensorModel(dipy_table(gradients), fit_method="OLS").fit(
        np.maximum(voxels, 1e-3 * brightest).astype(np.float64)
    )
    return fit.evals, fit.evecs


def _compare(directions: Floats, size_mm: Floats) -> tuple[Floats, Floats, int]:
    """Give the (24,) coherence under each variant, the (2, 24) ratios to the table's own, and the pairs.

    The first ratios are plain; the second are of coherence beside chance, which is what it would be if each
    voxel's neighbours, on all sides, had its own direction. In voxels that are no cubes some directions have
    more lines near them than others, and a variant that turns fibres there gains by it; a brain has its
    fibres somewhere, too, and chance may take too much of that away. In cubes chance is the same for all.
    """
    first, second, lines = _neighbours(directions, size_mm)
    found = []
    for variant in variants():
        along = (np.abs(np.sum((ends @ variant.T) * lines, axis=1)) for ends in (first, second))
        found.append(float(np.mean(np.prod([a**COSINE_POWER for a in along], axis=0))) if len(first) else 0.0)
    coherence, chance = np.array(found), _chance(directions, size_mm)
    plain = coherence / max(coherence[0], 1e-12)
    return coherence, np.stack([plain, plain * chance[0] / np.maximum(chance, 1e-12)]), len(first)


def _chance(directions: Floats, size_mm: Floats) -> Floats:
    """Give the (24,) mean over voxels, and lines to all neighbours, of the coherence with its like."""
    lines = np.array([offset for offset in product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]) * size_mm
    lines = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    used = directions[np.any(directions, axis=3)]
    return np.array(
        [
            np.mean(np.abs(used @ variant.T @ lines.T) ** (2 * COSINE_POWER)) if len(used) else 1.0
            for variant in variants()
        ]
    )


def _standard_error(
    signal: NDArray[np.float32], gradients: Gradients, directions: Floats, size_mm: Floats, best: int
) -> float:
    """Give the jackknife's standard error of the log ratio of a variant's coherence to the table's own.

    Infinite where the table is too short to leave anything out.
    """
    weighted = np.flatnonzero(~gradients.is_b0)
    groups = min(MOST_GROUPS, len(weighted))
    if len(weighted) - -(-len(weighted) // groups) < LEAST_LEFT:
        return float("inf")
    used = np.asarray(np.any(directions, axis=3))
    voxels, brightest = signal[used], float(signal.max())
    ratios = []
    for group in range(groups):
        kept = np.setdiff1d(np.arange(len(gradients.is_b0)), weighted[group::groups])
        part = Gradients(gradients.b_values_s_per_mm2[kept], gradients.directions[kept])
        again = np.zeros_like(directions)
        again[used] = _fit(voxels[:, kept], part, brightest=brightest)[1][..., :, 0]
        found = _compare(again, size_mm)[1].min(axis=0)
        ratios.append(np.log(found[best]))
    away = np.array(ratios) - np.mean(ratios)
    return float(np.sqrt((groups - 1) / groups * np.sum(away**2)))


def _neighbours(directions: Floats, size_mm: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the directions in both voxels of each pair of neighbours, and that of the line between them."""
    used = np.asarray(np.any(directions, axis=3))
    parts = []
    for offset in product((-1, 0, 1), repeat=3):
        if offset <= (0, 0, 0):
            continue  # each pair once
        here = tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, used.shape, strict=True))
        there = tuple(slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, used.shape, strict=True))
        both = used[here] & used[there]
        line = np.array(offset) * size_mm
        parts.append(
            (
                directions[here][both],
                directions[there][both],
                np.broadcast_to(line / np.linalg.norm(line), (int(both.sum()), 3)),
            )
        )
    first, second, lines = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first, second, lines
