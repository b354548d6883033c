"""Figures of a quality page: what was seen, found and joined, drawn from the stages of one subject."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.displacement import Displacement
from esn_client.imaging.quality.planes import Planes
from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas

INK, BLUE, ORANGE, GREY = "#1f2933", "#0072b2", "#d55e00", "#7b8794"
DOTS_PER_INCH = 110
WIDTH_IN = 11.0
COMPRESSION = 1
"""Of 9: at 6, which is usual, a picture takes a fifth to 70 % more time, and a ninth less room."""
FONT: dict[str, Any] = {"family": "DejaVu Sans", "size": 9}


@dataclass(frozen=True)
class Drawing:
    """A figure as a page holds it.

    Attributes
    ----------
    source : str
        ``data:`` address of the picture; no other file is needed.
    alternative : str
        What it shows, for those who cannot see it.
    width, height : int
        In pixels.

    """

    source: str
    alternative: str
    width: int
    height: int


def draw_planes(
    planes: Planes,
    picture: Floats,
    *,
    alternative: str,
    outline: Floats | None = None,
    hatched: Floats | None = None,
    colours: str = "gray",
    limits: tuple[float, float] = (0.0, 1.0),
    bar: str | None = None,
) -> Drawing:
    """Draw planes of a volume, with left and right marked.

    Parameters
    ----------
    planes : Planes
    picture : (h, w) or (h, w, 3) float64
        As `Planes.image` gives it.
    alternative : str
    outline : (h, w) float64, optional
        The cut of a mask whose edge is drawn.
    hatched : (h, w) float64, optional
        The cut of a mask that is marked: what is no tissue.
    colours : str
        Of matplotlib; unused for a picture in colour.
    limits : tuple of float
        Values of the darkest and the brightest colour.
    bar : str, optional
        Title of a scale of colours.

    """
    height, width = picture.shape[:2]
    foot_in = 0.7 if bar else 0.0
    figure = Figure(
        figsize=(WIDTH_IN, WIDTH_IN * height / width + foot_in), dpi=DOTS_PER_INCH, facecolor="black"
    )
    size = figure.get_size_inches()
    axes = figure.add_axes((0, foot_in / size[1], 1, 1 - foot_in / size[1]))
    axes.set_axis_off()
    norm = Normalize(*limits, clip=True)
    shown = axes.imshow(
        np.clip(picture, 0, 1) if picture.ndim == 3 else picture,
        cmap=colours,
        norm=None if picture.ndim == 3 else norm,
        interpolation="nearest",
    )
    if outline is not None:
        axes.contour(outline, levels=[0.5], colors="#ff9e1b", linewidths=0.9)
    if hatched is not None and hatched.max() > 0.5:
        axes.contour(hatched, levels=[0.5], colors="#56b4e9", linewidths=0.7)
    tile_h, tile_w = planes.voxels.shape[2:4]

    def mark(left: int, top: int, name: str) -> None:
        axes.text(left + tile_w / 2, top + tile_h - 4, name, color="white", ha="center", va="bottom", **FONT)
        first, second = ("A", "P") if name.startswith("sagittal") else ("L", "R")
        middle = top + tile_h / 2
        axes.text(left + 3, middle, first, color="#ffd166", weight="bold", ha="left", va="center", **FONT)
        axes.text(
            left + tile_w - 3, middle, second, color="#ffd166", weight="bold", ha="right", va="center", **FONT
        )

    planes.each(mark)
    for column in range(1, picture.shape[1] // tile_w):
        axes.axvline(column * tile_w - 0.5, color="#52606d", linewidth=0.8)
    for row in range(1, picture.shape[0] // tile_h):
        axes.axhline(row * tile_h - 0.5, color="#52606d", linewidth=0.8)
    if bar:
        scale = figure.add_axes((0.3, 0.34 / size[1], 0.4, 0.1 / size[1]))
        figure.colorbar(shown, cax=scale, orientation="horizontal")
        scale.tick_params(colors="white", labelsize=8, length=2, pad=1)
        scale.set_title(bar, color="white", pad=2, fontsize=9)
    return to_png(figure, alternative)


def region_colours(atlas: Atlas) -> Floats:
    """Give each region a colour: cool ones left, warm ones right, grey ones between, so that a swap is seen.

    Returns
    -------
    (R + 1, 3) float64
        By position in the atlas plus one; black for no region.

    """
    colours = np.full((len(atlas.regions) + 1, 3), 0.7)
    colours[0] = 0.0
    for side, (low, high) in {"L": (0.42, 0.78), "R": (-0.08, 0.2)}.items():
        places = [place for place, region in enumerate(atlas.regions) if region.hemisphere == side]
        hues = low + (high - low) * ((np.arange(len(places)) * 0.618034) % 1.0)
        value = 0.75 + 0.25 * ((np.arange(len(places)) * 0.381966) % 1.0)
        hsv = np.column_stack([hues % 1.0, np.full(len(places), 0.85), value])
        colours[np.array(places, dtype=int) + 1] = hsv_to_rgb(hsv)
    return colours


def overlay_regions(planes: Planes, background: Floats, regions: NDArray[np.int64], atlas: Atlas) -> Floats:
    """Lay an atlas's regions over a picture.

    Parameters
    ----------
    planes : Planes
    background : (X, Y, Z) float64
        From 0 to 1.
    regions : (X, Y, Z) int64
        Position of the region in the atlas, or -1.
    atlas : Atlas

    Returns
    -------
    (h, w, 3) float64

    """
    grey = planes.image(background, order=1)[..., None]
    # Outside of the volume is 0: no region.
    place = planes.image(regions + 1, order=0).astype(np.int64)
    tint = region_colours(atlas)[place]
    return np.asarray(np.where(place[..., None] > 0, 0.45 * grey + 0.55 * tint, grey))


def draw_motion(displacement: Displacement, is_b0: NDArray[np.bool_], *, limit_mm: float) -> Drawing:
    """Draw the head's displacement, the mean above which to look, and what eddy currents added."""
    displacement_mm, eddy_mm = displacement.head_mm, displacement.eddy_mm
    figure = Figure(figsize=(WIDTH_IN, 2.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    volumes = np.arange(len(displacement_mm))
    axes.plot(volumes, displacement_mm, color=BLUE, linewidth=1.3, label="head, from the volume before")
    axes.plot(volumes, eddy_mm, color=GREY, linewidth=0.9, label="shift by eddy currents")
    axes.plot(
        volumes[is_b0], displacement_mm[is_b0], "o", color=INK, markersize=4, label="volume without weighting"
    )
    axes.axhline(
        limit_mm, color=ORANGE, linestyle="--", linewidth=1.2, label=f"limit of the mean: {limit_mm:g} mm"
    )
    axes.set_ylim(0, max(1.15 * float(max(displacement_mm.max(), eddy_mm.max())), 1.2 * limit_mm))
    label_axes(axes, "volume", "displacement, mm")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return to_png(
        figure,
        f"Framewise displacement over {len(volumes)} volumes: mean {displacement_mm.mean():.2f} mm, largest "
        f"{displacement_mm.max():.2f} mm; eddy currents shift a volume by up to {eddy_mm.max():.2f} mm.",
    )


def draw_residuals(residual: Floats, *, limit: float) -> Drawing:
    """Draw how far each slice of each volume is from the tensor's prediction.

    Parameters
    ----------
    residual : (V, S) float64
        Mean absolute residual in the brain, in shares of the signal; NaN where a slice has no brain.
    limit : float
        Value of the brightest colour.

    """
    figure = Figure(figsize=(WIDTH_IN, 2.8), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(residual.T, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=limit)
    axes.set_facecolor("#d5dae0")
    label_axes(axes, "volume", "slice, as stored")
    scale = figure.colorbar(shown, ax=axes, pad=0.01)
    scale.set_label("share of the signal", fontsize=9)
    scale.ax.tick_params(labelsize=8)
    return to_png(
        figure,
        f"Tensor residual by slice and volume; the largest is {np.nanmax(residual):.2f} of the signal.",
    )


def draw_connectome(counts: Floats, atlas: Atlas, absent: NDArray[np.bool_]) -> Drawing:
    """Draw a matrix of streamline counts, left hemisphere first, each row with its region's name.

    Parameters
    ----------
    counts : (R, R) float64
    atlas : Atlas
    absent : (R,) bool
        Regions without tissue: their edges are not known.

    """
    sides = {"L": "left hemisphere", "R": "right hemisphere", "M": "middle"}
    order = sorted(
        range(len(atlas.regions)),
        key=lambda r: ("LRM".index(atlas.regions[r].hemisphere), atlas.regions[r].module, r),
    )
    names = [f"{atlas.regions[r].name}{' (no tissue)' if absent[r] else ''}" for r in order]
    small = max(3.5, min(8.0, 480 / len(order)))
    # The room that names take is known: a layout that measures each of them takes seconds.
    room_in = 0.1 + max(map(len, names)) * 0.62 * small / 72
    side_in = WIDTH_IN - room_in - 1.1
    height_in = side_in + room_in + 0.35
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=1.3 * DOTS_PER_INCH)
    place = (room_in / WIDTH_IN, room_in / height_in, side_in / WIDTH_IN, side_in / height_in)
    axes = figure.add_axes(place)
    matrix = np.log10(1 + counts[np.ix_(order, order)])
    away = (absent[:, None] | absent)[np.ix_(order, order)]
    axes.set_facecolor("#eef1f4")
    shown = axes.imshow(
        np.where((matrix > 0) & ~away, matrix, np.nan), cmap="viridis", vmin=0, interpolation="nearest"
    )
    axes.imshow(np.where(away, 1.0, np.nan), cmap="Oranges", vmin=0, vmax=2.5, interpolation="nearest")
    border = 0
    for side, name in sides.items():
        size = sum(region.hemisphere == side for region in atlas.regions)
        if size:
            # A few rows have no room for a word.
            if size > len(order) / 10:
                axes.text(border + (size - 1) / 2, -1.2, name, ha="center", va="bottom", fontsize=9)
            border += size
            for line in (axes.axhline, axes.axvline):
                line(border - 0.5, color=ORANGE, linewidth=1)
    axes.set_xticks(range(len(order)), names, rotation=90, fontsize=small)
    axes.set_yticks(range(len(order)), names, fontsize=small)
    axes.tick_params(length=0, pad=1)
    beside = (
        (room_in + side_in + 0.12) / WIDTH_IN,
        place[1] + 0.2 * place[3],
        0.2 / WIDTH_IN,
        0.6 * place[3],
    )
    scale = figure.colorbar(shown, cax=figure.add_axes(beside))
    ticks = [t for t in (0, 1, 2, 3, 4, 5) if t <= matrix.max()]
    scale.set_ticks(ticks, labels=[f"{10**t - 1:,}" for t in ticks])
    scale.set_label("streamlines", fontsize=9)
    joined = int(np.count_nonzero(np.triu(counts, k=1)))
    known = int((~absent).sum())
    missing = f"; the edges of {int(absent.sum())} regions without tissue are missing" if absent.any() else ""
    return to_png(
        figure,
        f"Matrix of {len(order)} regions; {joined} of {known * (known - 1) // 2} pairs are joined by "
        f"streamlines{missing}.",
    )


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Name both axes, and leave out the frame's far sides."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def to_png(figure: Figure, alternative: str) -> Drawing:
    """Turn a figure into what a page holds."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(
        content,
        format="png",
        facecolor=figure.get_facecolor(),
        metadata={"Software": None},
        pil_kwargs={"compress_level": COMPRESSION},
    )
    width, height = (round(float(side) * figure.dpi) for side in figure.get_size_inches())
    return Drawing(
        "data:image/png;base64," + base64.b64encode(content.getvalue()).decode(), alternative, width, height
    )
