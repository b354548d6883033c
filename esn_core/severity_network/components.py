"""The network-based statistic: connected components of edges that go with severity, and their chance.

Zalesky, Fornito & Bullmore 2010 (NeuroImage 53:1197): edges whose t is beyond a threshold are joined into
components by the regions that they share; a component is judged by how often the largest one of the null is
as large. The threshold is chosen before anybody looks, and error is controlled for components, not for edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Component:
    """Edges that hang together.

    Attributes
    ----------
    edges : (m,) int64
        Positions among the edges that were tested, increasing.
    regions : int
        How many regions they join.
    p : float or None
        Share of draws of the null whose largest component has as many edges, the observed one counted in;
        None without a null.

    """

    edges: NDArray[np.int64]
    regions: int
    p: float | None


def components(
    t: NDArray[np.float64], ends: NDArray[np.int64], *, threshold: float
) -> list[NDArray[np.int64]]:
    """Return the edges of each component, the largest first.

    Parameters
    ----------
    t : (E,) float64
        NaN for an edge that does not vary.
    ends : (E, 2) int64
        The regions that each edge joins.
    threshold : float
        An edge whose t is larger in size belongs to a component.

    """
    beyond = np.flatnonzero(np.abs(np.nan_to_num(t, nan=0.0)) > threshold)
    if not len(beyond):
        return []
    a, b = ends[beyond].T
    regions = int(ends.max()) + 1
    graph = coo_array((np.ones(len(beyond)), (a, b)), shape=(regions, regions))
    _, of_region = connected_components(graph, directed=False)
    found = [beyond[of_region[a] == label] for label in np.unique(of_region[a])]
    return sorted(found, key=lambda edges: (-len(edges), int(edges[0])))


def network_based(
    t: NDArray[np.float64],
    ends: NDArray[np.int64],
    null: Sequence[NDArray[np.float64]],
    *,
    threshold: float,
) -> tuple[tuple[Component, ...], NDArray[np.int64]]:
    """Find the components and judge them.

    Parameters
    ----------
    t : (E,) float64
    ends : (E, 2) int64
    null : sequence of (E,) float64
        The t of the same edges in each draw of the null; it may be empty.
    threshold : float

    Returns
    -------
    tuple of Component
        The largest first.
    (draws,) int64
        Edges of the largest component in each draw.

    """
    largest = np.array(
        [max(map(len, components(draw, ends, threshold=threshold)), default=0) for draw in null],
        dtype=np.int64,
    )
    found = tuple(
        Component(
            edges=edges,
            regions=len(np.unique(ends[edges])),
            p=float((1 + np.sum(largest >= len(edges))) / (1 + len(largest))) if len(largest) else None,
        )
        for edges in components(t, ends, threshold=threshold)
    )
    return found, largest
