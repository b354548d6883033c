"""The whole private study on simulated consortia: r and MAE with all of it inside epsilon.

    python tests/benchmarks/private_pipeline.py [--json] [--worlds N] [--seed S] [--delta D] [--fine-tune]

What sites compute, clip, round, noise and sum, and what the centre makes of
it, is the product's own code; only Flower, the gate's ledger and the masks of
the secure sum are left out, which do not change a number. Noise comes from
OpenDP's discrete Gaussian. Held-out children are evaluated without noise.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from esn_client.answers.training import gradients
from esn_client.gate.noise import discrete_gaussian
from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS_1
from esn_core.gase import GASE_MIDDLE, GASE_UNIT
from esn_core.learning.optimiser import CentreOptimiser
from esn_core.learning.releases import gradient_release, gradient_rows
from esn_core.learning.severity_model import Connectomes, as_matrices, predict
from esn_core.learning.weights import from_vector, pretrained, to_vector
from esn_core.privacy.accounting import mu_for, noise_multiplier_for
from esn_core.privacy.fixed_point import add_noise, add_up, noise_sd, noise_units, sum_rows
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.severity_network.association import association_release, rows_of_residuals
from esn_core.severity_network.candidates import Candidates, Source, candidates_of
from esn_core.severity_network.centring import (
    Centring,
    centre_of,
    centre_release,
    residuals,
    rows_to_centre,
)
from esn_core.severity_network.selection import SeverityNetwork, masked_input
from esn_core.simulation.consortium import CLINICAL, Consortium, SiteSplit, draw_consortium
from esn_core.statistics.recalibration import CALIBRATION, PREDICTION_CLIP, affine, calibration_rows

Floats = NDArray[np.float64]

ATLAS = "desikan-killiany-83"
WEIGHTS = "compact-3"
EPSILONS = (1.0, 3.0, 8.0)
DELTA = 1e-3
TRUSTS = ("secure-sum", "local")
SOURCES: tuple[Source, ...] = ("list", "modules", "template")
MINIMUM_CHILDREN = 5

# Parts of mu squared; r does not depend on the calibration, whose slope is positive.
SHARES = {"centre": 0.03, "association": 0.87, "calibration": 0.10}
FINE_TUNING = {"centre": 0.03, "association": 0.75, "gradient": 0.12, "calibration": 0.10}
ROUNDS, LEARNING_RATE, MAX_GRADIENT_NORM = 8, 0.001, 1.0

# Severity by the weighted sum, before calibration. On the worlds 9400 to 9411 hardly a child is clipped: one
# line for all worlds leaves room for those in which the sum varies most.
SUM_SLOPE, SUM_INTERCEPT = 0.015, -1.0

# The published list: .6 of the true network, and so many others of the template's edges.
LIST_RECALL, LIST_OTHERS = 0.6, 230


@dataclass(frozen=True)
class Row:
    """One line of the table; epsilon is None where nothing is private."""

    epsilon: float | None
    trust: str
    candidates: str
    model: str
    r: float
    r_low: float
    r_high: float
    mae: float | None


@dataclass
class Summing:
    """Sums rows over the sites under one budget and trust."""

    epsilon: float | None
    trust: str
    shares: dict[str, float]
    sites: int
    delta: float = DELTA
    colluding: int = 0
    """Sites that know their own share of the noise: the rest holds the bound without it."""
    draw: Callable[[int, float], NDArray[np.int64]] = discrete_gaussian
    """Noise of a site: so many numbers of this scale."""

    def __call__(
        self, phase: str, kind: ReleaseKind, rows: Iterable[Floats], *, times: int = 1
    ) -> tuple[Floats, float]:
        """Return the noisy sum, and the standard deviation of its noise."""
        totals = [sum_rows(clip_rows(r, kind.l2_bound), kind) for r in rows]
        if self.epsilon is None:
            return add_up(totals, kind), 0.0
        # Secure sum: the noise of one mechanism, shared out; local: each site adds all of it.
        share = 1 / (self.sites - self.colluding) if self.trust == "secure-sum" else 1.0
        budget = mu_for(self.epsilon, self.delta)
        multiplier = noise_multiplier_for(budget, share=self.shares[phase], releases=times)
        noise = noise_units(kind, multiplier, share=share)
        totals = [add_noise(total, self.draw(kind.dimension, noise)) for total in totals]
        return add_up(totals, kind), noise_sd(kind, multiplier, share=share) * math.sqrt(self.sites)


@dataclass(frozen=True)
class Associated:
    """A released association: its sum, the children in it, its noise, and each site's own rows."""

    total: Floats
    children: float
    noise_sd: float
    rows: list[Floats]


