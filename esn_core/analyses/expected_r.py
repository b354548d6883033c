"""What r a study of some size may expect, read off simulated consortia that were measured.

`expected_r.tsv` is written by ``tests/benchmarks/never_worse.py --write``: r inside hospitals of several
consortia, in three worlds (`esn_core.simulation.consortium`), of the consortium's model, of the strongest
that a hospital does alone, and of its personal model, which merges both. A noised sum tells as much of an
edge as a sum of fewer children without noise; by how many that is, r follows one curve in each world, which
is fitted here to all that was measured. To a hospital's own network the others' children are worth less than
its own; by how much is fitted, too. Nothing touches a child.
"""

import csv
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from esn_core.arrays import Floats
from esn_core.learning.personal_model import FEWEST_CHILDREN
from esn_core.protocol.expected_noise import noise_of_sum
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import association_release

ATLAS = "desikan-killiany-83"
"""On which all of it was measured."""
CANDIDATES = (250, 2000)
"""Measured were about 970 candidates, and 280 where counts spread as those of real people do; with fewer or
more than these, what is told is a guess."""
LEAST_GAIN = 0.01
"""Of r: a federation that gives a hospital less than this is hardly worth its privacy."""

# Variance that one child gives to an edge's sum, as `esn_core.severity_network.selection` has it.
_SAMPLING_VARIANCE = 0.6


@dataclass(frozen=True)
class Measured:
    """One consortium that was measured; r are means over its hospitals and over worlds.

    Attributes
    ----------
    world : str
    children : tuple of int
        That train at each hospital.
    noise_sd : float
        In each number of the association.
    alone, consortium, personal : float
        r inside hospitals: the strongest alone, the consortium's model, and a hospital's personal model.

    """

    world: str
    children: tuple[int, ...]
    noise_sd: float
    alone: float
    consortium: float
    personal: float


@dataclass(frozen=True)
class Expected:
    """What r to expect inside a hospital, in one simulated world.

    Attributes
    ----------
    world : str
    alone, consortium : float
    personal : float or None
        None where a hospital has too few children for a personal model, or the protocol gives none.
    error, consortium_error : float
        Root mean square of what was measured about what is told here: of hospitals' own figures, and of the
        consortium's.
    measured : bool
        Whether studies of about such sizes, noise and number of candidates were measured: beyond
        them it is a guess.

    """

    world: str
    alone: float
    consortium: float
    personal: float | None
    error: float
    consortium_error: float
    measured: bool

    @property
    def gain(self) -> float:
        """What a hospital has of the federation, over the strongest that it does alone.

        By its personal model where it has one, whose curve is also that of a model alone, so that both are
        wrong alike. The consortium's curve is wrong by more than a federation buys.
        """
        return (self.consortium if self.personal is None else self.personal) - self.alone

    @property
    def buys_little(self) -> bool:
        """Whether the gain may be less than `LEAST_GAIN`, as far as the curves tell."""
        return self.gain - (self.consortium_error if self.personal is None else self.error) < LEAST_GAIN


@dataclass(frozen=True)
class _Curve:
    """r by how many children's worth the sums have: top / (1 + (half / worth) ** steep).

    Attributes
    ----------
    top, half, steep : float
    others : float
        Of a hospital's own curve: how much of the others' worth counts beside own children.
    error : float
        Root mean square of what was measured about the curve.
    span : (float, float)
        Least and most worth that was measured.

    """

    top: float
    half: float
    steep: float
    others: float
    error: float
    span: tuple[float, float]

    def at(self, worth: float) -> float:
        return float(_rising(np.array(max(worth, 1e-6)), self.top, math.log(self.half), self.steep))

    def holds(self, worth: float) -> bool:
        # A fifth beyond what was measured is no extrapolation to speak of.
        return self.span[0] / 1.2 <= worth <= self.span[1] * 1.2


