"""A simulated consortium: the edge scores and severities of every site, as the sites would compute them.

No scans: counts are drawn from the world's log weights. Everything after that
is what a site does with its own connectomes: strengths, and scores against the
site's own controls, or against a public template less their offset.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.connectome.control_offset import control_offset
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import REFERENCE_AGE_YEARS, Template, edge_scores, strengths_of_counts
from esn_core.errors import ConfigError
from esn_core.simulation.anatomy import Anatomy, anatomy
from esn_core.simulation.cohort import Subject, draw_site, subject_counts
from esn_core.simulation.scanner import ScannerRules
from esn_core.simulation.true_network import MEASURABLE_LOG_WEIGHT
from esn_core.simulation.world import World, WorldRules

# Of all edges' spread between subjects, at least so much, in units of strength: an
# edge without streamlines has no spread of its own, and scores are divided by it.
_SMALLEST_SD = 0.05


@dataclass(frozen=True)
class ConsortiumRules:
    """From what distribution a consortium is drawn.

    Attributes
    ----------
    world : WorldRules
    scanner : ScannerRules
    sites : int
        That train.
    unseen_sites : int
        That only evaluate.
    children : (int, int)
        Fewest and most training children of a site.
    held_out : int
        Held-out children of each site; the only children of an unseen one.
    controls : (int, int)
        Fewest and most controls of a site.
    severity_shift_sd : float
        Between sites, in steps of GASE: severity is confounded with the scanner.

    """

    world: WorldRules = field(default_factory=WorldRules)
    scanner: ScannerRules = field(default_factory=ScannerRules)
    sites: int = 6
    unseen_sites: int = 0
    children: tuple[int, int] = (25, 60)
    held_out: int = 30
    controls: tuple[int, int] = (10, 25)
    severity_shift_sd: float = 0.4

    def __post_init__(self) -> None:
        for what, (fewest, most) in (("children", self.children), ("controls", self.controls)):
            if not 0 <= fewest <= most:
                raise ConfigError(f"a site's {what} need a range of sizes, not {fewest} to {most}")
        if self.sites < 1 or self.unseen_sites < 0 or self.held_out < 0:
            raise ConfigError(
                f"a consortium has one training site or more, not {self.sites}, and no fewer than 0 unseen "
                f"sites and held-out children, not {self.unseen_sites} and {self.held_out}"
            )


CLINICAL = ConsortiumRules(
    world=WorldRules(
        severity_edges=120,
        effect_sd=0.55,
        effect_spread=0.5,
        block_share=0.6,
        nuisance_factors=12,
        nuisance_sd=0.56,
        edge_sd=(0.35, 0.6),
        tail_freedom=6.0,
        gase_noise=0.55,
        template_shift_sd=0.3,
    ),
    scanner=ScannerRules(offset_sd=1.3, gain_sd=0.25, log_spread_sd=0.3),
)
"""As hard as METHOD's simulated consortium, on desikan-killiany-83.

Mean of 14 worlds, held-out children: the signed scores of FDR-selected edges give r .86 when all training
children are pooled; a ridge at one site alone gives .76 (METHOD: .86 and .77)."""

WEAK = replace(CLINICAL, world=replace(CLINICAL.world, effect_sd=0.4))
"""As `CLINICAL`, with a weaker truth: the weighted sum reaches a pooled r of about .79."""

NON_ADDITIVE = replace(CLINICAL, world=replace(CLINICAL.world, effect_sd=0.7, compensated_sd=3.0))
"""As `CLINICAL`, but severity follows the less damaged hemisphere: what a sum over edges cannot read.