@dataclass
class Study:
    """One consortium under one source of candidates: what run_study asks, in its order."""

    atlas: Atlas
    consortium: Consortium
    candidates: Candidates
    centring: Centring = "mean"
    """As the tables were made; centring.py has all."""
    covariates: tuple[Floats, ...] = ()
    """Of each site's training children, where the centring is adjusted."""

    @property
    def training(self) -> list[SiteSplit]:
        return [site.training for site in self.consortium.sites if len(site.training.gase)]

    @property
    def held_out(self) -> SiteSplit:
        return pooled([site.held_out for site in self.consortium.sites])

    @property
    def fewest(self) -> float:
        return float(MINIMUM_CHILDREN * len(self.training))

    def associate(self, summing: Summing) -> "Associated":
        """Ask for the centre and the association."""
        with_covariates = list(zip(self.training, self.covariates or [np.empty((0, 2))] * 99, strict=False))
        counted, noise = summing(
            "centre",
            centre_release(self.centring),
            [rows_to_centre(self.centring, s.gase, x) for s, x in with_covariates],
        )
        children, severity = centre_of(
            counted, centring=self.centring, fewest_children=self.fewest, noise_sd=noise
        )
        rows = [
            rows_of_residuals(self.candidates.features(s.scores), residuals(s.gase, x, severity))
            for s, x in with_covariates
        ]
        total, noise = summing("association", association_release(self.candidates.released), rows)
        return Associated(total, children, noise, rows)

    def select(self, summing: Summing) -> tuple[SeverityNetwork, float]:
        """Return the network, and the noisy number of children."""
        found = self.associate(summing)
        return self.network(found), found.children

    def network(self, found: "Associated") -> SeverityNetwork:
        return self.candidates.network(found.total, children=found.children, noise_sd=found.noise_sd)

    def inputs(self, split: SiteSplit, network: SeverityNetwork) -> Connectomes:
        edges = self.candidates.edges
        values = masked_input(split.scores[:, edges], network.weight)
        return as_matrices(values, edges, ends=self.atlas.edges, regions=len(self.atlas.regions))

    def weighted_sum(self, split: SiteSplit, network: SeverityNetwork) -> Floats:
        """CPM: the sum of the network's own inputs, by a line that leaves the clip of a prediction room."""
        values = masked_input(split.scores[:, self.candidates.edges], network.weight)
        total: Floats = values.sum(axis=1) * SUM_SLOPE + SUM_INTERCEPT
        return total

    def fine_tuned(self, summing: Summing, network: SeverityNetwork, children: float) -> torch.nn.Module:
        optimiser = CentreOptimiser(
            to_vector(pretrained(WEIGHTS)), learning_rate=LEARNING_RATE, strategy="fedadam"
        )
        kind = gradient_release(len(optimiser.weights), max_gradient_norm=MAX_GRADIENT_NORM)
        inputs = [self.inputs(s, network) for s in self.training]
        for _ in range(ROUNDS):
            model = from_vector(optimiser.weights)
            rows = []
            for x, split in zip(inputs, self.training, strict=True):
                each, losses = gradients(model, x, split.gase)
                rows.append(gradient_rows(each, losses, max_gradient_norm=MAX_GRADIENT_NORM))
            total, _ = summing("gradient", kind, rows, times=ROUNDS)
            optimiser.step(total[:-1] / children)
        return from_vector(optimiser.weights)

    def judge(self, summing: Summing, said: list[Floats], held_out: Floats) -> tuple[float, float]:
        """Calibrate raw predictions of every site's training children; return held-out r and MAE."""
        rows = [calibration_rows(p, s.gase) for p, s in zip(said, self.training, strict=True)]
        total, noise = summing("calibration", CALIBRATION, rows)
        intercept, slope = affine(total, fewest_children=self.fewest, noise_sd=noise)
        raw = np.clip(held_out, -PREDICTION_CLIP, PREDICTION_CLIP)
        gase = GASE_MIDDLE + GASE_UNIT * (intercept + slope * raw)
        return r_and_mae(np.clip(gase, 1, 7), self.held_out.gase)

    def cpm(self, summing: Summing, network: SeverityNetwork) -> tuple[float, float]:
        said = [self.weighted_sum(s, network) for s in self.training]
        return self.judge(summing, said, self.weighted_sum(self.held_out, network))

    def network_reads(
        self, summing: Summing, network: SeverityNetwork, model: torch.nn.Module
    ) -> tuple[float, float]:
        said = [predict(model, self.inputs(s, network)) for s in self.training]
        return self.judge(summing, said, predict(model, self.inputs(self.held_out, network)))


