"""The exact severity network at the centre: partial correlations, components, and how stable both are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from esn_core.arrays import Floats
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import StudyError
from esn_core.protocol.analyses import DRAWS_AT_ONCE, NetworkRules
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.bootstrap import Partial, bootstrap_r, network_bootstrap
from esn_core.severity_network.components import Component, network_based
from esn_core.severity_network.exact import ExactNetwork, Moments, discovered, exact_network
from esn_core.severity_network.exact_releases import moments_of, network, network_null, null_moments
from esn_server.study.asking import Ask, Pooled


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


def run_network(protocol: Protocol, ask: Ask, rules: NetworkRules) -> NetworkFound:
    """Ask for the exact network, and for the draws that judge it.

    Raises
    ------
    StudyError
        Too few children; or a draw came from other sites than the network did.

    """
    edges = protocol.candidates.edges
    ends = load_atlas(protocol.imaging.atlas).edges[edges]
    pooled, _ = ask("network", network(len(edges)), 0, {})
    found = moments_of(pooled.total, edges=len(edges), sites=len(pooled.sites))
    exact = exact_network(found)
    null = _null(ask, found, pooled, rules.null_draws)
    components, largest = network_based(exact.t, ends, null, threshold=rules.t_threshold)
    return NetworkFound(
        edges=edges,
        network=exact,
        children=found.children,
        components=components,
        largest=largest,
        frequency=_frequency(ask, found, exact, pooled, rules.bootstrap_draws),
        rules=rules,
    )


def _null(ask: Ask, found: Moments, base: Pooled, draws: int) -> list[Floats]:
    """Return the t of every edge in each draw of the null."""
    kind = network_null(len(found.squares), DRAWS_AT_ONCE)
    drawn: list[Floats] = []
    for number in range(-(-draws // DRAWS_AT_ONCE)):
        total = _of_the_same(ask("network-null", kind, number, {})[0], base)
        drawn += [exact_network(draw).t for draw in null_moments(total, found)]
    return drawn[:draws]


def _frequency(ask: Ask, found: Moments, exact: ExactNetwork, base: Pooled, draws: int) -> Floats | None:
    """Return in which share of the bootstrap's draws each edge is retained; None without draws."""
    if not draws:
        return None
    partial = Partial.of(found, exact.r)
    kind = network_bootstrap(len(found.squares), DRAWS_AT_ONCE)
    drawn: list[Floats] = []
    for number in range(-(-draws // DRAWS_AT_ONCE)):
        pooled, _ = ask("network-bootstrap", kind, number, {"partial": partial.vector})
        drawn += list(bootstrap_r(_of_the_same(pooled, base), partial, children=found.children))
    return np.asarray(np.mean([_retained(r, exact) for r in drawn[:draws]], axis=0), dtype=np.float64)


def _retained(r: Floats, exact: ExactNetwork) -> NDArray[np.bool_]:
    """Return which edges the false discovery rate retains at other correlations."""
    with np.errstate(divide="ignore"):
        t = r * np.sqrt(exact.freedom / (1 - r**2))
    return discovered(np.where(np.isfinite(exact.r), 2 * student.sf(np.abs(t), exact.freedom), np.nan))


def _of_the_same(pooled: Pooled, base: Pooled) -> Floats:
    """Return a sum of the sites that the network is of."""
    if set(pooled.sites) != set(base.sites):
        raise StudyError(
            f"the network is that of {', '.join(base.sites)}; its draws came from {', '.join(pooled.sites)}"
        )
    return pooled.total
