"""The sum of every phase of a protocol, before anybody is asked: how long it is, and whether it can leave.

What a site would refuse in the middle of a study, when others have already paid, is refused before it begins:
`misfits` is asked where a protocol is signed, where it is approved, and by the gate before the first charge.
"""

import math

from esn_core.analyses.neurocognition import kinds_of
from esn_core.analyses.reruns import (
    FOLD_EVALUATION,
    rerun_association,
    rerun_calibration,
    rerun_evaluation,
    reruns_of,
    tested_reruns,
)
from esn_core.errors import GateError
from esn_core.learning.releases import (
    COMPACT_PARAMETERS,
    attribution_release,
    gradient_release,
    local_update_release,
)
from esn_core.privacy.accounting import NO_NOISE, grid_delta
from esn_core.privacy.fixed_point import noise_units
from esn_core.privacy.release import CHILDREN, Children, ReleaseKind
from esn_core.protocol.analyses import DRAWS_AT_ONCE
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import association_release
from esn_core.severity_network.bootstrap import network_bootstrap
from esn_core.severity_network.centring import centre_release
from esn_core.severity_network.exact_releases import network, network_null
from esn_core.severity_network.pooled_reference import reference_release
from esn_core.severity_network.votes import votes_release
from esn_core.statistics.agreement import EVALUATION
from esn_core.statistics.combat import COVARIATE_NORM, COVARIATES, combat
from esn_core.statistics.matching import COHORT
from esn_core.statistics.recalibration import CALIBRATION
from esn_core.statistics.subgroups import SUBGROUPS

_BYTES_PER_NUMBER = 8

# The grid may add so much of delta to it; more, and the price would have to say so.
_LARGEST_PART_OF_DELTA = 1e-3


def kind_of(phase: PhaseName, protocol: Protocol) -> ReleaseKind:
    """Return the kind of release that answers a phase which the protocol asks for."""
    if phase == "votes":  # on what the candidates are to be; there are none yet
        return votes_release(len(protocol.atlas.edges))
    if phase == "reference":
        return reference_release(len(protocol.atlas.edges))
    edges = len(protocol.candidates.edges)
    released = protocol.candidates.released
    clip = protocol.training.max_gradient_norm
    match phase:
        case "cohort":
            return COHORT
        case "combat":
            return combat(edges, COVARIATES, covariate_norm=COVARIATE_NORM)
        case "centre":
            return centre_release(protocol.severity_network.centre)
        case "association":
            return association_release(released)
        case "gradient":
            return gradient_release(COMPACT_PARAMETERS, max_gradient_norm=clip)
        case "local-update":
            return local_update_release(COMPACT_PARAMETERS, max_gradient_norm=clip)
        case "calibration":
            return CALIBRATION
        case "evaluation":
            return EVALUATION
        case "subgroup-evaluation":
            return SUBGROUPS
        case "attribution":
            return attribution_release(edges)
        case "rerun-association":
            return rerun_association(reruns_of(protocol), released)
        case "rerun-calibration":
            return rerun_calibration(reruns_of(protocol))
        case "rerun-evaluation":
            exact = price_of(protocol).of(phase).noise_multiplier == NO_NOISE
            return rerun_evaluation(tested_reruns(protocol), exact=exact)
        case "fold-evaluation":
            return FOLD_EVALUATION
        case "network":
            return network(edges)
        case "network-null":
            return network_null(edges, DRAWS_AT_ONCE)
        case "network-bootstrap":
            return network_bootstrap(edges, DRAWS_AT_ONCE)
        case "linear":
            return kinds_of(protocol).linear
        case "newton":
            return kinds_of(protocol).newton
        case "comparison":
            return kinds_of(protocol).comparison
        case "ranking":
            return kinds_of(protocol).ranking
        case "roll-call":
            raise GateError("no sum leaves at roll call")


def misfits(protocol: Protocol, *, largest_bytes: int) -> tuple[str, ...]:
    """Name every phase whose sum a site could not send; nothing where the study can go to its end.

    Parameters
    ----------
    protocol : Protocol
    largest_bytes : int
        Of the numbers of one message.

    """
    said = []
    for price in price_of(protocol).phases:
        kind = kind_of(price.phase, protocol)
        # One more number checks the masks.
        needed = (kind.dimension + 1) * _BYTES_PER_NUMBER
        if needed > largest_bytes:
            said.append(
                f"the sum of {price.phase} has {kind.dimension} numbers, {needed} bytes; a message may hold "
                f"{largest_bytes}"
            )
        try:
            noise_units(kind, price.noise_multiplier, share=protocol.noise_share)
        except GateError as fault:
            said.append(str(fault))
    if not said:
        delta = protocol.privacy.delta
        worst = max(grid_delta_of(protocol, children) for children in CHILDREN)
        if worst > _LARGEST_PART_OF_DELTA * delta:
            said.append(
                f"at epsilon {protocol.privacy.epsilon:g} the grid of the noise could add {worst:.1g} to "
                f"delta {delta:g}, more than a thousandth of it; take a smaller epsilon"
            )
    return tuple(said)


def grid_delta_of(protocol: Protocol, children: Children) -> float:
    """Bound what the grid, and the adding-up of shares of noise, add to the delta of one split's children.

    All releases together are within T of continuous Gaussians in total variation, the sum of what each is.
    A study that is (epsilon, delta)-private with those is (epsilon, delta + (1 + e^epsilon) T)-private with
    these.
    Infinite where the noise of a release does not fit the grid: `misfits` names it.
    """
    price = price_of(protocol).noised
    distance = 0.0
    for phase in price.phases:
        if phase.children == children:
            kind = kind_of(phase.phase, protocol)
            share = protocol.noise_share
            try:
                units = noise_units(kind, phase.noise_multiplier, share=share)
            except GateError:
                return math.inf
            shares = len(protocol.roster) if protocol.masked else 1
            distance += phase.releases * grid_delta(units, dimension=kind.dimension, shares=shares)
    return (1 + math.exp(price.epsilon(children))) * distance
