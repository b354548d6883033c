"""The exact severity network at the centre: partial correlations, components, and how stable both are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.protocol.analyses import DRAWS_AT_ONCE, NetworkRules
from esn_core.severity_network.bootstrap import bootstrap_r
from esn_core.severity_network.components import Component, network_based
from esn_core.severity_network.exact import ExactNetwork, discovered, exact_network
from esn_core.severity_network.exact_releases import null_moments
from esn_core.transcript.course import Course
from esn_core.transcript.released import Released
from esn_server.study.asking import Ask


@dataclass(frozen=True)
class NetworkFound:
    """The exact network of a study.

    Attributes
    ----------
    edges : (d,) int64
        Index of each candidate among the atlas's edges.
    network : ExactNetwork
        Of the candidates.
    children : int
    components : tuple of Component
        Positions among the candidates; the largest first.
    largest : (draws,) int64
        Edges of the largest component in each draw of the null.
    frequency : (d,) float64 or None
        Share of the bootstrap's draws in which each candidate is retained.
    rules : NetworkRules

    """

    edges: NDArray[np.int64]
    network: ExactNetwork
    children: int
    components: tuple[Component, ...]
    largest: NDArray[np.int64]
    frequency: Floats | None
    rules: NetworkRules


def run_network(course: Course, ask: Ask, rules: NetworkRules) -> NetworkFound:
    """Ask for the exact network, and for the draws that judge it.

    Raises
    ------
    StudyError
        Too few children; or a draw came from other sites than the network did.

    """
    edges = course.protocol.candidates.edges
    ends = course.protocol.atlas.edges[edges]
    base = ask("network")
    exact = course.exact_network
    null = _null(course, ask, base, rules.null_draws)
    components, largest = network_based(exact.t, ends, null, threshold=rules.t_threshold)
    return NetworkFound(
        edges=edges,
        network=exact,
        children=course.moments.children,
        components=components,
        largest=largest,
        frequency=_frequency(course, ask, base, rules.bootstrap_draws),
        rules=rules,
    )


def _null(course: Course, ask: Ask, base: Released, draws: int) -> list[Floats]:
    """Return the t of every edge in each draw of the null."""
    drawn: list[Floats] = []
    for number in range(-(-draws // DRAWS_AT_ONCE)):
        total = _of_the_same(ask("network-null", number), base)
        drawn += [exact_network(draw).t for draw in null_moments(total, course.moments)]
    return drawn[:draws]


def _frequency(course: Course, ask: Ask, base: Released, draws: int) -> Floats | None:
    """Return in which share of the bootstrap's draws each edge is retained; None without draws."""
    if not draws:
        return None
    exact, drawn = course.exact_network, []
    for number in range(-(-draws // DRAWS_AT_ONCE)):
        total = _of_the_same(ask("network-bootstrap", number), base)
        drawn += list(bootstrap_r(total, course.partial, children=course.moments.children))
    return np.asarray(np.mean([_retained(r, exact) for r in drawn[:draws]], axis=0), dtype=np.float64)


def _retained(r: Floats, exact: ExactNetwork) -> NDArray[np.bool_]:
    """Return which edges the false discovery rate retains at other correlations."""
    with np.errstate(divide="ignore"):
        t = r * np.sqrt(exact.freedom / (1 - r**2))
    return discovered(np.where(np.isfinite(exact.r), 2 * stdtr(exact.freedom, -np.abs(t)), np.nan))


def _of_the_same(sums: Released, base: Released) -> Floats:
    """Return a sum of the sites that the network is of."""
    if set(sums.sites) != set(base.sites):
        raise StudyError(
            f"the network is that of {', '.join(base.sites)}; its draws came from {', '.join(sums.sites)}"
        )
    return sums.total
