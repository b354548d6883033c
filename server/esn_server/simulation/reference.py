"""What simulated children show without a federation: pooled, one site alone, other predictors, chance.

Only a demo can compute this: it has the simulated hospitals' files, and no
patient exists. Nothing is spent, and nothing of it is computed in a study of
real children.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_core.analyses.expected_r import ATLAS, expected_r
from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS, control_offset
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import edge_scores, load_template, strengths_of_counts
from esn_core.gase import standardise_severity
from esn_core.learning.baselines.predictors import (
    CompactDcnnRn,
    EdgeRidge,
    Rated,
    all_baselines,
    compare,
    permuted_r,
    rate,
    reader_of,
)
from esn_core.learning.baselines.strongest_alone import strongest_alone
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.combat import (
    COVARIATE_NORM,
    ComBatSite,
    age_and_sex,
    combat_dimension,
    combat_model,
    combat_rows,
    covariates_of,
)
from esn_server.report.analyses import (
    AloneAtSite,
    Compared,
    Harmonisation,
    LocalOnly,
    Permutations,
)
from esn_server.report.result import StudyResult
from esn_server.simulation.truth import network_truth, true_effects, truth_r

_PERMUTATIONS = 200

_NOTE = (
    "Simulated children, without noise and without a federation: nothing is spent. A site alone has the "
    "best, by its own cross-validation, of three: its own severity network read by the pre-trained DCNN+RN, "
    "ridge, and CPM. All pooled have the study's own pipeline. Both are judged by all held-out children."
)


@dataclass(frozen=True)
class _Site:
    """One simulated hospital's children and controls: (n, E) edge strengths, and scores by the template."""

    children: Floats
    controls: Floats
    by_template: Floats
    controls_by_template: Floats
    gase: Floats
    held_out: NDArray[np.bool_]
    age_years: Floats
    sex: Floats


def with_sites_alone(
    result: StudyResult, protocol: Protocol, hospitals: Mapping[str, Path], *, seed: int
) -> StudyResult:
    """Add to a result what each site would have found alone, and how much of its network is true.

    Parameters
    ----------
    result : StudyResult
    protocol : Protocol
        Of simulated children.
    hospitals : dict of str to Path
        Directory of each site, with ``bids``, ``derivatives`` and ``truth.npz``.
    seed : int
        Of the networks' first weights.

    """
    atlas, rng = protocol.atlas, np.random.default_rng(seed)
    sites = {name: _read(path, name, protocol, atlas) for name, path in hospitals.items()}
    ours = CompactDcnnRn(atlas, protocol.candidates, protocol.model.initial_weights)
    scores, controls = _scored(sites, protocol), _controls_scored(sites, protocol)
    held_out = _pooled(sites, scores, held_out=True)
    pooled = rate(
        "pooled", ours.fit(*_pooled(sites, scores, held_out=False), rng=rng)(held_out[0]), held_out[1]
    )
    alone = [
        _alone(name, site, scores[name], controls[name], protocol, held_out) for name, site in sites.items()
    ]
    network = result.severity_network
    truth = network_truth(network, atlas, protocol.candidates.edges, true_effects(hospitals))
    return result.model_copy(
        update={
            "absent": _without(result.absent, "local_only"),
            "local_only": LocalOnly(
                note=f"{_NOTE} {_in_other_worlds(protocol, sites)}",
                by_site=alone,
                mean_r=float(np.mean([site.r or 0.0 for site in alone])),
                pooled_r=pooled.r,
                pooled_r_interval=pooled.r_interval,
            ),
            "severity_network": network.model_copy(update={"truth": truth}),
        }
    )


def _in_other_worlds(protocol: Protocol, sites: Mapping[str, _Site]) -> str:
    """Say what a study of this size reached where severity is harder to see."""
    training = sum(int((~site.held_out).sum()) for site in sites.values())
    worlds = [
        f"{one.consortium:.2f} in the world '{one.world}', where a hospital alone has {one.alone:.2f}"
        + ("" if one.personal is None else f" and its personal model {one.personal:.2f}")
        for one in expected_r(protocol, training_children=training)
    ]
    return (
        f"This is one draw of one world. Studies of this size, simulated on {ATLAS}, had by the consortium's "
        f"model an r inside hospitals of about {'; '.join(worlds)}."
    )


