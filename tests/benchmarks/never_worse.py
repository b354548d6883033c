"""Never worse than alone: r inside each hospital of the consortium's model, of its own, and of both merged.

    python tests/benchmarks/never_worse.py [--json] [--worlds N] [--seed S] [--roster NAME] [--world NAME]
        [--colluding N] [--sum-only] [--write]

Each world is a simulated consortium on desikan-killiany-83, scored by own controls; sums, clip, noise,
selection and the pre-trained network are the product's own (`private_pipeline.py`). r is within a hospital's
30 held-out children, the mean over hospitals; a difference has a paired 95 % t-interval over worlds. `today`
is the consortium's model, `alone` the personal model without partners, `ridge or CPM` the better of the two
by five folds inside the hospital, `merged` the personal model. `--write` keeps what was found where `protocol
price` reads it (`esn_core/analyses/expected_r.tsv`) and in docs/benchmarks.md.
"""

import argparse
import csv
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import page
import torch
from numpy.typing import NDArray
from private_pipeline import SHARES, Study, Summing, edge_correlations, r_and_mae, ridge_says
from scipy import stats
from whose_mean import Drawn, Site, candidates_from, draw, votes

from esn_core.analyses.expected_r import children_of
from esn_core.connectome.own_controls import ControlReference
from esn_core.learning import personal_network
from esn_core.learning.personal_model import Reader, fit
from esn_core.learning.personal_network import OthersSum
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import pretrained
from esn_core.privacy.release import clip_rows
from esn_core.severity_network import association, centring, selection
from esn_core.severity_network.association import association_release
from esn_core.severity_network.candidates import Candidates
from esn_core.severity_network.selection import masked_input
from esn_core.simulation.consortium import WORLDS, Consortium, SimulatedSite, SiteSplit

Floats = NDArray[np.float64]
ROSTERS = ("3 x 60", "6 x 42", "6 x 20", "12 x 15", "100 + 5 x 15")
TABLE = Path(__file__).parents[2] / "esn_core" / "analyses" / "expected_r.tsv"
EPSILONS = (8.0, 3.0, 1.0)
ROWS = ("today", "alone", "merged")


def r_of(said: Floats, gase: Floats) -> float:
    return r_and_mae(said, gase)[0]


def best_alone(x: Floats, y: Floats, held: Floats, gase: Floats) -> float:
    """The better of ridge and CPM, by five folds inside the hospital."""

    def cpm(x: Floats, y: Floats, new: Floats) -> Floats:
        r = edge_correlations(x, y)
        p = 2 * stats.t.sf(np.abs(r) * np.sqrt((len(y) - 2) / np.maximum(1 - r**2, 1e-12)), len(y) - 2)
        signs = np.sign(r) * (p < 0.01) if (p < 0.01).any() else np.sign(r) * (np.abs(r) == np.abs(r).max())
        return new @ signs

    order = np.argsort(y, kind="stable")
    judged = []
    for way in (ridge_says, cpm):
        said = np.empty(len(y))
        for k in range(5):
            out = order[k::5]
            kept = np.setdiff1d(np.arange(len(y)), out)
            part = way(x[kept], y[kept], x[out])
            said[out] = (part - part.mean()) / (part.std() or 1.0)
        judged.append(r_of(said, y))
    way = (ridge_says, cpm)[int(np.argmax(judged))]
    return r_of(way(x, y, held), gase)