def pooled(parts: Sequence[SiteSplit]) -> SiteSplit:
    return SiteSplit(
        np.concatenate([p.scores for p in parts]),
        np.concatenate([p.gase for p in parts]),
        np.concatenate([p.severity for p in parts]),
    )


def r_and_mae(said: Floats, gase: Floats) -> tuple[float, float]:
    r = float(np.corrcoef(said, gase)[0, 1]) if said.std() > 0 else 0.0
    return r, float(np.abs(said - gase).mean())


def ridge(training: SiteSplit, held_out: SiteSplit, edges: NDArray[np.int64]) -> tuple[float, float]:
    """One hospital by itself, by `ridge_says`."""
    said = ridge_says(training.scores[:, edges], training.gase, held_out.scores[:, edges])
    return r_and_mae(np.clip(said, 1, 7), held_out.gase)


def edge_correlations(x: Floats, y: Floats) -> Floats:
    """Return r of each edge with the score; 0 for one that does not vary."""
    return np.nan_to_num([np.corrcoef(column, y)[0, 1] for column in x.T])


def ridge_says(x: Floats, y: Floats, new: Floats) -> Floats:
    """Predict by the hundred edges of the largest |r|, and a ridge on them."""
    best = np.argsort(-np.abs(edge_correlations(x, y)))[:100]
    centre = x[:, best].mean(axis=0)
    z = x[:, best] - centre
    slope = z.T @ np.linalg.solve(z @ z.T + 100.0 * np.eye(len(y)), y - y.mean())
    said: Floats = y.mean() + (new[:, best] - centre) @ slope
    return said


def published_list(consortium: Consortium, atlas: Atlas, rng: np.random.Generator) -> list[tuple[str, str]]:
    truth = rng.permutation(consortium.world.severity_edges)
    present = rng.permutation(np.flatnonzero(consortium.template.present))
    listed = np.union1d(truth[: round(LIST_RECALL * len(truth))], present[:LIST_OTHERS])
    return [(atlas.names[a], atlas.names[b]) for a, b in atlas.edges[listed]]


Key = tuple[float | None, str, str, str]
"""Epsilon, trust, candidates, model."""
Found = dict[Key, tuple[float, float | None]]
"""r and MAE."""