def _alone(
    name: str,
    site: _Site,
    scores: Floats,
    controls: Floats,
    protocol: Protocol,
    held_out: tuple[Floats, Floats],
) -> AloneAtSite:
    """Rate the best that a site can do by itself."""
    own, gase = scores[~site.held_out], site.gase[~site.held_out]
    reader = reader_of(protocol.atlas, protocol.candidates, protocol.model.initial_weights)
    best = strongest_alone(own, gase, controls, candidates=protocol.candidates, reader=reader)
    rated = rate(name, best.fitted(held_out[0]), held_out[1])
    return AloneAtSite(site=name, training=len(gase), by=best.name, r=rated.r, r_interval=rated.r_interval)


def _without(absent: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: why for other, why in absent.items() if other != name}


def _scored(sites: Mapping[str, _Site], protocol: Protocol) -> dict[str, Floats]:
    """Score every site's children as the study does."""
    rules = protocol.cohort
    if rules.harmonisation == "site-controls":
        return _by_controls(sites)
    return _by_offset(sites, SHRINKAGE_CONTROLS if rules.offset_shrinkage is None else rules.offset_shrinkage)


def _controls_scored(sites: Mapping[str, _Site], protocol: Protocol) -> dict[str, Floats]:
    """Score every site's controls in the same way."""
    judged = {
        name: replace(site, children=site.controls, by_template=site.controls_by_template)
        for name, site in sites.items()
    }
    return _scored(judged, protocol)


def _by_controls(sites: Mapping[str, _Site]) -> dict[str, Floats]:
    found = {}
    for name, site in sites.items():
        reference = ControlReference.of_controls(site.controls)
        found[name] = np.array([reference.scores(strengths) for strengths in site.children])
    return found


def _by_offset(sites: Mapping[str, _Site], shrinkage_controls: float) -> dict[str, Floats]:
    return {
        name: site.by_template
        - control_offset(site.controls_by_template, shrinkage_controls=shrinkage_controls)
        for name, site in sites.items()
    }


def with_references(
    result: StudyResult, protocol: Protocol, hospitals: Mapping[str, Path], *, seed: int
) -> StudyResult:
    """Add to a result what its simulated children show by themselves.

    Parameters
    ----------
    result : StudyResult
    protocol : Protocol
        Of simulated children.
    hospitals : dict of str to Path
        Directory of each site, with ``bids``, ``derivatives`` and ``truth.npz``.
    seed : int
        Of the networks' first weights and of the permutations.

    """
    result = with_sites_alone(result, protocol, hospitals, seed=seed)
    atlas, rng = protocol.atlas, np.random.default_rng(seed)
    sites = {name: _read(path, name, protocol, atlas) for name, path in hospitals.items()}
    candidates, true = protocol.candidates, true_effects(hospitals)
    ours = CompactDcnnRn(atlas, candidates, protocol.model.initial_weights)
    scores = _scored(sites, protocol)
    training, held_out = _pooled(sites, scores, held_out=False), _pooled(sites, scores, held_out=True)
    chance = permuted_r(ours, training, held_out, times=_PERMUTATIONS, rng=rng)
    low, high = np.quantile(chance, [0.025, 0.975])
    random = result.random_score
    return result.model_copy(
        update={
            "absent": _without(result.absent, "baselines"),
            "baselines": [
                _row(rated)
                for rated in compare(
                    all_baselines(atlas, candidates, weights=protocol.model.initial_weights),
                    training,
                    held_out,
                    rng=rng,
                )
            ],
            "random_score": None
            if random is None
            else random.model_copy(
                update={
                    "simulated": Permutations(
                        times=_PERMUTATIONS,
                        mean=float(chance.mean()),
                        sd=float(chance.std(ddof=1)),
                        interval=(float(low), float(high)),
                    )
                }
            ),
            "harmonisation": Harmonisation(
                method=result.harmonisation.method,
                note=result.harmonisation.note,
                compared=_harmonised(sites, rng),
            ),
            "explanation": None
            if result.explanation is None
            else result.explanation.model_copy(update={"truth_r": truth_r(result.explanation, atlas, true)}),
        }
    )


