"""Simulated anatomy: which pairs of regions have a bundle, and how strong it is on average.

The human anatomy was calibrated against the group structural connectome of the
Human Connectome Project that the ENIGMA Toolbox distributes (BSD-3-Clause;
n = 207, log streamline counts, 68 cortical and 14 subcortical
Desikan-Killiany regions; Larivière et al. 2021, Nature Methods 18:698).
No number of that matrix is stored here: two regressions on the distance
between centroids, crossing and homotopy were fitted to it (a probit model of
presence, a linear model of the log counts that are there), and the spread of
the regions and the mirror symmetry were chosen so that simulated anatomies
have its statistics. Decision 0050 holds the fit and the agreement.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas, Hemisphere


@dataclass(frozen=True)
class Anatomy:
    """The mean healthy connectome that all worlds of an atlas share.

    Attributes
    ----------
    mean : (E,) float64
        Log of the expected streamlines of each edge, in the order of ``Atlas.edges``.
    present : (E,) bool
        The edges that have a bundle.

    """

    mean: Floats
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class HumanAnatomyRules:
    """Parameters of the human anatomy, as fitted to the group connectome.

    A pair has a bundle when its presence score is above 0; the scores are in
    standard deviations of their irregular part (probit). Weights are in log
    streamlines, before they are scaled to `streamlines`.

    Attributes
    ----------
    presence_at_0_mm, presence_per_mm, presence_crossing, presence_homotopic : float
        Mean score: at no distance; per mm between the centroids; for a pair across the midline; for
        mirror images of each other, beyond crossing.
    presence_region_sd : float
        Between regions: a well-connected region adds to all its pairs.
    weight_per_mm, weight_crossing, weight_homotopic : float
    weight_region_sd, weight_sd : float
        Between regions, and between all pairs alike in distance and kind (regions included).
    mirror_correlation : float
        Of the irregular parts of a pair and its mirror image.
    streamlines : float
        Expected streamlines between regions in one scan.
    absent_log_weight : float
        Where there is no bundle: stray streamlines.

    """

    presence_at_0_mm: float = 1.75
    presence_per_mm: float = -0.0269
    presence_crossing: float = -0.541
    presence_homotopic: float = 1.05
    presence_region_sd: float = 0.55
    weight_per_mm: float = -0.0276
    weight_crossing: float = -1.70
    weight_homotopic: float = 1.45
    weight_region_sd: float = 0.80
    weight_sd: float = 1.92
    mirror_correlation: float = 0.65
    streamlines: float = 500_000.0
    absent_log_weight: float = -1.0


def anatomy(atlas: Atlas) -> Anatomy:
    """Return the anatomy of an atlas: human, or for a phantom the one that its diffusion scan can hold.

    The irregular part is drawn from the atlas's digest, so that every world has the same anatomy.
    """
    return phantom_anatomy(atlas) if atlas.name.startswith("phantom-") else human_anatomy(atlas)


def phantom_anatomy(atlas: Atlas, *, present_share: float = 0.2) -> Anatomy:
    """Compute the mean log weights that a phantom's geometry suggests.

    Weights fall exponentially with distance (Ercsey-Ravasz et al. 2013, Neuron 80:184), homotopic pairs
    are favoured over other commissural ones, and regions differ in size. Few bundles are present, and all
    of them strong: a simulated scan has room for no more.

    Parameters
    ----------
    atlas : Atlas
    present_share : float
        Share of the edges that have a bundle; the others are all but empty.

    """
    rng = _rng(atlas)
    a, b = atlas.edges.T
    distance_mm, crossing, homotopic, stem = _geometry(atlas)
    sizes = {name: rng.normal(0, 0.2) for name in sorted(set(stem.tolist()))}
    size = np.array([sizes[name] for name in stem.tolist()])
    score = -distance_mm / 40 - 1.2 * crossing + 2.6 * homotopic + size[a] + size[b]
    score = score + rng.normal(0, 0.45, len(a))
    cut = np.quantile(score, 1 - present_share)
    present = score > cut
    return Anatomy(
        np.where(present, 3.8 + 0.7 * np.minimum(score - cut, 2.0), 1.0 + 2.0 * (score - cut)), present
    )


def human_anatomy(
    atlas: Atlas, rules: HumanAnatomyRules = HumanAnatomyRules(), *, rng: np.random.Generator | None = None
) -> Anatomy:
    """Draw the mean connectome of an atlas of the human brain.

    Parameters
    ----------
    atlas : Atlas
    rules : HumanAnatomyRules
    rng : Generator, optional
        Seeded by the atlas's digest when it is not given.

    """
    rng = rng or _rng(atlas)
    a, b = atlas.edges.T
    distance_mm, crossing, homotopic, stem = _geometry(atlas)
    pair = mirror_pairs(atlas)

    def regions(sd: float) -> Floats:
        """Draw one number for each pair of mirrored regions; give each edge the sum of its two ends."""
        names, index = np.unique(stem, return_inverse=True)
        each = rng.normal(0, sd, len(names))[index]
        drawn: Floats = each[a] + each[b]
        return drawn

    def irregular(sd: float) -> Floats:
        shared, own = rng.normal(size=len(a))[pair], rng.normal(size=len(a))
        share = rules.mirror_correlation
        drawn: Floats = sd * (np.sqrt(share) * shared + np.sqrt(1 - share) * own)
        return drawn

    # The probit was fitted without the regions' own part: its scale grows by what they add.
    score = (
        rules.presence_at_0_mm
        + rules.presence_per_mm * distance_mm
        + rules.presence_crossing * crossing
        + rules.presence_homotopic * homotopic
    ) * np.sqrt(1 + 2 * rules.presence_region_sd**2)
    present = score + regions(rules.presence_region_sd) + irregular(1.0) > 0
    residual_sd = np.sqrt(max(rules.weight_sd**2 - 2 * rules.weight_region_sd**2, 0.0))
    weight = (
        rules.weight_per_mm * distance_mm
        + rules.weight_crossing * crossing
        + rules.weight_homotopic * homotopic
        + regions(rules.weight_region_sd)
        + irregular(residual_sd)
    )
    weight = weight + np.log(rules.streamlines / np.exp(weight[present]).sum())
    return Anatomy(np.where(present, weight, rules.absent_log_weight), present)


def _rng(atlas: Atlas) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(atlas.sha256.encode()).hexdigest()[:16], 16))


def _geometry(atlas: Atlas) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.str_]]:
    """Return each edge's length, whether it crosses the midline, whether it is homotopic; region stems."""
    a, b = atlas.edges.T
    xyz = atlas.centroids_mm
    side = np.array([region.hemisphere for region in atlas.regions])
    stem = np.array([region.stem for region in atlas.regions])
    # A midline region lies on both sides.
    crossing = (side[a] != side[b]) & np.isin(side[a], ("L", "R")) & np.isin(side[b], ("L", "R"))
    distance_mm = np.linalg.norm(xyz[a] - xyz[b], axis=1)
    return distance_mm, crossing, crossing & (stem[a] == stem[b]), stem


def mirror_pairs(atlas: Atlas) -> NDArray[np.int64]:
    """Return, for each of the atlas's edges, which is the first of itself and its mirror image."""
    at = {(region.stem, region.hemisphere): i for i, region in enumerate(atlas.regions)}
    other: dict[Hemisphere, Hemisphere] = {"L": "R", "R": "L", "M": "M"}
    mirror = [at.get((r.stem, other[r.hemisphere]), i) for i, r in enumerate(atlas.regions)]
    position = {(a, b): e for e, (a, b) in enumerate(atlas.edges.tolist())}
    pairs = []
    for e, (a, b) in enumerate(atlas.edges.tolist()):
        image = (min(mirror[a], mirror[b]), max(mirror[a], mirror[b]))
        pairs.append(min(e, position.get(image, e)))
    return np.array(pairs, dtype=np.int64)
