"""The price list: what a protocol costs each child, and what its noise leaves of each result."""

import math

import numpy as np

from esn_core.learning.weights import pretrained, to_vector
from esn_core.protocol.expected_noise import ExpectedNoise, expected_noise, log_odds_noise
from esn_core.protocol.price import Price, price_of
from esn_core.protocol.protocol import Protocol

# Measured on simulated consortia of 250 training and 180 held-out children (docs/benchmarks.md): a thousand
# candidate edges are enough for epsilon 3, two thousand and more are too many.
_MANY_CANDIDATES = 2000
_LEAST_EPSILON_FOR_EDGES = 3.0
_LEAST_EPSILON_FOR_LOCAL = 1.0
_LARGEST_NOISE_IN_R = 0.1
# The outcome of the study that this software follows was known for 32 to 37 children.
_NEUROCOGNITIVE_CHILDREN = 36


def price_list(protocol: Protocol, *, training_children: int, held_out_children: int) -> str:
    """Return the price of a protocol as text, for the coordinator who drafts it.

    Parameters
    ----------
    protocol : Protocol
    training_children, held_out_children : int
        Expected at all sites together.

    """
    price = price_of(protocol)
    candidates = released_candidates(protocol)
    noise = expected_noise(
        protocol,
        training_children=training_children,
        held_out_children=held_out_children,
        candidates=candidates,
        parameters=len(to_vector(pretrained(protocol.model.initial_weights))),
        rng=np.random.default_rng(int(protocol.sha256[:16], 16)),
    )
    lines = [
        f"Study {protocol.study}, protocol {protocol.sha256}",
        f"{len(protocol.roster)} sites, about {training_children} training and {held_out_children} held-out",
        f"children; trust '{protocol.privacy.trust}', delta {price.delta:g}",
        "",
        *_costs(price),
        "",
        f"What the noise will do (one standard deviation, all {len(protocol.roster)} sites answering)",
        *_results(noise, candidates),
        "",
        "Warnings",
        *(f"  {w}" for w in warnings_of(protocol, noise, training_children, held_out_children, candidates)),
    ]
    return "\n".join(lines)


def released_candidates(protocol: Protocol) -> int:
    """Return how many numbers the association release of a protocol has."""
    return protocol.candidates.released


def warnings_of(
    protocol: Protocol, noise: ExpectedNoise, training_children: int, held_out_children: int, candidates: int
) -> list[str]:
    """Name what is known not to work, or not to protect, in a protocol."""
    privacy = protocol.privacy
    said = []
    if privacy.noise == "none":
        said = ["No noise: the sums are exact. For simulated children only."]
        if protocol.training.local_steps > 1:
            said.append("Several local steps: a site's update depends on all of its children at once.")
        if protocol.cohort.harmonisation == "combat":
            said.append("ComBat: statistics of other children enter a child's features.")
        return said
    if privacy.delta >= 1 / (training_children + held_out_children):
        said.append(
            f"delta {privacy.delta:g} is not below 1 over {training_children + held_out_children} children; "
            "the study will be refused at roll call."
        )
    if candidates > _MANY_CANDIDATES and privacy.epsilon <= _LEAST_EPSILON_FOR_EDGES:
        said.append(
            f"{candidates} candidate edges at epsilon {privacy.epsilon:g}: edge-wise selection is known to "
            "fail from 3 downwards; name fewer candidates, or modules."
        )
    if privacy.trust == "local" and privacy.epsilon <= _LEAST_EPSILON_FOR_LOCAL:
        said.append("Every site's whole noise at epsilon 1 or less is known to leave no usable result.")
    if privacy.trust == "secure-sum" and privacy.colluding_sites == 0:
        said.append(
            "colluding_sites = 0: a site that subtracts its own share of the noise from a result sees the "
            "others under less noise than the price says."
        )
    if noise.r is None or noise.r > _LARGEST_NOISE_IN_R:
        found = "often leaves it undefined" if noise.r is None else f"adds {noise.r:.2f} to it"
        said.append(f"The evaluation will say little: the noise {found}, where r would be about 0.8.")
    odds, sampling = log_odds_noise(protocol, children=_NEUROCOGNITIVE_CHILDREN)
    if odds > sampling:
        said.append(
            f"A logistic model on {_NEUROCOGNITIVE_CHILDREN} children within this budget would have a log "
            f"odds ratio with noise {odds:.2f}, more than its sampling error of {sampling:.2f}."
        )
    return said or ["none"]


def _costs(price: Price) -> list[str]:
    lines = ["What it costs one child (epsilon alone; Gaussian releases do not add up as epsilon)"]
    for phase in price.phases:
        alone = price.epsilon_alone(phase)
        lines.append(
            f"  {phase.phase:<12} {phase.children:<9} {phase.releases:>4} x"
            f"  noise {phase.noise_multiplier:8.3f}  epsilon {_epsilon(alone)}"
        )
    for children in ("training", "held-out"):
        lines.append(
            f"  in all, a {children} child: epsilon {_epsilon(price.epsilon(children))} when one is added or "
            f"removed, {_epsilon(price.replace_one_epsilon(children))} when one is replaced;"
        )
        found = 100 * price.true_positives(children)
        lines.append(f"    an attacker finds at most {found:.0f} % of them at one false alarm in a hundred")
    return lines


def _results(noise: ExpectedNoise, candidates: int) -> list[str]:
    rows = [
        ("number of training children", f"{noise.children:.1f}"),
        (f"correlation of one of {candidates} candidate edges with severity", f"{noise.edge_r:.3f}"),
        ("calibration slope", f"{noise.slope:.2f}"),
        ("r, predicted against clinical GASE", "often undefined" if noise.r is None else f"{noise.r:.3f}"),
        ("mean absolute error, steps of GASE", f"{noise.mae:.2f}"),
    ]
    if noise.gradient is not None:
        rows.insert(2, ("a training step, over the longest mean gradient", f"{noise.gradient:.2f} in length"))
    return [f"  {what}: {sd}" for what, sd in rows]


def _epsilon(epsilon: float) -> str:
    return f"{epsilon:.2f}" if math.isfinite(epsilon) else "without bound"
