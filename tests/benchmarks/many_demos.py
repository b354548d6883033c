"""The demo's private study again and again on the same children, each time with fresh noise, over Flower.

    python tests/benchmarks/many_demos.py --runs 10 --out /tmp/demos [--json]

Hospitals are simulated and their scans prepared once, as `esn-server demo` does it; each study has a centre,
an enrolment, ledgers and TLS of its own. Two studies run at once.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from esn_server.report.verdict import likely_r
from esn_server.simulation import demo

EPSILON, SEED = 8.0, 20261123  # as `esn-server demo`


def one_demo(out: Path) -> dict[str, object]:
    """Run a private study; return r, its interval, and what it took."""
    study = demo._Study(demo.SHORT, demo.SHORT.name, out, out.parent / "hospitals", "gaussian", EPSILON)
    result = demo._run(study)
    likely = likely_r(result.evaluation)
    return {
        "r": None if likely is None else round(likely.value, 3),
        "interval": None if likely is None else [round(end, 3) for end in likely.interval],
        "epsilon": result.privacy.epsilon_training_child,
        "study_s": round(study.timing_s["study"]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True)
    first = demo._Study(
        demo.SHORT, "simulated", asked.out / "simulated", asked.out / "hospitals", "none", EPSILON
    )
    demo._simulate(first, seed=SEED)
    places = [asked.out / f"run-{number}" for number in range(asked.runs)]
    with ThreadPoolExecutor(2) as two:
        # Whoever is first prepares the scans; the others find them.
        found = [one_demo(places[0]), *two.map(one_demo, places[1:])]
    values = [run["r"] for run in found if run["r"] is not None]
    facts = {
        "runs": found,
        "median_r": statistics.median(values),
        "interval_above_0": sum(run["interval"] is not None and run["interval"][0] > 0 for run in found),
    }
    print(json.dumps(facts, indent=2) if asked.json else "\n".join(str(run) for run in found))


if __name__ == "__main__":
    main()
