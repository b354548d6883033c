"""Severity centred at its mean, where its clipped residuals cancel, or adjusted: false edges, and r.

    python tests/benchmarks/centring.py [--worlds N] [--seed S]

Worlds of `whose_mean.py`, judged by own controls, candidates by votes; every world twice: with the GASE that
the simulator gives, which is symmetric, and with the same order of children on a skewed scale. False edges
are those that exact sums retain when the training scores are permuted, ten times a world.
"""

import argparse
from dataclasses import replace

import numpy as np
from private_pipeline import SHARES, Study, Summing
from whose_mean import EPSILONS, TRUST, by_own, candidates_from, draw, votes

from esn_core.learning.weights import pretrained
from esn_core.severity_network.centring import Centring, covariates
from esn_core.simulation.consortium import Consortium, SimulatedSite, SiteSplit

SKEWED = (0.45, 0.3, 0.1, 0.06, 0.04, 0.03, 0.02)
CENTRINGS: tuple[Centring, ...] = ("mean", "levels", "adjusted")
PERMUTATIONS = 10
Figures = dict[tuple[str, str], list[float]]


def skewed(gase: np.ndarray, severity: np.ndarray) -> np.ndarray:
    """Return as many children at each level as the skewed scale has, in the order of their severity."""
    share = (np.argsort(np.argsort(gase + 1e-6 * severity)) + 0.5) / len(gase)
    return 1.0 + np.searchsorted(np.cumsum(SKEWED)[:-1], share)


def one_world(seed: int) -> dict[tuple[str, str], tuple[float, ...]]:
    """Return false edges, and r at each epsilon, by scale and centring."""
    drawn = draw(seed)
    scores, chosen, model = [by_own(site) for site in drawn.sites], votes(drawn), pretrained("compact-3")
    everybody = np.concatenate([site.gase for site in drawn.sites])
    true = np.concatenate([site.severity for site in drawn.sites])
    ends = np.cumsum([len(site.gase) for site in drawn.sites])[:-1]
    found = {}
    for scale, gase in (("symmetric", everybody), ("skewed", skewed(everybody, true))):
        sites = tuple(
            SimulatedSite(
                SiteSplit(z[: s.training], y[: s.training], s.severity[: s.training]),
                SiteSplit(z[s.training :], y[s.training :], s.severity[s.training :]),
                len(s.controls),
            )
            for s, z, y in zip(drawn.sites, scores, np.split(gase, ends), strict=True)
        )
        consortium = Consortium(drawn.world, drawn.template, sites)
        for centring in CENTRINGS:
            of_children = tuple(covariates(s.age, s.male)[: s.training] for s in drawn.sites)
            candidates = candidates_from(drawn.atlas, chosen)
            study = Study(drawn.atlas, consortium, candidates, centring, of_children)
            figures = [false_edges(study, np.random.default_rng(seed))]
            for epsilon in EPSILONS:
                summing = Summing(epsilon, TRUST, SHARES, len(study.training))
                network, _ = study.select(summing)
                figures.append(study.network_reads(summing, network, model)[0])
            found[scale, centring] = tuple(figures)
    return found


def false_edges(study: Study, rng: np.random.Generator) -> float:
    """Return how many edges exact sums retain on average when scores are permuted over all children."""
    gase = np.concatenate([s.gase for s in study.training])
    ends = np.cumsum([len(s.gase) for s in study.training])[:-1]
    counts = []
    for _ in range(PERMUTATIONS):
        parts = np.split(rng.permutation(gase), ends)
        sites = tuple(
            replace(site, training=replace(site.training, gase=part))
            for site, part in zip(study.consortium.sites, parts, strict=True)
        )
        permuted = replace(study, consortium=replace(study.consortium, sites=sites))
        network, _ = permuted.select(Summing(None, TRUST, SHARES, len(sites)))
        counts.append(int(network.retained.sum()))
    return float(np.mean(counts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7400)
    given = parser.parse_args()
    worlds = [one_world(given.seed + k) for k in range(given.worlds)]
    print("| GASE | centre | false edges | r exact | epsilon 8 | epsilon 3 |\n|---|---|---|---|---|---|")
    for scale, centring in worlds[0]:
        false, *r = np.mean([world[scale, centring] for world in worlds], axis=0)
        print(f"| {scale} | {centring} | {false:.1f} | " + " | ".join(f"{x:.3f}" for x in r) + " |")


if __name__ == "__main__":
    main()
