"""What an audit of a protocol's privacy found at one site, and what of it contradicts the price."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from esn_client.privacy_audit.attacks import area_bound
from esn_core.privacy.release import Children
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.price import Price

# Far below one over the number of canaries: the one-run bound pays twice their number times delta.
CANARY_DELTA = 1e-6
FALSE_POSITIVES = 0.01
# Of rows that enter the grid, over a bound.
_ROUNDING = 1e-6
# An area must exceed its bound by so many standard errors to count as a fault.
STANDARD_ERRORS = 4.0
# By how much an area may exceed that of a blind guess, before a control counts as found.
_A_COIN = 0.05


@dataclass(frozen=True)
class Canaries:
    """What guesses about invented children prove about one release.

    Attributes
    ----------
    canaries : int
    guesses, correct : int
        The surest guesses, whose number was fixed beforehand, and how many were right.
    epsilon_proven, epsilon_claimed : float
        At `CANARY_DELTA`; the first is a lower bound for any mechanism, the second the price.
    mu_low, mu_high : float or None
        What the error rates at one threshold prove, and allow, of Gaussian noise; `mu_high` is None
        where there was no error.
    mu_claimed : float
    smallest_fault : float or None
        Noise below this share of what is claimed would typically show; None when none would.

    """

    canaries: int
    guesses: int
    correct: int
    epsilon_proven: float
    epsilon_claimed: float
    mu_low: float
    mu_high: float | None
    mu_claimed: float
    smallest_fault: float | None


@dataclass(frozen=True)
class Membership:
    """How well the site's own children are told from those left out of a sum.

    Attributes
    ----------
    children : int
    summed : float
        Of these, in a sum on average; coins decide who is.
    repeats : int
    area, area_error : float
        Area under the ROC curve of the attack on the release, and its standard error.
    found : float
        Members found at `FALSE_POSITIVES`.
    area_exact, found_exact : float
        The same attack on the same sums without noise.
    area_bound, found_bound : float
        What the price allows any attack.

    """

    children: int
    summed: float
    repeats: int
    area: float
    area_error: float
    found: float
    area_exact: float
    found_exact: float
    area_bound: float
    found_bound: float


@dataclass(frozen=True)
class ControlExposure:
    """How well one of the site's controls is found in a release by who knows everything else.

    Attributes
    ----------
    controls : int
        Attacked, each in turn.
    sums : int
    area, area_error : float or None
        Area under the ROC curve over all of them, and its standard error; None of too few sums.
    mu : tuple of float
        Of each control: how far it moves the sum, in standard deviations of the noise.
    area_of_most : float
        Of the control who moves it most, by its mu.
    reconstruction : (float, float) or None
        r of the control's scores with what the release tells of them, and its standard error; None where the
        release has no number for each connection.

    """

    controls: int
    sums: int
    area: float | None
    area_error: float | None
    mu: tuple[float, ...]
    area_of_most: float
    reconstruction: tuple[float, float] | None


@dataclass(frozen=True)
class ControlsFound:
    """What all noised releases of a protocol together tell of the site's controls.

    Attributes
    ----------
    area, area_of_most : float
        Area under the ROC curve of who knows everything else: the mean over the controls, and the largest.
    exposed : bool
        Whether a control is found better than by a coin, in one release or in all.

    """

    area: float
    area_of_most: float
    exposed: bool


@dataclass(frozen=True)
class VotesTurned:
    """What one of the site's controls does to the site's vote on candidates.

    Attributes
    ----------
    edges : int
        Voted on: all of the atlas.
    turned : tuple of int
        For each control: of how many edges the site would vote otherwise without it.

    """

    edges: int
    turned: tuple[int, ...]

    @property
    def controls(self) -> int:
        """How many vote."""
        return len(self.turned)

    @property
    def median(self) -> float:
        """Of the edges that one control turns."""
        return float(np.median(self.turned))

    @property
    def largest(self) -> int:
        """The edges that the control turns who turns most."""
        return max(self.turned)

    @property
    def facts(self) -> dict[str, Any]:
        """What may be told of all controls together."""
        return {
            "controls": self.controls,
            "edges": self.edges,
            "median": self.median,
            "largest": self.largest,
        }


@dataclass(frozen=True)
class Attempt:
    """What a centre that does not keep to the study tried at this site.

    Attributes
    ----------
    phase : str
    trick : str
        What it did, in words that follow 'the centre'.
    answered : bool
        Whether the site gave it what it was after.
    covered : bool
        Whether noise covers what was given, as it does any question of a private phase.

    """

    phase: PhaseName
    trick: str
    answered: bool
    covered: bool = False

    @property
    def broken(self) -> bool:
        """Whether it contradicts what the site was promised."""
        return self.answered and not self.covered

    @property
    def words(self) -> str:
        """What became of it."""
        if not self.answered:
            return "refused"
        return "answered; the noise covers it" if self.covered else "answered"


@dataclass(frozen=True)
class KindAudit:
    """The audit of one kind of release.

    Attributes
    ----------
    phase : str
    children : {'training', 'held-out'}
    releases : int
        How often the study asks for one.
    numbers : int
        In the sum.
    noise_multiplier : float
    canaries : Canaries or None
        None where the protocol adds no noise: there is no claim to be tested.
    membership : Membership or None
        None where the site has too few children to leave some out, or the sum is too long to be formed
        often enough.
    influence : float or None
        Of an exact sum: the longest part that an invented child had in it, over the bound; None with noise,
        and of counts of GASE, whose rare levels the gate counts at others.
    controls : ControlExposure or None
        None without noise, where the site has too few controls, and where no number depends on one.

    """

    phase: PhaseName
    children: Children
    releases: int
    numbers: int
    noise_multiplier: float
    canaries: Canaries | None
    membership: Membership | None
    influence: float | None = None
    controls: ControlExposure | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """What contradicts the price, as sentences."""
        said = []
        if self.canaries is not None:
            c = self.canaries
            if c.epsilon_proven > c.epsilon_claimed:
                said.append(
                    f"the guesses about canaries prove epsilon {c.epsilon_proven:.2f} at delta "
                    f"{CANARY_DELTA:g}; the price says {c.epsilon_claimed:.2f}"
                )
            if c.mu_low > c.mu_claimed:
                said.append(
                    f"the noise is at most {c.mu_claimed / c.mu_low:.2f} of what the price says, "
                    "by the error rates of the guesses"
                )
        if self.influence is not None and self.influence > 1 + _ROUNDING:
            said.append(f"a canary had {self.influence:.3g} times the largest part that it may have")
        if self.membership is not None:
            m = self.membership
            if m.area - STANDARD_ERRORS * m.area_error > m.area_bound:
                said.append(
                    f"members are told from others better (area {m.area:.3f}) than the price allows any "
                    f"attack ({m.area_bound:.3f})"
                )
        return tuple(said)


@dataclass(frozen=True)
class Audit:
    """The audit of a protocol at one site.

    Attributes
    ----------
    site, study, protocol_sha256 : str
    at : str
        Time of the audit, UTC.
    software : str
    price : Price
    trust : {'secure-sum', 'local'}
    colluding_sites : int
        Whose knowledge the attacker had; 0 under trust `local`.
    repeats : int
    kinds : tuple of KindAudit
        In the order of the study.
    attempts : tuple of Attempt
        What a centre that cheats tried, phase by phase.
    votes : VotesTurned or None
        Of a protocol by which the sites vote, which asks about controls alone; None of any other.

    """

    site: str
    study: str
    protocol_sha256: str
    at: str
    software: str
    price: Price
    trust: str
    colluding_sites: int
    repeats: int
    kinds: tuple[KindAudit, ...]
    attempts: tuple[Attempt, ...] = ()
    votes: VotesTurned | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """What contradicts the price or a promise, with the kind of release."""
        return (
            *(f"{kind.phase}: {fault}" for kind in self.kinds for fault in kind.faults),
            *(f"{a.phase}: the site answered when the centre {a.trick}" for a in self.attempts if a.broken),
        )

    @property
    def controls(self) -> ControlsFound | None:
        """What is told of the site's controls; None where no release of them was attacked."""
        found = [(kind, kind.controls) for kind in self.kinds if kind.controls is not None]
        if not found:
            return None
        # Releases add up as those of a child do: by the squares of their mu.
        mu = np.sqrt(sum(kind.releases * np.square(one.mu) for kind, one in found))
        areas = [area_bound(each) for each in mu.tolist()]
        whole = float(np.mean(areas))
        surely = any(
            one.area is not None and one.area - 0.5 > max(_A_COIN, 2 * (one.area_error or 0.0))
            for _, one in found
        )
        return ControlsFound(whole, max(areas), exposed=surely or whole - 0.5 > _A_COIN)

    @property
    def facts(self) -> dict[str, Any]:
        """Everything, as JSON can hold it: null stands for what is infinite or was not found."""
        training, held_out = self.price.epsilon("training"), self.price.epsilon("held-out")
        listed = ("price", "kinds", "attempts", "votes")
        said = {name: value for name, value in asdict(self).items() if name not in listed}
        kinds = [{**asdict(kind), "passed": not kind.faults, "faults": kind.faults} for kind in self.kinds]
        facts: dict[str, Any] = _finite(
            {
                **said,
                "passed": not self.faults,
                "delta": self.price.delta,
                "epsilon_training_child": training,
                "epsilon_held_out_child": held_out,
                "canary_delta": CANARY_DELTA,
                "false_positives": FALSE_POSITIVES,
                "controls": None if self.controls is None else asdict(self.controls),
                "votes": None if self.votes is None else self.votes.facts,
                "kinds": kinds,
                "attempts": [{**asdict(attempt), "broken": attempt.broken} for attempt in self.attempts],
            }
        )
        return facts


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
