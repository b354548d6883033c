"""What an attacker learns of one healthy control: from a study's noised sums, and from a pooled reference.

    python tests/benchmarks/control_membership.py [--worlds N] [--seed S]

`study`: the attacker knows every child, and all controls of the site but one, and sees the association sum of
a default study (own controls, secure sum, delta 1e-3). Whether that control is there moves the sum by a known
vector; the area under the curve of the best guess follows from its length over the noise. `blind`: the
attacker knows that control and the mean of other healthy people of the hospital. `pooled`: the
attacker has a person's connectome, those of twenty other healthy people of each hospital, and the published
reference.
"""

import argparse
import math
import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from private_pipeline import SHARES
from whose_mean import ATLAS, CLINICAL, Drawn, Floats, Site, draw, votes

from esn_client.privacy_audit.attacks import area, area_bound
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.own_controls import ControlReference
from esn_core.gase import standardise_severity
from esn_core.privacy.accounting import mu_for, noise_multiplier_for
from esn_core.severity_network.association import RESIDUAL_CLIP, association_release, rows_of_residuals
from esn_core.severity_network.candidate_list import pairs_of
from esn_core.severity_network.pooled_reference import PooledReference, reference_rows

DELTA = 1e-3
STUDIES = 60
OTHERS = 20
"""Healthy people of each hospital whom the attacker knows beside."""


def study(drawn: Drawn, *, controls: int, epsilon: float) -> Floats:
    """Area of the best guess about one control who knows all else, for some controls of each site."""
    chosen = np.flatnonzero(votes(drawn))
    kind = association_release(len(chosen))
    share = SHARES["association"]
    noise = noise_multiplier_for(mu_for(epsilon, DELTA), share=share, releases=1) * kind.l2_bound
    mean = float(np.mean(np.concatenate([standardise_severity(s.gase[: s.training]) for s in drawn.sites])))
    found = []
    for site in drawn.sites:
        residual = standardise_severity(site.gase[: site.training]) - mean
        own = site.controls[:controls]
        whole = _association(site, own, residual, chosen)
        for left_out in range(min(controls, 5)):
            without = _association(site, np.delete(own, left_out, axis=0), residual, chosen)
            found.append(np.linalg.norm(whole - without) / noise)
    return np.array(found)


def _association(site: Site, controls: Floats, residual: Floats, chosen: NDArray[np.int64]) -> Floats:
    reference = ControlReference.of_controls(controls)
    scores = np.array([reference.scores(x) for x in site.children[: site.training]])[:, chosen]
    features = np.clip(scores, -4, 4)
    rows = rows_of_residuals(features, np.clip(residual, -RESIDUAL_CLIP, RESIDUAL_CLIP))
    return np.asarray(rows.sum(axis=0), dtype=np.float64)


def blind(drawn: Drawn, *, controls: int, epsilon: float, rng: np.random.Generator) -> Floats:
    """Area for each control, of an attacker who knows that person alone, and the site's healthy mean.

    Over studies of which half of the children and half of twice the controls take part, each by a coin.
    """
    chosen = np.flatnonzero(votes(drawn))
    kind = association_release(len(chosen))
    noise = noise_multiplier_for(mu_for(epsilon, DELTA), share=SHARES["association"], releases=1)
    mean = float(np.mean(np.concatenate([standardise_severity(s.gase[: s.training]) for s in drawn.sites])))
    seen, inside, towards = [], [], []
    for _ in range(STUDIES):
        total, here, signs = rng.normal(size=len(chosen)) * noise * kind.l2_bound, [], []
        for site in drawn.sites:
            takes_part = rng.permutation(2 * controls) < controls
            children = rng.permutation(site.training) < site.training // 2
            own = replace(site, children=site.children[: site.training][children], training=children.sum())
            residual = standardise_severity(site.gase[: site.training][children]) - mean
            total = total + _association(own, site.controls[: 2 * controls][takes_part], residual, chosen)
            here.append(takes_part)
            signs.append(-np.sign(residual.sum()))
        seen.append(total)
        inside.append(here)
        towards.append(signs)
    totals, members, signed = np.array(seen), np.array(inside), np.array(towards)
    areas = []
    for k, site in enumerate(drawn.sites):
        others = site.controls[2 * controls : 2 * controls + OTHERS][:, chosen]
        for person in range(2 * controls):
            way = (site.controls[person, chosen] - others.mean(axis=0)) / others.std(axis=0, ddof=1).clip(
                0.05
            )
            areas.append(area((totals @ way) * signed[:, k], members[:, k, person]))
    return np.array(areas)


def pooled(drawn: Drawn, *, controls: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores of people who are in the pooled controls of the sites, and of as many who are not."""
    chosen = votes(drawn)
    members = [site.controls[:controls] for site in drawn.sites]
    rows = np.concatenate([reference_rows(own, chosen) for own in members])
    published, known = PooledReference.from_total(rows.sum(axis=0), sites=len(drawn.sites))
    reference = published.reference(load_atlas(ATLAS), pairs_of(load_atlas(ATLAS), known))
    at = np.flatnonzero(known)
    others = [site.controls[2 * controls : 2 * controls + OTHERS] for site in drawn.sites]
    expected = np.mean([own[:, at].mean(axis=0) for own in others], axis=0)
    surplus = (reference.mean[at] - expected) / reference.sd[at] ** 2
    scores, inside = [], []
    for site, known_others in zip(drawn.sites, others, strict=True):
        middle = known_others[:, at].mean(axis=0)
        for person in range(2 * controls):
            scores.append(float((site.controls[person, at] - middle) @ surplus))
            inside.append(person < controls)
    return np.array(scores), np.array(inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7400)
    asked = parser.parse_args()
    worlds = []
    for index in range(asked.worlds):
        worlds.append(draw(asked.seed + index, replace(CLINICAL, controls=(60, 60))))
        print(f"world {index + 1}", file=sys.stderr)
    print("study: all else known; area, median and largest; r of the control's deviation with the best guess")
    for controls in (5, 10, 20):
        for epsilon in (8.0, 3.0):
            moved = np.concatenate([study(w, controls=controls, epsilon=epsilon) for w in worlds])
            edges = np.mean([votes(w).sum() for w in worlds])
            middle, largest = (area_bound(float(x)) for x in (np.median(moved), moved.max()))
            r = math.sqrt(np.median(moved) ** 2 / (np.median(moved) ** 2 + edges))
            print(f"  {controls:2d} controls, epsilon {epsilon:g}: {middle:.2f}, {largest:.2f}; r {r:.2f}")
    print("study: one person known; area, mean over controls, and standard error over worlds")
    for controls in (5, 10, 20):
        rng = np.random.default_rng(asked.seed)
        each = [float(blind(w, controls=controls, epsilon=8.0, rng=rng).mean()) for w in worlds]
        print(f"  {controls:2d} controls, epsilon 8: {np.mean(each):.3f} ± {_error(each):.3f}")
    print("pooled reference of six sites: area, mean over worlds, and standard error")
    for controls in (5, 10, 20):
        each = [area(*pooled(w, controls=controls)) for w in worlds]
        print(f"  {controls:2d} controls a site: {np.mean(each):.3f} ± {_error(each):.3f}")


def _error(each: list[float]) -> float:
    return float(np.std(each, ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan


if __name__ == "__main__":
    main()