Mean of 4 worlds, without noise: the weighted sum gives r .73; two sums, one for each hemisphere, with the
size of their difference give .84."""


EPILEPSY = replace(CLINICAL, world=replace(CLINICAL.world, published_regions=2.0))
"""As `CLINICAL`, but the network prefers regions that epilepsy is known to reduce (decision 0113)."""

SOBER = replace(CLINICAL, world=replace(CLINICAL.world, effect_sd=0.28, mirror_correlation=0.27))
"""As `CLINICAL`, with half the effect, and mirror edges as correlated as in real people (decision 0210)."""

COUNTS = replace(CLINICAL, world=replace(CLINICAL.world, count_shape=(0.1, 4.0)))
"""As `CLINICAL`, with counts that spread about as those of 80 real people do (decision 0210)."""

WORLDS = {
    "clinical": CLINICAL,
    "sober": SOBER,
    "counts": COUNTS,
    "weak": WEAK,
    "non-additive": NON_ADDITIVE,
    "epilepsy": EPILEPSY,
}
"""The named worlds."""


@dataclass(frozen=True)
class SiteSplit:
    """Children of one split at one site.

    Attributes
    ----------
    scores : (n, E) float64
        Against the site's own controls; or against the public template, less their offset.
    gase : (n,) float64
    severity : (n,) float64
        The hidden severity, in standard deviations of the patients.

    """

    scores: Floats
    gase: Floats
    severity: Floats


@dataclass(frozen=True)
class SimulatedSite:
    """One site of a simulated consortium; an unseen site trains nothing."""

    training: SiteSplit
    held_out: SiteSplit
    controls: int


@dataclass(frozen=True)
class Consortium:
    """A simulated consortium, and the truth behind it."""

    world: World
    template: Template
    sites: tuple[SimulatedSite, ...]


def draw_consortium(
    atlas: Atlas,
    rules: ConsortiumRules = ConsortiumRules(),
    *,
    rng: np.random.Generator,
    shared: Anatomy | None = None,
    template: Template | None = None,
    shrinkage_controls: float | None = None,
) -> Consortium:
    """Draw a world and its sites.

    Parameters
    ----------
    atlas : Atlas
    rules : ConsortiumRules
    rng : Generator
    shared : Anatomy, optional
        The atlas's own when it is not given.
    template : Template, optional
        The public template; drawn by `public_template` when it is not given.
    shrinkage_controls : float, optional
        Score by the template, less the sites' offsets, which are shrunk by so many controls. Scored by each
        site's own controls otherwise.

    Returns
    -------
    Consortium
        Training sites first.

    """
    shared = shared or anatomy(atlas)
    template = template or public_template(atlas, shared, rng=rng)
    world = World.draw(atlas, rules.world, rng=rng, shared=shared)
    sites = []
    for index in range(rules.sites + rules.unseen_sites):
        trains = index < rules.sites
        children = int(rng.integers(rules.children[0], rules.children[1] + 1)) if trains else 0
        controls = int(rng.integers(rules.controls[0], rules.controls[1] + 1))
        counts, subjects = _draw_site(world, rules, children=children, controls=controls, rng=rng)
        strengths = strengths_of_counts(counts)
        scores = (
            _own_scores(subjects, strengths)
            if shrinkage_controls is None
            else _offset_scores(subjects, strengths, template, shrinkage_controls)
        )
        sites.append(_simulated_site(subjects, scores, children=children))
    return Consortium(world, template, tuple(sites))


def public_template(
    atlas: Atlas,
    shared: Anatomy | None = None,
    *,
    rng: np.random.Generator,
    controls: int = 200,
) -> Template:
    """Estimate a template from healthy children of a reference population, on a scanner of its own.

    The population differs from every world of a study by its own shift of the
    atlas's anatomy (``WorldRules.template_shift_sd``).

    Parameters
    ----------
    atlas : Atlas
    shared : Anatomy, optional
        The atlas's own when it is not given.
    rng : Generator
    controls : int
        Healthy children.

    Returns
    -------
    Template
        An edge is present when its bundle has 4.5 streamlines or more on average.

    """
    shared = shared or anatomy(atlas)
    world = World.draw(atlas, rng=rng, shared=shared)
    subjects = draw_site(world, children=0, controls=controls, rng=rng)
    counts = np.array([subject_counts(subject.log_weights, rng=rng) for subject in subjects])
    strengths = strengths_of_counts(counts)
    design = np.array([[1.0, s.age_years - REFERENCE_AGE_YEARS, (s.sex == "M") - 0.5] for s in subjects])
    coefficients, *_ = np.linalg.lstsq(design, strengths, rcond=None)
    residual = strengths - design @ coefficients
    spread = np.sqrt((residual**2).sum(axis=0) / (controls - design.shape[1]))
    return Template(
        atlas=atlas.name,
        mean=coefficients[0],
        sd=np.maximum(spread, _SMALLEST_SD),
        age_slope=coefficients[1],
        sex_slope=coefficients[2],
        present=shared.present & (counts.mean(axis=0) >= np.exp(MEASURABLE_LOG_WEIGHT)),
        sha256="0" * 64,  # no table stands behind a simulated template
    )


def _own_scores(subjects: tuple[Subject, ...], strengths: Floats) -> Floats:
    """Score a site's children by its controls."""
    child = _children(subjects)
    reference = ControlReference.of_controls(strengths[~child])
    return np.array([reference.scores(each) for each in strengths[child]])


def _offset_scores(
    subjects: tuple[Subject, ...], strengths: Floats, template: Template, shrinkage_controls: float
) -> Floats:
    """Score a site's children by the template, less the offset of its controls."""
    scores = edge_scores(
        strengths,
        template,
        age_years=np.array([s.age_years for s in subjects]),
        sex=np.array([float(s.sex == "M") for s in subjects]),
    )
    child = _children(subjects)
    return scores[child] - control_offset(scores[~child], shrinkage_controls=shrinkage_controls)


def _children(subjects: tuple[Subject, ...]) -> NDArray[np.bool_]:
    return np.array([subject.gase is not None for subject in subjects])


def _draw_site(
    world: World,
    rules: ConsortiumRules,
    *,
    children: int,
    controls: int,
    rng: np.random.Generator,
) -> tuple[Floats, tuple[Subject, ...]]:
    """Draw a site's children, those to be held out last, and its controls; and the (n, E) counts of all."""
    subjects = draw_site(
        world,
        children=children + rules.held_out,
        controls=controls,
        rng=rng,
        scanner=world.scanner(rules.scanner, rng=rng),
        severity_shift_sd=rules.severity_shift_sd,
    )
    return subject_counts(np.array([s.log_weights for s in subjects]), rng=rng), subjects


def _simulated_site(subjects: tuple[Subject, ...], scores: Floats, *, children: int) -> SimulatedSite:
    patients = len(scores)
    gase = np.array([s.gase for s in subjects[:patients]], dtype=np.float64)
    severity = np.array([s.severity for s in subjects[:patients]])
    first, rest = slice(0, children), slice(children, patients)
    return SimulatedSite(
        training=SiteSplit(scores[first], gase[first], severity[first]),
        held_out=SiteSplit(scores[rest], gase[rest], severity[rest]),
        controls=len(subjects) - patients,
    )
