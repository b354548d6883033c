"""A drawing: one SVG figure of the report with the words that stand for it."""

import html
import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe & Ito 2008: told apart with any common colour vision, and in print by lightness.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
INK = "#1f2933"
GREY = "#6b7785"
PALE = "#d5dae0"


def style() -> AbstractContextManager[None]:
    """Set how figures look; each is built and rendered inside ``with style():``."""
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and copied
            "svg.hashsalt": "esn",  # the same result gives the same bytes
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "text.parse_math": False,  # a region's name may hold a dollar sign
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
        }
    )


@dataclass(frozen=True)
class Drawing:
    """A figure for the page.

    Attributes
    ----------
    svg : str
        One ``<svg>`` element for use inside HTML: no prolog, no metadata, no address of another file.
    alt : str
        What the figure shows, for those who cannot see it.
    note : str
        What was left out of the figure or must be known to read it; may be empty.

    """

    svg: str
    alt: str
    note: str


def draw(figure: Figure, *, name: str, alt: str, note: str = "") -> Drawing:
    """Render a figure.

    Parameters
    ----------
    figure : Figure
        Built without pyplot.
    name : str
        Letters and hyphens; it makes the identifiers unique among the figures of one page.
    alt, note : str
        See `Drawing`.

    Returns
    -------
    Drawing

    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL
    )  # it names every element
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # HTML knows both namespaces
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    label = f'<svg class="figure" role="img" aria-label="{html.escape(alt)}"'
    return Drawing(svg=text.replace("<svg", label, 1).strip(), alt=alt, note=note)
