"""What a protocol costs each child: the noise of every release, and the epsilon of all of them."""

from dataclasses import dataclass
from functools import lru_cache

from esn_core.errors import ProtocolError
from esn_core.privacy.accounting import (
    NO_NOISE,
    GaussianRelease,
    compose,
    epsilon_of,
    mu_for,
    noise_multiplier_for,
    replace_one_epsilon_of,
    true_positives,
)
from esn_core.privacy.release import Children, People
from esn_core.protocol.phases import PhaseName, PlannedPhase
from esn_core.protocol.protocol import Protocol


@dataclass(frozen=True)
class PhasePrice:
    """The price of one phase of a study.

    Attributes
    ----------
    phase : str
    children : {'training', 'held-out', 'controls'}
        Whose data the phase touches.
    releases : int
        How many sums leave each site.
    noise_multiplier : float
        Of each of these releases, over the L2 sensitivity of one child; 0 without noise.

    """

    phase: PhaseName
    children: People
    releases: int
    noise_multiplier: float

    @property
    def mechanisms(self) -> list[GaussianRelease]:
        """Every release of the phase, as a fact."""
        return [GaussianRelease(self.noise_multiplier)] * self.releases

    @property
    def mu(self) -> float:
        """Gaussian-DP parameter of the phase alone."""
        return compose(self.mechanisms)


STRICTER_DELTA = 1e-6


@dataclass(frozen=True)
class Price:
    """The price of a study.

    Attributes
    ----------
    phases : tuple of PhasePrice
        In the order of the study.
    delta : float

    """

    phases: tuple[PhasePrice, ...]
    delta: float

    def of(self, phase: str) -> PhasePrice:
        """Return the price of `phase`.

        Raises
        ------
        ProtocolError
            The protocol does not contain it.

        """
        for price in self.phases:
            if price.phase == phase:
                return price
        raise ProtocolError(f"the protocol does not ask for the phase {phase}")

    @property
    def exact(self) -> tuple[PhasePrice, ...]:
        """The phases about children without noise; where there is one, its children have no epsilon."""
        return tuple(
            phase
            for phase in self.phases
            if phase.noise_multiplier == NO_NOISE and phase.children != "controls"
        )

    @property
    def about_controls(self) -> tuple[PhasePrice, ...]:
        """The phases about healthy controls, which are exact: no epsilon is about a control."""
        return tuple(phase for phase in self.phases if phase.children == "controls")

    @property
    def noised(self) -> "Price":
        """What the phases with noise would cost, were there no others."""
        return Price(tuple(p for p in self.phases if p.noise_multiplier != NO_NOISE), self.delta)

    def mechanisms(self, children: Children) -> list[GaussianRelease]:
        """Every release that touches one child of a split."""
        return [release for p in self.phases if p.children == children for release in p.mechanisms]

    def mu(self, children: Children) -> float:
        """Gaussian-DP parameter of all that touches one child of a split."""
        return compose(self.mechanisms(children))

    def epsilon(self, children: Children) -> float:
        """Epsilon of one child of a split, add/remove adjacency; infinite without noise."""
        return epsilon_of(self.mu(children), self.delta)

    def stricter_epsilon(self, children: Children) -> float:
        """Epsilon of the same noise at `STRICTER_DELTA`, by which studies of other deltas can be compared."""
        return epsilon_of(self.mu(children), STRICTER_DELTA)

    def epsilon_alone(self, phase: PhasePrice) -> float:
        """Epsilon of one phase, were it the only one."""
        return epsilon_of(phase.mu, self.delta)

    def replace_one_epsilon(self, children: Children) -> float:
        """Epsilon of one child of a split, replace-one adjacency."""
        return replace_one_epsilon_of(self.mu(children), self.delta)

    def true_positives(self, children: Children) -> float:
        """Largest share of a split's members that any attack finds, at one false alarm in a hundred."""
        return true_positives(self.mu(children), false_positives=0.01)


def price_of(protocol: Protocol) -> Price:
    """Work out the noise and the price of every phase of `protocol`.

    The noise multiplier is that of what anybody but the child's own hospital
    gets to see: under trust `local`, a site's own sum with all of the noise;
    under `secure-sum`, the sum of all sites with the noise of those that do not
    collude. Training and held-out children are different children: what touches
    the latter may spend the whole budget again, and no child pays twice.
    """
    privacy = protocol.privacy
    shares = None if privacy.noise == "none" else tuple(privacy.shares.items())
    return _price(protocol.phases, shares, privacy.epsilon, privacy.delta)


@lru_cache(maxsize=64)  # a root is searched for, and every question asks for it
def _price(
    phases: tuple[PlannedPhase, ...],
    shares: tuple[tuple[PhaseName, float], ...] | None,
    epsilon: float,
    delta: float,
) -> Price:
    """Return the price of phases under a budget and its shares; the shares are None without noise."""
    budget = mu_for(epsilon, delta)
    priced = []
    for planned in phases:
        noise = NO_NOISE
        if shares is not None and not planned.exact:
            share = dict(shares)[planned.phase]
            noise = noise_multiplier_for(budget, share=share, releases=planned.releases)
        priced.append(PhasePrice(planned.phase, planned.children, planned.releases, noise))
    return Price(tuple(priced), delta)
