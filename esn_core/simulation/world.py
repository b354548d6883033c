"""Simulated worlds: what all sites of a consortium share, the hidden severity network included."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.errors import ConfigError
from esn_core.simulation.anatomy import Anatomy, anatomy, mirror_pairs
from esn_core.simulation.scanner import Scanner, ScannerRules
from esn_core.simulation.true_network import draw_network

CONTROL_SEVERITY_Z = -1.6
"""Where healthy children stand on the severity axis."""

# The expected streamlines at which the two shapes of `WorldRules.count_shape` hold.
_COUNTS_OF_SHAPES = (20.0, 1000.0)


@dataclass(frozen=True)
class WorldRules:
    """From what distribution a world is drawn.

    Attributes
    ----------
    severity_edges : int
        Size of the severity network.
    effect_sd : float
        Mean change of its edges per sd of severity, in each edge's own sd.
    effect_spread : float
        Effects lie within this part of `effect_sd` around it, uniformly.
    clustered : float
        Share of the network that lies in a few pairs of modules.
    block_share : float
        Most that the network holds of such a pair's bundles.
    published_regions : float
        How strongly the network prefers regions with a large published effect of epilepsy: a bundle is drawn
        with its ends' mean damage to this power. 0: all regions alike; else on desikan-killiany-83 alone.
    nuisance_factors : int
    nuisance_sd : float
        Sd that all factors together add to an edge, in the edge's own sd.
    edge_sd : (float, float)
        Range of the edges' own sd between subjects, in log units.
    tail_freedom : float or None
        Degrees of freedom of the edges' own variation, above 2; None for normal tails.
    mirror_correlation : float
        Of the own variation of an edge and of its mirror image in the other hemisphere.
    count_shape : (float, float) or None
        How much counts spread beyond all that: each is multiplied by a gamma variable of mean 1, whose shape
        is the first number where 20 streamlines or fewer are expected, the second from 1,000 on, and between
        them goes as a power of what is expected. None: not at all.
    gase_noise : float
        Sd of the rater's error, before rounding to a step of GASE.
    template_shift_sd : float
        Sd by which this population's mean log weights differ from the atlas's.
    compensated_sd : float
        Sd of the damage that one hemisphere has beyond the other's, in standard deviations of severity. The
        other hemisphere makes up for it, so that severity follows the less damaged of the two: an
        interaction between two networks, which no sum over edges can read. 0: severity is additive.

    """

    severity_edges: int = 24
    effect_sd: float = 0.75
    effect_spread: float = 0.4
    clustered: float = 0.7
    block_share: float = 1.0
    published_regions: float = 0.0
    nuisance_factors: int = 6
    nuisance_sd: float = 0.28
    edge_sd: tuple[float, float] = (0.30, 0.50)
    tail_freedom: float | None = None
    mirror_correlation: float = 0.0
    count_shape: tuple[float, float] | None = None
    gase_noise: float = 0.45
    template_shift_sd: float = 0.15
    compensated_sd: float = 0.0

    def __post_init__(self) -> None:
        if self.tail_freedom is not None and not self.tail_freedom > 2:
            raise ConfigError(f"tails of {self.tail_freedom} degrees of freedom have no sd; above 2 they do")
        if not 0 <= self.compensated_sd < np.inf:
            raise ConfigError(f"the sd of compensated damage is 0 or more, not {self.compensated_sd}")
        if not 0 < self.edge_sd[0] <= self.edge_sd[1]:
            raise ConfigError(f"the edges' sd needs a range of positive numbers, not {self.edge_sd}")
        if not 0 <= self.mirror_correlation <= 1:
            raise ConfigError(f"mirror edges correlate by 0 to 1, not {self.mirror_correlation}")
        if self.count_shape is not None and not min(self.count_shape) > 0:
            raise ConfigError(f"the shape of counts needs two positive numbers, not {self.count_shape}")
        if not 0 <= self.published_regions < np.inf:
            raise ConfigError(f"a preference for regions is 0 or more, not {self.published_regions}")


@dataclass(frozen=True)
class World:
    """What all simulated sites share: anatomy, the effects of age and sex, and the severity network.

    Attributes
    ----------
    atlas : Atlas
    mean : (E,) float64
        Log weight of healthy children at ten years, midway between the sexes.
    present : (E,) bool
        The edges that have a bundle.
    sd : (E,) float64
        Between subjects.
    age_slope, sex_slope : (E,) float64
        Per year; boys minus girls.
    severity_slope : (E,) float64
        Per standard deviation of severity, from that of healthy children onwards; not zero in the severity
        network alone.
    factors : (K, E) float64
        Low-rank nuisance: how each factor moves each log weight.
    tail_freedom : float or None
        Degrees of freedom of the edges' own variation; None for normal tails.
    mirror_correlation : float
        Of the own variation of an edge and of its mirror image.
    count_shape : (float, float) or None
        See `WorldRules`.
    gase_noise : float
        Sd of the rater's error, before rounding to a step of GASE.
    compensated_sd : float
        Sd of the damage that one hemisphere has beyond the other's; see `WorldRules`.

    """

    atlas: Atlas
    mean: Floats
    present: NDArray[np.bool_]
    sd: Floats
    age_slope: Floats
    sex_slope: Floats
    severity_slope: Floats
    factors: Floats
    tail_freedom: float | None
    mirror_correlation: float
    count_shape: tuple[float, float] | None
    gase_noise: float
    compensated_sd: float

    @cached_property
    def mirror(self) -> NDArray[np.int64]:
        """Of each of the (E,) edges, the first of itself and its mirror image."""
        return mirror_pairs(self.atlas)

    @property
    def severity_edges(self) -> NDArray[np.int64]:
        """The positions of the edges of the hidden severity network."""
        return np.flatnonzero(self.severity_slope)

    @classmethod
    def draw(
        cls,
        atlas: Atlas,
        rules: WorldRules = WorldRules(),
        *,
        rng: np.random.Generator,
        shared: Anatomy | None = None,
    ) -> "World":
        """Draw a world: the atlas's anatomy, mildly shifted, and a severity network of its own.

        Parameters
        ----------
        atlas : Atlas
        rules : WorldRules
        rng : Generator
        shared : Anatomy, optional
            The atlas's own when it is not given.

        Returns
        -------
        World

        Raises
        ------
        ConfigError
            The atlas has fewer measurable bundles than the network should have edges.

        """
        shared = shared or anatomy(atlas)
        edges = len(shared.mean)
        mean = shared.mean + rules.template_shift_sd * rng.normal(size=edges)
        sd = rng.uniform(*rules.edge_sd, edges)
        network = draw_network(
            atlas,
            shared,
            size=rules.severity_edges,
            clustered=rules.clustered,
            block_share=rules.block_share,
            published_regions=rules.published_regions,
            rng=rng,
        )
        effect = np.zeros(edges)
        low, high = 1 - rules.effect_spread, 1 + rules.effect_spread
        effect[network] = -rng.uniform(low, high, len(network)) * rules.effect_sd
        effect[network] *= np.where(rng.random(len(network)) < 0.85, 1, -1)  # mostly weaker with severity
        a, b = atlas.edges.T
        nodes = rng.normal(size=(rules.nuisance_factors, len(atlas.regions)))
        factors = nodes[:, a] * nodes[:, b]
        factors /= np.sqrt(np.mean(factors**2, axis=1, keepdims=True) * max(rules.nuisance_factors, 1))
        return cls(
            atlas=atlas,
            mean=mean,
            present=shared.present,
            sd=sd,
            age_slope=rng.normal(0.03, 0.015, edges),
            sex_slope=rng.normal(0, 0.08, edges),
            severity_slope=effect * sd,
            factors=rules.nuisance_sd * factors * sd,
            tail_freedom=rules.tail_freedom,
            mirror_correlation=rules.mirror_correlation,
            count_shape=rules.count_shape,
            gase_noise=rules.gase_noise,
            compensated_sd=rules.compensated_sd,
        )

    def scanner(self, rules: ScannerRules | None = None, *, rng: np.random.Generator) -> Scanner:
        """Draw the effects of one site's scanner."""
        rules = rules or ScannerRules()
        edges = len(self.mean)
        offset = rules.offset_sd * rng.normal(size=edges) * self.sd + rng.normal(0, rules.gain_sd)
        return Scanner(offset, np.exp(rng.normal(0, rules.log_spread_sd, edges)))

    def log_weights(
        self,
        age_years: Floats,
        male: Floats,
        severity: Floats,
        *,
        scanner: Scanner,
        rng: np.random.Generator,
    ) -> Floats:
        """Draw the log weights of many subjects.

        Parameters
        ----------
        age_years, male, severity : (n,) float64
            `male` is 0 or 1; `severity` is in standard deviations of the patients.
        scanner : Scanner
        rng : Generator

        Returns
        -------
        (n, E) float64

        """
        subjects, edges = len(severity), len(self.mean)
        deviation = self._own_variation((subjects, edges), rng) * self.sd
        deviation += rng.normal(size=(subjects, len(self.factors))) @ self.factors
        deviation += (severity - CONTROL_SEVERITY_Z)[:, None] * self.severity_slope
        if self.compensated_sd:
            deviation += self._compensated_damage(severity, rng) * self.severity_slope
        expected = self.mean + np.outer(age_years - 10, self.age_slope) + np.outer(male - 0.5, self.sex_slope)
        head = rng.normal(0, 0.15, (subjects, 1))  # size and gain of the whole scan
        log_weights = expected + head + scanner.offset + scanner.gain * deviation
        if self.count_shape is not None:
            log_weights = log_weights + self._spread_of_counts(log_weights, self.count_shape, rng)
        return log_weights

    @staticmethod
    def _spread_of_counts(
        log_weights: Floats, shapes: tuple[float, float], rng: np.random.Generator
    ) -> Floats:
        """Draw the (n, E) logarithms of gamma variables of mean 1 (`WorldRules.count_shape`)."""
        shape = np.exp(np.interp(log_weights, np.log(_COUNTS_OF_SHAPES), np.log(shapes)))
        # A gamma variable of a small shape may be too small for a number: it counts as one that is just not.
        drawn = np.maximum(rng.gamma(shape) / shape, np.finfo(np.float64).tiny)
        spread: Floats = np.log(drawn)
        return spread

    def _compensated_damage(self, severity: Floats, rng: np.random.Generator) -> Floats:
        """Draw (n, E) damage beyond the other hemisphere's; an edge between two has half of each side's.

        Healthy children, who stand at one severity exactly, have none.
        """
        imbalance = rng.normal(0, self.compensated_sd, len(severity)) * (severity != CONTROL_SEVERITY_Z)
        beyond = {"L": np.maximum(imbalance, 0), "R": np.maximum(-imbalance, 0), "M": np.abs(imbalance) / 2}
        regions = np.column_stack([beyond[region.hemisphere] for region in self.atlas.regions])
        damage: Floats = regions[:, self.atlas.edges].mean(axis=2)
        return damage

    def _own_variation(self, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
        """Draw numbers of sd 1, with the world's tails and what mirror images share."""
        own = self._tailed(shape, rng)
        if not self.mirror_correlation:
            return own
        shared = self._tailed(shape, rng)[:, self.mirror]
        share = self.mirror_correlation
        mixed: Floats = np.sqrt(share) * shared + np.sqrt(1 - share) * own
        return mixed

    def _tailed(self, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
        """Draw numbers of sd 1, with the world's tails."""
        if self.tail_freedom is None:
            return rng.normal(size=shape)
        sd = np.sqrt(self.tail_freedom / (self.tail_freedom - 2))
        drawn: Floats = rng.standard_t(self.tail_freedom, shape) / sd
        return drawn
