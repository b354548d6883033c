"""The forest of sites: each site's held-out children, predicted by a pipeline that never saw the site."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from scipy.special import chdtrc

from esn_core.figures.drawing import BLUE, GREY, INK, Drawing, draw, style
from esn_server.report.analyses import CrossSite
from esn_server.report.verdict import likely_r
from esn_server.report.wording import chance, fixed, interval

_ROW_INCHES = 0.32
_FEWEST = 4
"""Children of whom Fisher's z has a variance, 1 / (n - 3)."""


@dataclass(frozen=True)
class Heterogeneity:
    """How much more the sites' correlations differ than children drawn from one population would.

    Attributes
    ----------
    q : float
        Cochran's Q of Fisher's z.
    freedom : int
    p : float
    share : float
        I², the share of the variance between sites that chance does not explain, 0 to 1.

    """

    q: float
    freedom: int
    p: float
    share: float

    @property
    def in_words(self) -> str:
        """As a reader of forests expects it."""
        return (
            f"Heterogeneity between sites: Q {fixed(self.q, 1)} on {self.freedom} degrees of freedom, p "
            f"{chance(self.p)}, I² {100 * self.share:.0f} %."
        )


def heterogeneity(cross_site: CrossSite) -> Heterogeneity | None:
    """Compare the sites' correlations; None where fewer than two have one.

    Higgins & Thompson 2002 (doi 10.1002/sim.1186), equations 1 and 10, of Fisher's z with weights n - 3.
    """
    known = [
        (site.children - 3, np.arctanh(site.r))
        for site in cross_site.by_site
        if site.r is not None and abs(site.r) < 1 and site.children >= _FEWEST
    ]
    if len(known) < 2:
        return None
    weight, z = np.array(known).T
    q = float(np.sum(weight * (z - np.average(z, weights=weight)) ** 2))
    freedom = len(known) - 1
    return Heterogeneity(q, freedom, float(chdtrc(freedom, q)), max(0.0, 1 - freedom / q) if q > 0 else 0.0)


def forest(cross_site: CrossSite, *, name: str = "forest") -> Drawing:
    """Draw the sites one below the other, and all of them together as a diamond.

    Parameters
    ----------
    cross_site : CrossSite
        With an entry of every site, as studies without noise have it.
    name : str
        Makes the identifiers unique on a page.

    """
    sites, together = cross_site.by_site, likely_r(cross_site.together)
    most = max(site.children for site in sites)
    with style():
        figure = Figure(figsize=(7.4, 1.1 + _ROW_INCHES * (len(sites) + 1)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        said = []
        for row, site in enumerate(sites):
            found = likely_r(site)
            words = "undefined"
            if found is not None:
                words = f"{fixed(found.value, 2)} ({interval(found.interval, 2)})"
                axes.plot(found.interval, (row, row), color=BLUE, linewidth=1.6, solid_capstyle="butt")
                size = 3 + 7 * float(np.sqrt(max(site.children, 0) / most))
                axes.plot([found.value], [row], marker="s", color=BLUE, markersize=size)
            said.append((f"{site.site}, {site.children:.0f} children", words))
        row, words = len(sites), "undefined"
        if together is not None:
            low, high = together.interval
            corners = [(low, row), (together.value, row - 0.28), (high, row), (together.value, row + 0.28)]
            axes.add_patch(Polygon(corners, closed=True, color=INK))
            words = f"{fixed(together.value, 2)} ({interval(together.interval, 2)})"
        said.append((f"all, {cross_site.together.children:.0f} children", words))
        axes.set_yticks(range(len(said)), [label for label, _ in said])
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(said)), [words for _, words in said])
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        axes.set_ylim(len(sites) + 0.6, -0.6)
        axes.set_xlim(-1, 1)
        axes.set_xlabel("r of predicted and clinical GASE, 95 % interval", color=INK)
        axes.tick_params(axis="y", length=0)
        differ = heterogeneity(cross_site)
        alt = "; ".join(f"{label}: {words}" for label, words in said)
        return draw(
            figure,
            name=name,
            alt=f"Each site predicted without it. {alt}.",
            note="" if differ is None else differ.in_words,
        )