class World:
    """One drawn consortium, as its sites see it."""

    def __init__(self, seed: int, world: str, children: tuple[int, ...]) -> None:
        rules = replace(WORLDS[world], sites=len(children))
        self.drawn: Drawn = draw(seed, rules, children=children)
        self.candidates: Candidates = candidates_from(self.drawn.atlas, votes(self.drawn))
        self.sites, self.controls = [], []
        for site in self.drawn.sites:
            reference = ControlReference.of_controls(site.controls)
            scores = np.array([reference.scores(each) for each in site.children])
            own = np.array([reference.scores(each) for each in site.controls])
            self.controls.append(own[:, self.candidates.edges])
            self.sites.append(self._split(site, scores))
        consortium = Consortium(self.drawn.world, self.drawn.template, tuple(self.sites))
        self.study = Study(self.drawn.atlas, consortium, self.candidates)

    @staticmethod
    def _split(site: Site, scores: Floats) -> SimulatedSite:
        first, rest = slice(0, site.training), slice(site.training, None)
        return SimulatedSite(
            SiteSplit(scores[first], site.gase[first], site.severity[first]),
            SiteSplit(scores[rest], site.gase[rest], site.severity[rest]),
            len(site.controls),
        )

    def reader(self, model: torch.nn.Module | None) -> Reader | None:
        if model is None:
            return None
        atlas, edges = self.drawn.atlas, self.candidates.edges
        return lambda inputs: predict(
            model, as_matrices(inputs, edges, ends=atlas.edges, regions=len(atlas.regions))
        )

    def personal(self, reader: Reader | None, others: list[OthersSum] | None) -> float:
        """Return the mean r inside the sites of their personal models."""
        found = []
        edges = self.candidates.edges
        for k, site in enumerate(self.sites):
            model = fit(
                site.training.scores[:, edges],
                site.training.gase,
                self.controls[k],
                blocks=self.candidates.blocks,
                others=None if others is None else others[k],
                reader=reader,
            )
            found.append(r_of(model.predict(site.held_out.scores[:, edges], reader), site.held_out.gase))
        return float(np.mean(found))

    def baselines(self) -> float:
        edges = self.candidates.edges
        return float(
            np.mean(
                [
                    best_alone(
                        s.training.scores[:, edges],
                        s.training.gase,
                        s.held_out.scores[:, edges],
                        s.held_out.gase,
                    )
                    for s in self.sites
                ]
            )
        )

    def today_and_others(self, summing: Summing, reader: Reader | None) -> tuple[float, list[OthersSum]]:
        """Run the consortium's selection; return the mean r inside the sites, and what each site is told."""
        told = self.study.associate(summing)
        network = self.study.network(told)
        kind = association_release(self.candidates.released)
        found, others = [], []
        for site, own in zip(self.sites, told.rows, strict=True):
            values = masked_input(site.held_out.scores[:, self.candidates.edges], network.weight)
            said = values.sum(axis=1) if reader is None else reader(values)
            found.append(r_of(said, site.held_out.gase))
            exact = clip_rows(own, kind.l2_bound).sum(axis=0)
            others.append(OthersSum(told.total - exact, told.children - len(own), told.noise_sd))
        return float(np.mean(found)), others


Key = tuple[str, float | None]


def one_world(
    seed: int, *, world: str, roster: str, colluding: int, model: torch.nn.Module | None
) -> dict[Key, float]:
    """Return r of every row at every epsilon."""
    here = World(seed, world, children_of(roster))
    reader = here.reader(model)
    alone = here.personal(reader, None)
    found: dict[Key, float] = {("ridge or CPM", None): here.baselines()}
    sites = len(here.sites)
    for epsilon in EPSILONS:
        summing = Summing(epsilon, "secure-sum", SHARES, sites, colluding=colluding)
        today, others = here.today_and_others(summing, reader)
        found["noise sd", epsilon] = others[0].noise_sd
        found["today", epsilon] = today
        found["alone", epsilon] = alone
        found["merged", epsilon] = here.personal(reader, others)
    return found


def summary(worlds: list[dict[Key, float]]) -> dict[str, float | list[float]]:
    """Means, and merged less alone with its paired interval."""
    rows: dict[str, float | list[float]] = {}
    for name, epsilon in worlds[0]:
        words = name if epsilon is None else f"{name}, epsilon {epsilon:g}"
        rows[words] = float(np.mean([world[name, epsilon] for world in worlds]))
    for epsilon in EPSILONS:
        gain = np.array([world["merged", epsilon] - world["alone", epsilon] for world in worlds])
        mean, half = float(gain.mean()), math.inf
        if len(gain) > 1:
            half = float(stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1)) / math.sqrt(len(gain))
        rows[f"merged - alone, epsilon {epsilon:g}"] = [mean, mean - half, mean + half]
    return rows


