"""The hidden truth of simulated children, beside what a study found of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_server.report.analyses import Explanation
from esn_server.report.result import NetworkTruth, SeverityNetwork


def true_effects(hospitals: Mapping[str, Path]) -> Floats:
    """Return the (E,) true effects of severity, in each edge's own sd; all sites share one world."""
    with np.load(next(iter(hospitals.values())) / "truth.npz") as truth:
        effects: Floats = truth["severity_slope"] / truth["edge_sd"]
    return effects


def network_truth(
    network: SeverityNetwork, atlas: Atlas, candidates: NDArray[np.int64], true: Floats
) -> NetworkTruth:
    """Count the listed connections that belong to the true network."""
    at = _positions(atlas, [(edge.region_a, edge.region_b) for edge in network.edges])
    weight = np.array([edge.weight for edge in network.edges])
    return NetworkTruth(
        listed=int(np.count_nonzero(true[at])),
        same_sign=int((weight * true[at] > 0).sum()),
        candidates=int(np.count_nonzero(true[candidates])),
    )


def truth_r(explanation: Explanation, atlas: Atlas, true: Floats) -> float | None:
    """Correlate the size of the attributions with that of the true effects."""
    shares = explanation.edges
    at = _positions(atlas, [(share.region_a, share.region_b) for share in shares])
    found, expected = np.abs([share.mean for share in shares]), np.abs(true[at])
    return float(np.corrcoef(found, expected)[0, 1]) if found.std() > 0 and expected.std() > 0 else None


def _positions(atlas: Atlas, pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Find the positions of edges, given by the names of their ends, among the atlas's."""
    names = atlas.names
    edge = {frozenset((names[a], names[b])): e for e, (a, b) in enumerate(atlas.edges.tolist())}
    return np.array([edge[frozenset(pair)] for pair in pairs], dtype=np.int64)
