"""What is known not to work, or not to protect, in a protocol: one list of facts, which every reader prints.

A reader prints the words of each caution, or says the fact in its own place and words; one that is added here
is then printed by all of them: the centre's `protocol validate` and price list, a site's review, the report.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from esn_core.protocol.expected_noise import ExpectedNoise, log_odds_noise
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol

# Measured on simulated consortia of 250 training and 180 held-out children (docs/benchmarks.md): a thousand
# candidate edges are enough for epsilon 3, two thousand and more are too many.
_MANY_CANDIDATES = 2000
_LEAST_EPSILON_FOR_EDGES = 3.0
_LEAST_EPSILON_FOR_LOCAL = 1.0
# The outcome of the study that this software follows was known for 32 to 37 children.
_NEUROCOGNITIVE_CHILDREN = 36
# Below the order of the atlases' own recipes (docs/benchmarks.md has the table of directions).
_FEW_DIRECTIONS_ORDER = 4

LARGEST_NOISE_IN_R = 0.1
"""Standard deviation that the noise may give to r, before r says little."""


class Fact(StrEnum):
    """What a caution is about."""

    SIMULATED = "simulated"
    NO_NOISE = "no-noise"
    DECLARED_EXACT = "declared-exact"
    LOCAL_STEPS = "local-steps"
    COMBAT = "combat"
    PUBLISHED_LIST = "published-list"
    WHOLE_NOISE = "whole-noise"
    NO_COLLUSION = "no-collusion"
    WITHOUT_CONTROLS = "without-controls"
    FEW_DIRECTIONS = "few-directions"
    LARGE_DELTA = "large-delta"
    MANY_CANDIDATES = "many-candidates"
    NOISE_IN_R = "noise-in-r"
    NOISE_IN_MODELS = "noise-in-models"


@dataclass(frozen=True)
class Caution:
    """A fact that a reader has to know, and a sentence that says it."""

    fact: Fact
    words: str


def cautions(protocol: Protocol) -> tuple[Caution, ...]:
    """Return what a protocol says of itself, whoever its children are."""
    return tuple(_own(protocol))


def _own(protocol: Protocol) -> Iterator[Caution]:
    privacy = protocol.privacy
    if protocol.simulated:
        yield Caution(
            Fact.SIMULATED,
            "Every child of this study is simulated: no figure says anything about patients.",
        )
    if privacy.noise == "none":
        yield Caution(
            Fact.NO_NOISE,
            "No noise: the sums are exact. Without differential privacy: for simulated children only.",
        )
    exact = [phase.phase for phase in price_of(protocol).exact]
    if exact and privacy.noise != "none":
        yield Caution(
            Fact.DECLARED_EXACT,
            f"Declared exact: {', '.join(exact)}. These sums leave without noise, and for their children "
            "there is no epsilon.",
        )
    if protocol.training.local_steps > 1:
        yield Caution(
            Fact.LOCAL_STEPS,
            "Several local steps: a site's update depends on all of its children at once.",
        )
    if protocol.cohort.harmonisation == "combat":
        yield Caution(Fact.COMBAT, "ComBat: statistics of other children enter a child's features.")
    if protocol.severity_network.published:
        yield Caution(
            Fact.PUBLISHED_LIST,
            "A published list of candidates is public only for children who were not in the study that "
            "found it.",
        )
    if privacy.noise != "none" and privacy.trust == "local" and privacy.epsilon <= _LEAST_EPSILON_FOR_LOCAL:
        yield Caution(
            Fact.WHOLE_NOISE,
            "Every site's whole noise at epsilon 1 or less is known to leave no usable result.",
        )
    named = protocol.cohort.without_controls
    if named:
        yield Caution(
            Fact.WITHOUT_CONTROLS,
            f"Judged by other sites' pooled controls: {', '.join(named)}. Nobody trains there; the ranking "
            "of these predictions is usable, and the absolute score may be off by half a step.",
        )
    if privacy.noise != "none" and protocol.masked and privacy.colluding_sites == 0:
        yield Caution(
            Fact.NO_COLLUSION,
            "colluding_sites = 0: a site that subtracts its own share of the noise from a result sees the "
            "others under less noise than the price says.",
        )
    if protocol.imaging.sh_order_max <= _FEW_DIRECTIONS_ORDER and not protocol.imaging.made_elsewhere:
        yield Caution(
            Fact.FEW_DIRECTIONS,
            "The recipe takes scans of 15 directions. On one head, the connectome of 15 of 64 directions "
            "agreed with the whole scan's to r .80, that of 20 to .88: such children are measured less "
            "exactly than others. Who was scanned how, each hospital alone knows ('esn-client check').",
        )


def expected_cautions(
    protocol: Protocol,
    noise: ExpectedNoise,
    *,
    training_children: int,
    held_out_children: int,
    candidates: int,
) -> tuple[Caution, ...]:
    """Return what the noise of a protocol would do to a study of a given size; nothing without noise.

    Parameters
    ----------
    protocol : Protocol
    noise : ExpectedNoise
        In a study of that size.
    training_children, held_out_children : int
        Expected at all sites together.
    candidates : int
        Numbers in the association release.

    """
    if protocol.privacy.noise == "none":
        return ()
    return tuple(_expected(protocol, noise, training_children + held_out_children, candidates))


def _expected(protocol: Protocol, noise: ExpectedNoise, children: int, candidates: int) -> Iterator[Caution]:
    privacy = protocol.privacy
    if privacy.delta >= 1 / children:
        yield Caution(
            Fact.LARGE_DELTA,
            f"delta {privacy.delta:g} is not below 1 over {children} children; the study will be refused "
            "at roll call.",
        )
    if candidates > _MANY_CANDIDATES and privacy.epsilon <= _LEAST_EPSILON_FOR_EDGES:
        yield Caution(
            Fact.MANY_CANDIDATES,
            f"{candidates} candidate edges at epsilon {privacy.epsilon:g}: edge-wise selection is known to "
            "fail from 3 downwards; name fewer candidates, or modules.",
        )
    if noise.r is None or noise.r > LARGEST_NOISE_IN_R:
        found = "often leaves it undefined" if noise.r is None else f"adds {noise.r:.2f} to it"
        yield Caution(
            Fact.NOISE_IN_R,
            f"The evaluation will say little: the noise {found}, where r would be about 0.8.",
        )
    if not any(phase.phase == "newton" and phase.noise_multiplier for phase in price_of(protocol).phases):
        return
    odds, sampling = log_odds_noise(protocol, children=_NEUROCOGNITIVE_CHILDREN)
    if odds > sampling:
        yield Caution(
            Fact.NOISE_IN_MODELS,
            f"A logistic model on {_NEUROCOGNITIVE_CHILDREN} children within this budget would have a log "
            f"odds ratio with noise {odds:.2f}, more than its sampling error of {sampling:.2f}.",
        )
