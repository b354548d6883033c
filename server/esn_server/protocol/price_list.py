"""The price list: what a protocol costs each child, and what its noise leaves of each result."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from esn_core.analyses.expected_r import ATLAS, LEAST_GAIN, Expected, expected_r
from esn_core.analyses.planned_sums import grid_delta_of
from esn_core.analyses.power import (
    SEVERITY_IN_GASE,
    SEVERITY_IN_PREDICTION,
    false_positives,
    powers_of,
)
from esn_core.errors import ConfigError
from esn_core.learning.weights import pretrained, to_vector
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.expected_noise import ExpectedNoise, expected_noise
from esn_core.protocol.price import STRICTER_DELTA, Price, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.warnings import Fact, cautions, expected_cautions


@dataclass(frozen=True)
class PriceList:
    """The price of a protocol, for the coordinator who drafts it.

    Attributes
    ----------
    protocol : Protocol
    training_children, held_out_children : int
        Expected at all sites together.
    price : Price
    noise : ExpectedNoise
    expected : tuple of Expected
        In simulated worlds.
    warnings : tuple of str

    """

    protocol: Protocol
    training_children: int
    held_out_children: int
    price: Price
    noise: ExpectedNoise
    expected: tuple[Expected, ...]
    warnings: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON can hold it; where something is exact there is no epsilon."""
        protocol, price = self.protocol, self.price
        return {
            "study": protocol.study,
            "protocol_sha256": protocol.sha256,
            "sites": len(protocol.roster),
            "training_children": self.training_children,
            "held_out_children": self.held_out_children,
            "delta": price.delta,
            "epsilon": {children: _finite(price.epsilon(children)) for children in CHILDREN},
            "phases": [
                asdict(phase) | {"epsilon_alone": _finite(price.epsilon_alone(phase))}
                for phase in price.phases
            ],
            "expected_noise_sd": asdict(self.noise),
            "expected_r": [asdict(each) for each in self.expected],
            "warnings": list(self.warnings),
        }

    @property
    def in_words(self) -> str:
        """The same for people."""
        protocol, candidates = self.protocol, released_candidates(self.protocol)
        training, held_out = self.training_children, self.held_out_children
        lines = [
            f"Study {protocol.study}, protocol {protocol.sha256}",
            f"{len(protocol.roster)} sites, about {training} training and {held_out} held-out",
            f"children; trust '{protocol.privacy.trust}', delta {self.price.delta:g}",
            _needed(protocol, training, held_out),
            "",
            *_costs(protocol, self.price),
            "",
            f"What the noise will do (one standard deviation, all {len(protocol.roster)} sites answering)",
            *_results(self.noise, candidates),
            "",
            *_reached(protocol, self.expected, training),
            "",
            *_findable(protocol, held_out),
            "",
            "Warnings",
            *(f"  {words}" for words in self.warnings or ("none",)),
        ]
        return "\n".join(lines)


def price_list(protocol: Protocol, *, training_children: int, held_out_children: int) -> PriceList:
    """Work out the price of a protocol, and what its noise will leave of each result.

    Parameters
    ----------
    protocol : Protocol
    training_children, held_out_children : int
        Expected at all sites together.

    Raises
    ------
    ConfigError
        The sites vote on candidates: nothing of that has noise, and no child is asked about.

    """
    if protocol.voting:
        raise ConfigError("by this protocol sites vote on candidates: no child pays, and nothing has noise")
    candidates = released_candidates(protocol)
    noise = expected_noise(
        protocol,
        training_children=training_children,
        held_out_children=held_out_children,
        candidates=candidates,
        parameters=len(to_vector(pretrained(protocol.model.initial_weights, protocol.own_weights))),
        rng=np.random.default_rng(int(protocol.sha256[:16], 16)),
    )
    expected = expected_r(protocol, training_children=training_children)
    return PriceList(
        protocol,
        training_children,
        held_out_children,
        price_of(protocol),
        noise,
        expected,
        _warnings(
            protocol,
            noise,
            expected,
            training_children=training_children,
            held_out_children=held_out_children,
            candidates=candidates,
        ),
    )


def _needed(protocol: Protocol, training_children: int, held_out_children: int) -> str:
    """Say how many children each site needs, and whether so many make sites of that size."""
    least = {split: protocol.minimum(split) for split in CHILDREN}
    said = f"each site needs {least['training']} training and {least['held-out']} held-out children"
    training = sum(protocol.trains(site) for site in protocol.sites)
    if training < len(protocol.sites):
        said += ", those without controls no training children"
    few = (
        training_children < training * least["training"]
        or held_out_children < len(protocol.sites) * least["held-out"]
    )
    return f"{said}: MORE than these are" if few else said