def expected_r(protocol: Protocol, *, training_children: int) -> tuple[Expected, ...]:
    """Return what r to expect in each world that was measured.

    Parameters
    ----------
    protocol : Protocol
    training_children : int
        At all sites together, which are taken to be of one size.

    """
    own = training_children / sum(protocol.trains(site) for site in protocol.sites)
    noise = noise_of_sum(protocol, association_release(protocol.candidates.released))
    merges = not protocol.against_personal_models and own >= FEWEST_CHILDREN
    found = []
    for world in dict.fromkeys(each.world for each in measured()):
        consortium, personal = _curves(world)
        all_of_them = worth(training_children, noise)
        merged = own + personal.others * worth(training_children - own, noise)
        told = [
            CANDIDATES[0] <= protocol.candidates.released <= CANDIDATES[1],
            consortium.holds(all_of_them),
            personal.holds(own),
            not merges or personal.holds(merged),
        ]
        found.append(
            Expected(
                world,
                alone=personal.at(own),
                consortium=consortium.at(all_of_them),
                personal=personal.at(merged) if merges else None,
                error=personal.error,
                consortium_error=consortium.error,
                measured=all(told),
            )
        )
    return tuple(found)


def worth(children: float, noise_sd: float) -> float:
    """Return how many children without noise would tell as much of an edge as these do with noise."""
    return children**2 / (children + noise_sd**2 / _SAMPLING_VARIANCE) if children > 0 else 0.0


@lru_cache(maxsize=1)
def measured() -> tuple[Measured, ...]:
    """Return everything that was measured, in the order of the file."""
    text = (files("esn_core.analyses") / "expected_r.tsv").read_text(encoding="utf-8")
    return tuple(
        Measured(
            row["world"],
            children_of(row["roster"]),
            float(row["noise_sd"]),
            float(row["alone"]),
            float(row["today"]),
            float(row["merged"]),
        )
        for row in csv.DictReader(text.splitlines(), delimiter="\t")
    )


def children_of(roster: str) -> tuple[int, ...]:
    """Return how many children train at each hospital of a roster such as ``100 + 5 x 15``."""
    found: list[int] = []
    for part in roster.split(" + "):
        *times, size = part.split(" x ")
        found += [int(size)] * (int(times[0]) if times else 1)
    return tuple(found)


@lru_cache(maxsize=8)
def _curves(world: str) -> tuple[_Curve, _Curve]:
    """Fit the curves of the consortium's model, and of hospitals' own: alone, and merged."""
    here = [each for each in measured() if each.world == world]
    consortium = np.array([[[worth(sum(e.children), e.noise_sd)], [0.0]] for e in here])
    # Hospitals of one roster, own and others' worth; all rosters become of one length by repetition.
    most = math.lcm(*(len(each.children) for each in here))
    alone = [[np.resize(e.children, most), np.zeros(most)] for e in here]
    merged = [
        [own := np.resize(e.children, most), [worth(sum(e.children) - n, e.noise_sd) for n in own]]
        for e in here
    ]
    r = [e.alone for e in here] + [e.personal for e in here]
    return (
        _fitted(consortium, np.array([e.consortium for e in here]), merges=False),
        _fitted(np.array(alone + merged, dtype=np.float64), np.array(r), merges=True),
    )


def _fitted(hospitals: Floats, r: Floats, *, merges: bool) -> _Curve:
    """Fit a curve to (m, 2, S) own and others' worth of each hospital, and the (m,) mean r of these."""
    # Imported here: scipy's optimiser takes half a second, and most programs expect nothing.
    from scipy.optimize import least_squares

    def said(curve: Floats) -> Floats:
        top, log_half, steep, others = curve
        each = hospitals[:, 0] + (others if merges else 0.0) * hospitals[:, 1]
        found: Floats = _rising(each, top, log_half, steep).mean(axis=1)
        return found

    def missed(curve: Floats) -> Floats:
        left: Floats = said(curve) - r
        return left

    ends = [0.1, -3.0, 0.1, 0.0], [1.0, 8.0, 5.0, 1.0]
    found = least_squares(missed, x0=[0.85, math.log(30.0), 1.0, 0.7], bounds=ends).x
    top, log_half, steep, others = (float(x) for x in found)
    error = float(np.sqrt(np.mean((said(found) - r) ** 2)))
    worths = hospitals[:, 0] + (others if merges else 0.0) * hospitals[:, 1]
    return _Curve(top, math.exp(log_half), steep, others, error, (float(worths.min()), float(worths.max())))


def _rising(worth: Floats, top: float, log_half: float, steep: float) -> Floats:
    found: Floats = top / (1 + np.exp(steep * (log_half - np.log(worth))))
    return found
