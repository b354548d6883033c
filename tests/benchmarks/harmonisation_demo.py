"""Why ComBat's r is below that of own controls in `esn-server demo --full`: on the demo's own children.

    python tests/benchmarks/harmonisation_demo.py

Draws the children of the demo's seed as `esn-client simulate --connectomes` does, and harmonises them in all
ways of `harmonisation.py`.
"""

import numpy as np
from harmonisation import ABLATIONS, ATLAS, WAYS, Site, judged, standing

from esn_client.simulation.scans import generator
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import edge_scores, load_template, strengths_of_counts
from esn_core.learning.baselines.predictors import EdgeRidge
from esn_core.protocol.rules import CohortRules
from esn_core.simulation.cohort import draw_site, subject_counts
from esn_core.simulation.consortium import CLINICAL
from esn_core.simulation.world import World
from esn_server.simulation.demo import FULL

SEED = 20261123


def demo_sites() -> list[Site]:
    """Draw the demo's hospitals."""
    atlas, template = load_atlas(ATLAS), load_template(ATLAS, simulated=True)
    rules = CohortRules(held_out_fraction=0.333, split_salt=FULL.split_salt, minimum_children=5)
    world = World.draw(atlas, CLINICAL.world, rng=generator(SEED, "world"))
    sites = []
    for name, children in FULL.children.items():
        subjects = draw_site(
            world,
            children=children,
            controls=FULL.controls,
            rng=generator(SEED, name),
            scanner=world.scanner(CLINICAL.scanner, rng=generator(SEED, name, "scanner")),
            severity_shift_sd=CLINICAL.severity_shift_sd,
        )
        rng = generator(SEED, name, "counts")
        strengths = strengths_of_counts(np.array([subject_counts(s.log_weights, rng=rng) for s in subjects]))
        age, male = standing(subjects)
        scores = edge_scores(strengths, template, age_years=age, sex=male)
        covariates = np.column_stack([(age - 10) / 10, male - 0.5])
        held = np.array([rules.holds_out(s.participant, site=name) for s in subjects])
        child = np.array([s.group == "dre" for s in subjects])
        order = np.concatenate([np.flatnonzero(child & ~held), np.flatnonzero(child & held)])
        gase = np.array([float(s.gase or 0) for s in subjects])
        sites.append(
            Site(
                strengths=strengths[order],
                scores=scores[order],
                control_scores=scores[~child],
                gase=gase[order],
                covariates=covariates[order],
                control_covariates=covariates[~child],
                training=int((child & ~held).sum()),
            )
        )
    return sites


def main() -> None:
    sites = demo_sites()
    gase = np.concatenate([s.gase[: s.training] for s in sites])
    truth = [s.gase[s.training :] for s in sites]
    print(
        "mean GASE of each site's training children:", [f"{s.gase[: s.training].mean():.1f}" for s in sites]
    )
    for way, harmonise in {**WAYS, **ABLATIONS}.items():
        scores = harmonise(sites)
        training = np.concatenate([x[: s.training] for x, s in zip(scores, sites, strict=True)])
        fitted = EdgeRidge().fit(training, gase, rng=np.random.default_rng(0))
        said = [np.clip(fitted(x[s.training :]), 1, 7) for x, s in zip(scores, sites, strict=True)]
        found = judged(said, truth)
        print(f"{way:50s} r {found.r:.3f}   within sites {found.r_within:.3f}")


if __name__ == "__main__":
    main()