def released_candidates(protocol: Protocol) -> int:
    """Return how many numbers the association release of a protocol has."""
    return protocol.candidates.released


def _warnings(
    protocol: Protocol,
    noise: ExpectedNoise,
    expected: Sequence[Expected],
    *,
    training_children: int,
    held_out_children: int,
    candidates: int,
) -> tuple[str, ...]:
    """Say what is known not to work, or not to protect; simulated children are no fault of a price."""
    known = [
        *cautions(protocol),
        *expected_cautions(
            protocol,
            noise,
            training_children=training_children,
            held_out_children=held_out_children,
            candidates=candidates,
        ),
    ]
    said = [caution.words for caution in known if caution.fact != Fact.SIMULATED]
    little = [each.world for each in expected if each.buys_little]
    if little:
        said.append(
            f"Worlds {' and '.join(little)}: a hospital may have less than {LEAST_GAIN} of r more than the "
            "strongest that it does alone."
        )
    return tuple(said)


def _costs(protocol: Protocol, price: Price) -> list[str]:
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
        stricter = _epsilon(price.stricter_epsilon(children))
        lines.append(f"    the same noise at delta {STRICTER_DELTA:g}: epsilon {stricter};")
        found = 100 * price.true_positives(children)
        lines.append(f"    an attacker finds at most {found:.0f} % of them at one false alarm in a hundred")
    if price.noised.phases:
        worst = max(grid_delta_of(protocol, children) for children in CHILDREN)
        lines.append(
            f"  the grid of the noise, and its parts being added up, add {worst:.0e} to delta at most"
        )
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


def _reached(protocol: Protocol, expected: Sequence[Expected], children: int) -> list[str]:
    """Say what r simulated studies of this size had, and what federation added to the strongest alone."""
    each = children / sum(protocol.trains(site) for site in protocol.sites)
    lines = [
        f"What r to expect inside a hospital of {each:.0f} training children, in simulated worlds",
        f"  {'':<10} {'alone':>7} {'consortium':>11} {'personal':>9} {'federation buys':>16}",
    ]
    for world in expected:
        personal = "none" if world.personal is None else f"{world.personal:.3f}"
        beyond = "" if world.measured else "  a guess: beyond what was measured"
        lines.append(
            f"  {world.world:<10} {world.alone:>7.3f} {world.consortium:>11.3f} {personal:>9} "
            f"{world.gain:>+16.3f}{beyond}"
        )
    error = max(world.error for world in expected)
    of_all = max(world.consortium_error for world in expected)
    lines += [
        f"  read off curves that what was measured lies {error:.2f} about, the consortium's {of_all:.2f}",
        f"  (root mean square); one study's r differs more. Own controls, hospitals of one size, {ATLAS}"
        + ("." if protocol.imaging.atlas == ATLAS else f", not {protocol.imaging.atlas}."),
        "  Alone: the strongest of own network, ridge and CPM; personal: see esn-client personal-model",
    ]
    return lines


def _findable(protocol: Protocol, children: int) -> list[str]:
    """Say what the planned comparisons could find, and what sites that differ do to p."""
    sites = len(protocol.roster)
    lines = ["What a study of this size could find"]
    if protocol.analyses.neurocognition is not None:
        lines.append(
            f"  chance to find that a prediction with r {SEVERITY_IN_PREDICTION} to true severity explains "
            f"impairment better than a score with r {SEVERITY_IN_GASE}"
        )
        for power in powers_of(protocol, children=children):
            beside = f" beside {', '.join(power.others)}" if power.others else ""
            what = "the primary comparison" if power.primary else "held to the number of comparisons"
            lines.append(
                f"    {power.outcome}{beside}: {100 * power.held:.0f} % as {what}"
                + ("" if power.primary else f" ({100 * power.alone:.0f} % alone)")
            )
    chances = [
        f"{100 * false_positives(children, sites, between_sites=share):.0f} % where {words}"
        for share, words in ((0.1, "a tenth"), (0.25, "a quarter"))
    ]
    lines += [
        "  neither r nor a model of impairment is adjusted for sites: with nothing to find within them,",
        f"    p < 0.05 in {', '.join(chances)} of the variance of score and outcome lies between hospitals",
    ]
    return lines


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def _epsilon(epsilon: float) -> str:
    return f"{epsilon:.2f}" if math.isfinite(epsilon) else "without bound"
