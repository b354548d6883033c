"""The exact severity network, put into the schema of result.json."""

import math

import numpy as np

from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.protocol import Protocol
from esn_server.report.analyses import ExactEdge, ExactNetworkSummary, NetworkComponent
from esn_server.study.study import Findings


def exact_network_of(protocol: Protocol, findings: Findings) -> ExactNetworkSummary | None:
    """Return the network by partial correlation, its components, and how stable its edges are."""
    found = findings.exact_network
    if found is None:
        return None
    atlas = load_atlas(protocol.imaging.atlas)
    ends = atlas.edges[found.edges]
    of_edge = {int(edge): k for k, part in enumerate(found.components, 1) for edge in part.edges}
    network, draws = found.network, len(found.largest)
    order = np.argsort(-np.abs(np.nan_to_num(network.r, nan=0.0)), kind="stable")
    return ExactNetworkSummary(
        children=found.children,
        freedom=network.freedom,
        edges=[
            ExactEdge(
                region_a=atlas.names[ends[i, 0]],
                region_b=atlas.names[ends[i, 1]],
                r=_finite(network.r[i]),
                p=_finite(network.p[i]),
                retained=bool(network.retained[i]),
                frequency=None if found.frequency is None else float(found.frequency[i]),
                component=of_edge.get(int(i)),
            )
            for i in order
        ],
        retained=int(network.retained.sum()),
        t_threshold=found.rules.t_threshold,
        components=[
            NetworkComponent(number=k, edges=len(part.edges), regions=part.regions, p=part.p)
            for k, part in enumerate(found.components, 1)
        ],
        null_draws=draws,
        largest_by_chance=float(np.quantile(found.largest, 0.95)) if draws else None,
        bootstrap_draws=found.rules.bootstrap_draws,
    )


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
