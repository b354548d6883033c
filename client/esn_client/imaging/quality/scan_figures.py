"""Figures of how a scan was made and aligned: gradient directions, and the head's path."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.rigid import shift_of, turn_of
from esn_client.imaging.quality.figures import (
    BLUE,
    DOTS_PER_INCH,
    GREY,
    INK,
    ORANGE,
    WIDTH_IN,
    Drawing,
    label_axes,
    to_png,
)
from esn_core.arrays import Floats

GREEN = "#009e73"


def draw_directions(scanned: Floats, turned: Floats, affine: Floats) -> Drawing:
    """Draw gradient directions on a sphere seen from above, as they were scanned and turned with the head.

    Opposite directions are the same: each is drawn on the upper half, by Lambert's projection, which keeps
    areas:
    directions that cover the sphere evenly cover the disc evenly.

    Parameters
    ----------
    scanned, turned : (V, 3) float64
        Along the voxel axes; rows of zeros are left out.
    affine : (4, 4) float64

    """
    figure = Figure(figsize=(WIDTH_IN, 4.2), dpi=DOTS_PER_INCH, layout="constrained")
    left, right = figure.subplots(1, 2)
    weighted = np.linalg.norm(scanned, axis=1) > 0
    before, after = (_from_above(directions[weighted], affine) for directions in (scanned, turned))
    for axes, title in ((left, "as scanned"), (right, "turned with the head")):
        axes.add_patch(Circle((0, 0), 1.0, fill=False, color=GREY, linewidth=1))
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(title, fontsize=9)
        axes.set_xlim(-1.25, 1.25)
        axes.set_ylim(-1.2, 1.2)
        for x, y, name in ((-1.12, 0, "L"), (1.12, 0, "R"), (0, 1.1, "A"), (0, -1.1, "P")):
            axes.text(x, y, name, ha="center", va="center", color=INK, fontsize=9, weight="bold")
    left.scatter(*before.T, s=22, color=BLUE)
    right.scatter(*before.T, s=26, facecolors="none", edgecolors=GREY, linewidths=0.9, label="as scanned")
    right.scatter(*after.T, s=16, color=BLUE, label="turned")
    right.legend(loc="lower right", fontsize=8, frameon=False)
    cosine = np.clip(np.abs((scanned[weighted] * turned[weighted]).sum(axis=1)), 0, 1)
    most = float(np.degrees(np.arccos(cosine)).max())
    return to_png(
        figure,
        f"{int(weighted.sum())} gradient directions seen from above; the head's turns change them by up to "
        f"{most:.1f} "
        "degrees.",
    )


def draw_path(
    transforms: Floats, mask: NDArray[np.bool_], affine: Floats, is_b0: NDArray[np.bool_]
) -> Drawing:
    """Draw where each volume had to be taken from: shift of the brain's centre, and turn, apart.

    Parameters
    ----------
    transforms : (V, 4, 4) float64
        From a point of the still head to where it was.
    mask : (X, Y, Z) bool
        The brain.
    affine : (4, 4) float64
    is_b0 : (V,) bool

    """
    centre_mm = np.argwhere(mask).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    shift = np.array([shift_of(one, centre_mm) for one in transforms])
    turn = np.degrees([turn_of(one) for one in transforms])
    figure = Figure(figsize=(WIDTH_IN, 4.0), dpi=DOTS_PER_INCH, layout="constrained")
    axes_of = figure.subplots(2, 1, sharex=True)
    kinds = (
        (axes_of[0], shift, ("to the right", "forwards", "upwards"), "shift, mm"),
        (axes_of[1], turn, ("nod (about x)", "tilt (about y)", "turn (about z)"), "turn, degrees"),
    )
    for axes, values, words, unit in kinds:
        for column, (name, colour) in enumerate(zip(words, (ORANGE, GREEN, BLUE), strict=True)):
            axes.plot(values[:, column], color=colour, linewidth=1.2, label=name)
        for volume in np.flatnonzero(is_b0):
            axes.axvline(volume, color="#d5dae0", linewidth=1, zorder=0)
        label_axes(axes, "volume (grey lines: without weighting)" if axes is axes_of[1] else "", unit)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return to_png(
        figure,
        f"Shifts and turns of {len(transforms)} volumes: at most {np.abs(shift).max():.2f} mm along an "
        "axis and "
        f"{np.abs(turn).max():.2f} degrees about one.",
    )


def _from_above(directions: Floats, affine: Floats) -> Floats:
    """Project unit vectors of the upper half sphere to the unit disc, (n, 2): right and front."""
    world = directions @ (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).T
    world = world * np.where(world[:, 2:] < 0, -1.0, 1.0)
    return np.asarray(world[:, :2] / np.sqrt(1 + np.abs(world[:, 2:])), dtype=np.float64)
