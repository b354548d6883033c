"""Connections drawn: on a glass brain, and as a connectogram."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from nilearn.plotting.glass_brain import plot_brain_schematics
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas, Region
from esn_core.errors import ProtocolError
from esn_core.figures.drawing import BLUE, GREY, INK, PALE, VERMILLION, Drawing, draw, style

MOST_EDGES = 120
"""Edges that a figure can hold and still be read; the strongest are drawn."""

_MNI_BOX_MM = np.array([(-76.0, 76.0), (-110.0, 80.0), (-60.0, 90.0)])
_LONGEST_NAME = 26
_CIRCLE_INCH = 7.2
_DASHES = (0, (3, 1.6))


class Connection(Protocol):
    """One connection, as a figure needs it."""

    @property
    def region_a(self) -> str:
        """Name of one end in the atlas."""

    @property
    def region_b(self) -> str:
        """Name of the other end."""

    @property
    def weight(self) -> float:
        """Its sign is drawn as colour, its size as width."""

    @property
    def posterior_sd(self) -> float:
        """Of the weight; 0 where it is known."""


class Connections(Protocol):
    """What is drawn: a severity network, or what drives a prediction."""

    @property
    def edges(self) -> Sequence[Connection]:
        """All of it."""


@dataclass(frozen=True)
class Wording:
    """What a figure's lines mean.

    Attributes
    ----------
    what : str
    negative, positive : str
        What the two colours stand for.

    """

    what: str = "Severity network"
    negative: str = "weaker when severe"
    positive: str = "stronger when severe"


NETWORK = Wording()


class _View(NamedTuple):
    title: str
    direction: str
    across: int
    up: int
    left: str
    right: str


_VIEWS = (
    _View("from the side", "x", 1, 2, "back", "front"),
    _View("from behind", "y", 0, 2, "L", "R"),
    _View("from above", "z", 0, 1, "L", "R"),
)


def glass_brain(
    network: Connections, atlas: Atlas, *, name: str = "brain", words: Wording = NETWORK
) -> Drawing:
    """Draw the network through three orthogonal projections of the brain.

    Parameters
    ----------
    network : Connections
        Its edges name regions of `atlas`.
    atlas : Atlas
        Centroids in mm. The outline of the MNI brain is drawn where all of them lie inside its box.
    name : str
        Prefix of the identifiers in the SVG.
    words : Wording

    Returns
    -------
    Drawing
        In each projection one line per edge, at most `MOST_EDGES`: colour and dashes by sign, width by
        absolute weight, opacity by weight over posterior sd.

    Raises
    ------
    ProtocolError
        An edge names a region that the atlas does not have.

    """
    regions = _regions_by_name(network, atlas)
    edges = _drawn(network)
    in_mni = bool(
        np.all((_MNI_BOX_MM[:, 0] <= atlas.centroids_mm) & (atlas.centroids_mm <= _MNI_BOX_MM[:, 1]))
    )
    strongest = max((abs(edge.weight) for edge in edges), default=0.0) or 1.0
    with style():
        figure = Figure(figsize=(9.2, 3.9))
        spans_mm = [float(np.ptp(_MNI_BOX_MM[view.across])) for view in _VIEWS]
        panels = figure.subplots(1, 3, width_ratios=spans_mm)
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.15, top=0.93, wspace=0.03)
        for axes, view in zip(panels, _VIEWS, strict=True):
            _panel(axes, view, atlas.centroids_mm, outline=in_mni)
            for number, edge in enumerate(edges):
                a_mm, b_mm = (_centroid_mm(regions[end]) for end in (edge.region_a, edge.region_b))
                axes.plot(
                    (a_mm[view.across], b_mm[view.across]),
                    (a_mm[view.up], b_mm[view.up]),
                    gid=f"edge-{view.direction}-{number}",
                    solid_capstyle="round",
                    **_line(edge, strongest),
                )
            ends = sorted({end for edge in edges for end in (edge.region_a, edge.region_b)})
            if ends:
                points_mm = np.array([_centroid_mm(regions[end]) for end in ends])
                axes.scatter(points_mm[:, view.across], points_mm[:, view.up], s=14, color=INK, zorder=4)
        _legend(figure, words)
        note = [
            "The outline is that of the MNI brain, for orientation."
            if in_mni
            else "No outline: the regions do not lie in the MNI brain."
        ]
        if len(edges) < len(network.edges):
            note.append(f"The {len(edges)} strongest of {len(network.edges)} edges are drawn.")
        return draw(figure, name=name, alt=_in_words(network, words), note=" ".join(note))


def connectogram(
    network: Connections, atlas: Atlas, *, name: str = "circle", words: Wording = NETWORK
) -> Drawing:
    """Draw the network between the names of its regions, set in a circle.

    Parameters
    ----------
    network : Connections
        Its edges name regions of `atlas`.
    atlas : Atlas
        Left regions stand on the left, right ones on the right, front at the top, midline ones at the bottom.
    name : str
        Prefix of the identifiers in the SVG.
    words : Wording

    Returns
    -------
    Drawing
        One curve per edge, styled as in `glass_brain`; regions without an edge are grey.

    Raises
    ------
    ProtocolError
        An edge names a region that the atlas does not have.

    """
    _regions_by_name(network, atlas)
    edges = _drawn(network)
    angles = _angles(atlas)
    strongest = max((abs(edge.weight) for edge in edges), default=0.0) or 1.0
    ends = {end for edge in edges for end in (edge.region_a, edge.region_b)}
    with style():
        figure = Figure(figsize=(_CIRCLE_INCH, _CIRCLE_INCH))
        axes = figure.add_axes((0, 0, 1, 1), aspect="equal")
        size = min(8.5, 620 / len(angles))
        shown = {region: _shortened(region) for region in angles}
        # A letter is about 0.6 sizes wide; the circle leaves room for the longest name on every side.
        longest_inch = max(len(short) for short in shown.values()) * 0.6 * size / 72
        half = 1.1 / (1 - longest_inch / (_CIRCLE_INCH / 2))
        axes.set(xlim=(-half, half), ylim=(-half, half))
        axes.set_axis_off()
        for region, angle in angles.items():
            x, y = np.cos(angle), np.sin(angle)
            colour = INK if region in ends else GREY
            axes.plot(x, y, marker="o", markersize=4, color=colour if region in ends else PALE, zorder=4)
            axes.text(
                1.05 * x,
                1.05 * y,
                shown[region],
                rotation=np.degrees(angle) + (180 if x < 0 else 0),
                rotation_mode="anchor",
                ha="right" if x < 0 else "left",
                va="center",
                fontsize=size,
                color=colour,
            )
        for number, edge in enumerate(edges):
            a, b = (
                np.array([np.cos(angles[end]), np.sin(angles[end])]) for end in (edge.region_a, edge.region_b)
            )
            bend = (a + b) * (0.15 + 0.13 * np.linalg.norm(a + b))  # neighbours' curves stay near the rim
            curve = Curve(np.array([a, bend, b]), [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
            line = _line(edge, strongest)
            axes.add_patch(PathPatch(curve, fill=False, gid=f"edge-{number}", capstyle="round", **line))
        for x, word in ((0.02, "left"), (0.98, "right")):
            axes.text(x, 0.98, word, transform=axes.transAxes, color=GREY, ha=word, va="top")
        return draw(figure, name=name, alt=_in_words(network, words))


def _regions_by_name(network: Connections, atlas: Atlas) -> Mapping[str, Region]:
    regions = {region.name: region for region in atlas.regions}
    for end in (end for edge in network.edges for end in (edge.region_a, edge.region_b)):
        if end not in regions:
            raise ProtocolError(f"an edge ends in {end!r}, a region that atlas {atlas.name!r} does not have")
    return regions


def _drawn(network: Connections) -> list[Connection]:
    """Return the strongest edges, the weakest of them first, so that the strongest lie on top."""
    return sorted(network.edges, key=lambda edge: -abs(edge.weight))[:MOST_EDGES][::-1]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _line(edge: Connection, strongest: float) -> dict[str, Any]:
    sure = 1.0 if edge.posterior_sd == 0 else min(abs(edge.weight) / edge.posterior_sd / 3, 1.0)
    return {
        "color": BLUE if edge.weight < 0 else VERMILLION,
        "linestyle": "-" if edge.weight < 0 else _DASHES,
        "linewidth": 0.7 + 3.3 * abs(edge.weight) / strongest,
        "alpha": 0.2 + 0.75 * sure,
        "zorder": 3,
    }


def _centroid_mm(region: Region) -> tuple[float, float, float]:
    return region.x_mm, region.y_mm, region.z_mm


def _panel(axes: Axes, view: _View, centroids_mm: NDArray[np.float64], *, outline: bool) -> None:
    if outline:
        plot_brain_schematics(axes, view.direction, edgecolor="#b4bcc6", linewidth=0.8)
        for patch in axes.patches:
            patch.set_gid(None)  # the outlines repeat their identifiers in each view
        axes.set(xlim=_MNI_BOX_MM[view.across], ylim=(-112, 92) if view.up == 1 else (-78, 96))
    axes.set_aspect("equal", adjustable="datalim" if not outline else "box")
    axes.set_axis_off()
    axes.scatter(centroids_mm[:, view.across], centroids_mm[:, view.up], s=7, color=PALE, zorder=2)
    axes.set_title(view.title, fontsize=10)
    for x, word, side in ((0.02, view.left, "left"), (0.98, view.right, "right")):
        axes.text(x, 0.02, word, transform=axes.transAxes, ha=side, va="bottom", fontsize=9, color=GREY)


def _legend(figure: Figure, words: Wording) -> None:
    weaker = Line2D([], [], color=BLUE, linewidth=2.5, label=words.negative)
    stronger = Line2D([], [], color=VERMILLION, linewidth=2.5, linestyle=_DASHES, label=words.positive)
    figure.legend(handles=[weaker, stronger], loc="lower center", ncols=2, handlelength=3.2)


def _in_words(network: Connections, words: Wording) -> str:
    if not network.edges:
        return f"{words.what}: no edges."
    edges = sorted(network.edges, key=lambda edge: -abs(edge.weight))[:5]
    named = "; ".join(f"{edge.region_a} – {edge.region_b} {_signed(edge.weight)}" for edge in edges)
    return f"{words.what} of {len(network.edges)} edges; the strongest: {named}."


def _angles(atlas: Atlas) -> dict[str, float]:
    """Place left regions on the left half, right ones on the right, front at the top, midline ones below."""
    angles = {}
    midline = [region for region in atlas.regions if region.hemisphere == "M"]
    slot = 2 * np.pi / len(atlas.regions)
    for place, region in enumerate(midline):
        angles[region.name] = 3 * np.pi / 2 + (place - (len(midline) - 1) / 2) * slot
    half = np.pi - len(midline) * slot / 2
    for hemisphere, turn in (("L", 1.0), ("R", -1.0)):
        regions = [region for region in atlas.regions if region.hemisphere == hemisphere]
        regions.sort(key=lambda region: -region.y_mm)
        for place, region in enumerate(regions):
            angles[region.name] = np.pi / 2 + turn * half * (place + 0.8) / (len(regions) + 0.6)
    return angles


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
