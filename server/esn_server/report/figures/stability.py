"""The figure of the exact network: how strongly edges go with severity, and how often they are found."""

from matplotlib.figure import Figure

from esn_core.figures.drawing import BLUE, GREY, INK, VERMILLION, Drawing, draw, style
from esn_server.report.analyses import ExactNetworkSummary

OFTEN = 0.8
"""An edge that so many draws retain is called stable: a usual line, and an arbitrary one."""


def stability(found: ExactNetworkSummary) -> Drawing | None:
    """Draw selection frequency against partial correlation, a marker for each candidate.

    Returns
    -------
    Drawing or None
        None where no frequency was asked for.

    """
    known = [
        (e.r, e.frequency, e.retained) for e in found.edges if e.r is not None and e.frequency is not None
    ]
    if not known:
        return None
    with style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(OFTEN, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for words, kept, colour, marker in (
            ("not retained", False, BLUE, "o"),
            ("retained (false discovery rate 5 %)", True, VERMILLION, "s"),
        ):
            chosen = [(r, frequency) for r, frequency, retained in known if retained is kept]
            axes.scatter(
                [r for r, _ in chosen],
                [frequency for _, frequency in chosen],
                s=14,
                facecolors=colour if kept else "none",
                edgecolors=colour,
                linewidths=0.8,
                marker=marker,
                label=f"{words}: {len(chosen)}",
            )
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("partial correlation with GASE, given age, sex and site", color=INK)
        axes.set_ylabel(f"share of {found.bootstrap_draws} draws that retain it", color=INK)
        axes.legend(loc="center left", bbox_to_anchor=(0, 1.06), ncols=2, fontsize=8)
    often = stable_edges(found)
    return draw(
        figure,
        name="stability",
        alt=(
            f"Selection frequency against partial correlation of {len(known)} candidate connections: "
            f"{found.retained} retained, {often} in {OFTEN:.0%} of the draws or more."
        ),
    )


def stable_edges(found: ExactNetworkSummary) -> int:
    """Return how many connections are retained in most draws."""
    return sum(e.frequency is not None and e.frequency >= OFTEN for e in found.edges)
