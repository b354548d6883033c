"""Predict simulated children of hospitals that took no part in a study, by its model and their own controls.

Usage: python tests/benchmarks/new_hospital.py MODEL --seed SEED [--site quince --site rowan]

SEED is the study's: all its sites share one world. MODEL may be a proposal. Prints r, mean absolute error,
and in how many children the interval held the clinical score.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from esn_client.prediction.children import children_in
from esn_client.prediction.predict import Predictor
from esn_client.simulation.connectomes import write_connectomes
from esn_core.released_model.archive import read_model


def main() -> None:
    """Print a line for each hospital, and one for all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--site", action="append")
    parser.add_argument("--children", type=int, default=40)
    parser.add_argument("--controls", type=int, default=12)
    said = parser.parse_args()
    model = read_model(said.model)
    rows = []
    for site in said.site or ["quince", "rowan"]:
        with tempfile.TemporaryDirectory() as folder:
            bids, derivatives = Path(folder) / "bids", Path(folder) / "derivatives"
            write_connectomes(
                bids,
                derivatives,
                site=site,
                seed=said.seed,
                children=said.children,
                controls=said.controls,
                truth=None,
            )
            children, controls = children_in(bids, derivatives, model, labels=())
            predictor = Predictor(model, controls)
            found = [(predictor.prediction(child), child.participant.gase) for child in children]
        own = [(one.predicted_gase, gase, one.interval) for one, gase in found]
        print(site, in_words(own))
        rows += own
    print("all", in_words(rows))


def in_words(rows: list[tuple[float, int | None, tuple[float, float]]]) -> str:
    """Return what the predictions of some children are worth."""
    predicted = np.array([row[0] for row in rows])
    gase = np.array([row[1] for row in rows], dtype=np.float64)
    held = np.mean([low <= true <= high for (_, true, (low, high)) in rows if true is not None])
    r, mae = np.corrcoef(predicted, gase)[0, 1], np.mean(np.abs(predicted - gase))
    return f"{len(rows)} children: r {r:.2f}, MAE {mae:.2f}, interval holds {held:.1%}"


if __name__ == "__main__":
    main()
