"""What a smaller delta costs r: the default study at several deltas, with the same children and noise.

    python tests/benchmarks/delta_cost.py [--worlds N] [--seed S] [--epsilon E ...]

Worlds of `whose_mean.py`: six clinical sites, own controls, candidates by votes; severity by levels, the
shares and rounds of a draft, one colluding site, secure sum. The noise of a world is drawn once, from a seed,
and scaled as each delta asks, so that two deltas differ in nothing else. Held-out children are judged without
noise.
"""

import argparse
import math
import sys
import time

import numpy as np
from numpy.typing import NDArray
from private_pipeline import Study, Summing
from whose_mean import by_own, candidates_from, consortium_of, draw, votes

from esn_core.privacy.accounting import mu_for
from esn_core.protocol.phases import PHASES, PhaseName

DELTAS = (1e-3, 1e-4, 1e-5)
TRAINING: tuple[PhaseName, ...] = ("centre", "association", "gradient", "calibration")
SHARES: dict[str, float] = {name: PHASES[name].share or 0.0 for name in TRAINING}


class SameNoise:
    """Normal numbers from a seed, on the gate's grid: alike for every delta but for their scale."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])

    def __call__(self, dimension: int, scale: float) -> NDArray[np.int64]:
        return np.rint(self._rng.normal(size=dimension) * scale).astype(np.int64)


def study_of(seed: int) -> Study:
    """Draw a world as `whose_mean.py` does."""
    drawn = draw(seed)
    consortium = consortium_of(drawn, [by_own(site) for site in drawn.sites])
    return Study(drawn.atlas, consortium, candidates_from(drawn.atlas, votes(drawn)), "levels")


def r_of(study: Study, seed: int, *, epsilon: float | None, delta: float) -> float:
    """r on all held-out children of the whole study."""
    summing = Summing(
        epsilon, "secure-sum", SHARES, len(study.training), delta, colluding=1, draw=SameNoise(seed)
    )
    network, children = study.select(summing)
    return study.network_reads(summing, network, study.fine_tuned(summing, network, children))[0]


def mean_and_error(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7600)
    parser.add_argument("--epsilon", type=float, action="append", help="8 and 3 unless given")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.worlds)
    epsilons = options.epsilon or [8.0, 3.0]
    found = {(epsilon, delta): [] for epsilon in epsilons for delta in DELTAS}
    exact = []
    for seed in seeds:
        study = study_of(seed)
        exact.append(r_of(study, seed, epsilon=None, delta=DELTAS[0]))
        for (epsilon, delta), values in found.items():
            values.append(r_of(study, seed, epsilon=epsilon, delta=delta))
        print(f"world {len(exact)} of {options.worlds}", file=sys.stderr)
    print("| ε, δ | noise, of that at the first δ | r | less r at the first δ, paired |")
    print("|---|---|---|---|")
    print(f"| without noise | | {mean_and_error(np.array(exact))} | |")
    for (epsilon, delta), values in found.items():
        first = np.array(found[epsilon, DELTAS[0]])
        noise = mu_for(epsilon, DELTAS[0]) / mu_for(epsilon, delta)
        less = "" if delta == DELTAS[0] else mean_and_error(np.array(values) - first)
        print(f"| {epsilon:g}, {delta:.0e} | {noise:.2f} | {mean_and_error(np.array(values))} | {less} |")
    print(f"{options.worlds} worlds from seed {options.seed}, {time.process_time():.0f} CPU s; mean ± se")


if __name__ == "__main__":
    main()