def kept(tables: dict[str, dict[str, float | list[float]]], colluding: int) -> None:
    """Put what was found into the table that `protocol price` reads, in the place of what was there."""
    rows = {}
    if TABLE.exists():
        with TABLE.open(encoding="utf-8") as file:
            rows = {_key(row): row for row in csv.DictReader(file, delimiter="\t")}
    for name, found in tables.items():
        world, roster = name.split(", ")
        for epsilon in EPSILONS:
            gain = found[f"merged - alone, epsilon {epsilon:g}"]
            values = {
                "noise_sd": found[f"noise sd, epsilon {epsilon:g}"],
                "ridge_or_cpm": found["ridge or CPM"],
                **{row: found[f"{row}, epsilon {epsilon:g}"] for row in ("alone", "today", "merged")},
                **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True)),
            }
            row = {"world": world, "roster": roster, "epsilon": f"{epsilon:g}", "colluding": str(colluding)}
            row |= {name: f"{value:.3f}" for name, value in values.items()}
            rows[_key(row)] = row
    order = sorted(rows.values(), key=_place)
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(order[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(order)
    page.write("never_worse.py", as_markdown(order))


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("world", "roster", "epsilon", "colluding"))


def _place(row: dict[str, str]) -> tuple[int, int, int, float]:
    worlds = list(WORLDS)
    place = worlds.index(row["world"]), ROSTERS.index(row["roster"])
    return int(row["colluding"]), *place, -float(row["epsilon"])


def as_markdown(rows: list[dict[str, str]]) -> str:
    """Write one table for each world and number of colluding sites."""
    tables: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = {}
    for row in rows:
        tables.setdefault((row["world"], row["colluding"]), {}).setdefault(row["roster"], []).append(row)
    said = []
    for (world, colluding), rosters in tables.items():
        title = world if colluding == "0" else f"{world}, {colluding} colluding"
        head = f"| {title} | ridge or CPM | alone | today, ε 8 / 3 / 1 | merged, ε 8 / 3 / 1 |"
        lines = [f"{head} merged − alone, ε 8 | ε 3 | ε 1 |", "|---" * 8 + "|"]
        for roster, cells in rosters.items():
            at_each = [" / ".join(short(cell[name]) for cell in cells) for name in ("today", "merged")]
            gains = [
                f"{short(c['gain'], '+')} ({short(c['gain_low'], '+')} to {short(c['gain_high'], '+')})"
                for c in cells
            ]
            first = [short(cells[0]["ridge_or_cpm"]), short(cells[0]["alone"])]
            lines.append(f"| {' | '.join([roster.replace('x', '×'), *first, *at_each, *gains])} |")
        said.append("\n".join(lines))
    return "\n\n".join(said)


def short(value: str, sign: str = "") -> str:
    return f"{float(value):{sign}.3f}".replace("0.", ".", 1).replace("-", "−")


def shown(value: float | list[float]) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "{:+.3f} ({:+.3f} to {:+.3f})".format(*value)


def clip_residuals(clip: float) -> None:
    """Clip severity residuals elsewhere than the product does: decision 0215."""

    def second(c: float) -> float:
        """Mean square of a clipped residual, of severities with the consortium's sd of .9."""
        at = stats.norm(scale=0.9)
        return 0.81 * (at.cdf(c) - at.cdf(-c)) - 2 * c * 0.81 * float(at.pdf(c)) + 2 * c**2 * at.sf(c)

    selection._SAMPLING_VARIANCE *= second(clip) / second(association.RESIDUAL_CLIP)
    for module in (association, centring, personal_network):
        module.RESIDUAL_CLIP = clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=8600)
    parser.add_argument("--roster", action="append", choices=ROSTERS, help="all of them unless given")
    parser.add_argument("--world", action="append", choices=WORLDS, help="clinical and sober unless given")
    parser.add_argument("--colluding", type=int, default=0, help="sites that may collude with the centre")
    parser.add_argument("--sum-only", action="store_true", help="read by the weighted sum alone")
    parser.add_argument("--residual-clip", type=float, help="0.8 in the product")
    parser.add_argument("--write", action="store_true", help="into the shipped table, and onto the page")
    asked = parser.parse_args()
    if asked.write and (asked.sum_only or asked.residual_clip):
        parser.error(
            "the table is of the product's own clip, and the network with the weighted sum beside it"
        )
    if asked.residual_clip:
        clip_residuals(asked.residual_clip)
    torch.set_num_threads(1)
    model = None if asked.sum_only else pretrained("compact-3")
    started, tables = time.process_time(), {}
    for world in asked.world or ("clinical", "sober"):
        for roster in asked.roster or ROSTERS:
            worlds = [
                one_world(asked.seed + k, world=world, roster=roster, colluding=asked.colluding, model=model)
                for k in range(asked.worlds)
            ]
            tables[f"{world}, {roster}"] = summary(worlds)
            if not asked.json:
                print(f"{world}, {roster}")
                for name, value in tables[f"{world}, {roster}"].items():
                    print(f"  {name:28s} {shown(value)}")
            print(f"{time.process_time() - started:.0f} s of CPU", file=sys.stderr)
    if asked.write:
        kept(tables, asked.colluding)
    if asked.json:
        print(json.dumps({"worlds": asked.worlds, "seed": asked.seed, "tables": tables}, indent=1))


if __name__ == "__main__":
    main()