def _read(path: Path, site: str, protocol: Protocol, atlas: Atlas) -> _Site:
    """Read a simulated hospital's children: those with a score and the controls."""
    with (path / "bids" / "participants.tsv").open(encoding="utf-8") as table:
        people = list(csv.DictReader(table, delimiter="\t"))
    upper = tuple(atlas.edges.T)
    counts = []
    for person in people:
        (matrix,) = (path / "derivatives" / person["participant_id"]).glob("**/*meas-count_relmat.dense.tsv")
        counts.append(np.loadtxt(matrix)[upper])
    age = np.array([float(p["age"]) for p in people])
    male = np.array([float(p["sex"] == "M") for p in people])
    strengths = strengths_of_counts(np.array(counts))
    template = load_template(protocol.imaging.atlas, simulated=True)
    scores = edge_scores(strengths, template, age_years=age, sex=male)
    child = np.array([p["group"] == "dre" for p in people])
    held = [protocol.cohort.holds_out(p["participant_id"], site=site) for p in people]
    return _Site(
        children=strengths[child],
        controls=strengths[~child],
        by_template=scores[child],
        controls_by_template=scores[~child],
        gase=np.array([float(p["gase"]) for p in people if p["group"] == "dre"]),
        held_out=np.array(held)[child],
        age_years=age[child],
        sex=male[child],
    )


def _pooled(
    sites: Mapping[str, _Site], scores: Mapping[str, Floats], *, held_out: bool
) -> tuple[Floats, Floats]:
    chosen = [
        (scores[name][site.held_out == held_out], site.gase[site.held_out == held_out])
        for name, site in sites.items()
    ]
    return np.concatenate([s for s, _ in chosen]), np.concatenate([g for _, g in chosen])


def _harmonised(sites: Mapping[str, _Site], rng: np.random.Generator) -> list[Compared]:
    """Rate one linear predictor on scores of own controls, of the public template, and by ComBat."""
    ways = {
        "own controls": _by_controls(sites),
        "public template, less the own controls' offset": _by_offset(sites, SHRINKAGE_CONTROLS),
        "public template alone": {name: site.by_template for name, site in sites.items()},
        "ComBat": _combat(sites, told_severity=False),
        # What ComBat loses where sites differ in severity, it has again when it is told (docs/benchmarks.md).
        "ComBat, told the training children's GASE": _combat(sites, told_severity=True),
    }
    found = []
    for name, scores in ways.items():
        training, held_out = _pooled(sites, scores, held_out=False), _pooled(sites, scores, held_out=True)
        found.append(_row(rate(name, EdgeRidge().fit(*training, rng=rng)(held_out[0]), held_out[1])))
    return found


def _combat(sites: Mapping[str, _Site], *, told_severity: bool) -> dict[str, Floats]:
    """Harmonise by ComBat from sums, as a federation would: estimated on training children alone.

    Where it is told severity, it keeps its effects as it keeps those of age and sex. Every child is then
    taken for one of GASE 4 when its scores are harmonised: a held-out child's GASE is what is predicted.
    """

    def kept(site: _Site) -> Floats:
        if told_severity:
            return covariates_of(site.age_years, site.sex, standardise_severity(site.gase))
        return age_and_sex(site.age_years, site.sex)

    def assumed(site: _Site) -> Floats:
        if told_severity:
            return covariates_of(site.age_years, site.sex, np.zeros(len(site.gase)))
        return age_and_sex(site.age_years, site.sex)

    covariates = kept(next(iter(sites.values()))).shape[1]
    edges = next(iter(sites.values())).by_template.shape[1]
    total = sum(
        (
            combat_rows(
                site.by_template[~site.held_out],
                kept(site)[~site.held_out],
                covariate_norm=COVARIATE_NORM,
            ).sum(axis=0)
            for site in sites.values()
        ),
        start=np.zeros(combat_dimension(edges, covariates)),
    )
    model = combat_model(total, edges=edges, covariates=covariates)
    return {
        name: ComBatSite.estimate(site.by_template[~site.held_out], kept(site)[~site.held_out], model).apply(
            site.by_template, assumed(site)
        )
        for name, site in sites.items()
    }


def _row(rated: Rated) -> Compared:
    return Compared(name=rated.name, r=rated.r, r_interval=rated.r_interval, mae=rated.mae, rmse=rated.rmse)