def one_world(
    seed: int,
    *,
    epsilons: Sequence[float],
    fine_tune: bool,
    sources: Sequence[str] = SOURCES,
    delta: float = DELTA,
) -> Found:
    """Return (r, MAE) of every row in one world."""
    atlas = load_atlas(ATLAS)
    rng = np.random.default_rng(seed)
    # As studies scored when the tables of docs/benchmarks.md were made; whose_mean.py has own controls.
    consortium = draw_consortium(atlas, CLINICAL, rng=rng, shrinkage_controls=SHRINKAGE_CONTROLS_1)
    pairs = published_list(consortium, atlas, rng)
    model = pretrained(WEIGHTS)
    training_sites = [site for site in consortium.sites if len(site.training.gase)]
    sites = len(training_sites)
    found: Found = {}
    for source in sources:
        chosen = candidates_of(
            source, atlas, consortium.template.present, pairs=pairs if source == "list" else ()
        )
        study = Study(atlas, consortium, chosen)
        for epsilon, trust in [(None, "none"), *((e, t) for e in epsilons for t in TRUSTS)]:
            summing = Summing(epsilon, trust, SHARES, sites, delta)
            network, _ = study.select(summing)
            found[epsilon, trust, source, "CPM"] = study.cpm(summing, network)
            found[epsilon, trust, source, "DCNN+RN"] = study.network_reads(summing, network, model)
            if fine_tune and trust == "secure-sum":
                summing = Summing(epsilon, trust, FINE_TUNING, sites, delta)
                network, children = study.select(summing)
                tuned = study.fine_tuned(summing, network, children)
                found[epsilon, trust, source, "DCNN+RN fine-tuned"] = study.network_reads(
                    summing, network, tuned
                )
    edges = np.flatnonzero(consortium.template.present)
    alone = [ridge(site.training, study.held_out, edges) for site in training_sites]
    found[None, "none", "template", "one site alone, ridge"] = tuple(np.mean(alone, axis=0))
    found[None, "none", "template", "pooled, ridge"] = ridge(pooled(study.training), study.held_out, edges)
    listed = candidates_of("list", atlas, consortium.template.present, pairs=pairs).edges
    minus = -study.held_out.scores[:, listed].mean(axis=1)
    r, _ = r_and_mae(minus, study.held_out.gase)
    found[0.0, "none", "list", "minus the mean score, uncalibrated"] = (r, None)
    _, mae = r_and_mae(np.full(len(minus), pooled(study.training).gase.mean()), study.held_out.gase)
    found[None, "none", "template", "mean predictor"] = (0.0, mae)
    return found


def table(worlds: list[Found]) -> list[Row]:
    rows = []
    for key in worlds[0]:
        r = np.array([world[key][0] for world in worlds])
        half = stats.t.ppf(0.975, len(r) - 1) * r.std(ddof=1) / math.sqrt(len(r)) if len(r) > 1 else math.inf
        errors = [world[key][1] for world in worlds]
        mae = None if None in errors else float(np.mean(errors))
        rows.append(Row(*key, float(r.mean()), max(r.mean() - half, -1.0), min(r.mean() + half, 1.0), mae))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=8300)
    parser.add_argument("--epsilon", type=float, action="append", help="1, 3 and 8 unless given")
    parser.add_argument("--delta", type=float, default=DELTA)
    parser.add_argument("--candidates", action="append", choices=SOURCES, help="all of them unless given")
    parser.add_argument("--fine-tune", action="store_true", help="also with DP-SGD, under secure sum")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started, worlds = time.monotonic(), []
    for index in range(asked.worlds):
        worlds.append(
            one_world(
                asked.seed + index,
                epsilons=asked.epsilon or EPSILONS,
                fine_tune=asked.fine_tune,
                sources=asked.candidates or SOURCES,
                delta=asked.delta,
            )
        )
        print(f"world {index + 1} of {asked.worlds}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    rows = table(worlds)
    if asked.json:
        about = {"worlds": asked.worlds, "seed": asked.seed, "delta": asked.delta, "atlas": ATLAS}
        print(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1))
        return
    for row in sorted(rows, key=lambda x: (x.trust, x.candidates, x.model, x.epsilon or 0)):
        budget = "-" if row.epsilon is None else f"{row.epsilon:g}"
        name = f"{row.trust:10s} {row.candidates:8s} {row.model:34s} epsilon {budget:3s}"
        mae = "" if row.mae is None else f" MAE {row.mae:.2f}"
        print(f"{name} r {row.r:.2f} ({row.r_low:.2f} to {row.r_high:.2f}){mae}")


if __name__ == "__main__":
    main()
