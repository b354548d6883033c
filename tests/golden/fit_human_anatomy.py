"""Fit the parameters of `esn_core.simulation.anatomy.HumanAnatomyRules` to the HCP group connectome.

    python tests/golden/fit_human_anatomy.py MATRIX.csv LABELS.csv

The two files are ``strucMatrix_with_sctx.csv`` and ``strucLabels_with_sctx.csv`` of the ENIGMA Toolbox
(BSD-3-Clause); they are not part of this project. Prints a probit of presence and a linear model of the log
counts on distance, crossing and homotopy, and the statistics that simulated anatomies are compared with.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from esn_core.connectome.atlas import load_atlas

SUBCORTICAL = {
    "accumb": "accumbensarea",
    "amyg": "amygdala",
    "caud": "caudate",
    "hippo": "hippocampus",
    "pal": "pallidum",
    "put": "putamen",
    "thal": "thalamusproper",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("matrix", type=Path)
    parser.add_argument("labels", type=Path)
    asked = parser.parse_args()
    matrix = np.loadtxt(asked.matrix, delimiter=",")
    labels = asked.labels.read_text().strip().split(",")
    atlas = load_atlas("desikan-killiany-83")
    at = {region.name: i for i, region in enumerate(atlas.regions)}
    rows = [at[x] if x in at else at[f"{x[0]}_{SUBCORTICAL[x[1:]]}"] for x in labels]
    regions, xyz = [atlas.regions[i] for i in rows], atlas.centroids_mm[rows]
    a, b = np.triu_indices(len(rows), k=1)
    weight = matrix[a, b]
    present = weight > 0
    distance_mm = np.linalg.norm(xyz[a] - xyz[b], axis=1)
    side, stem = (np.array([getattr(r, x) for r in regions]) for x in ("hemisphere", "stem"))
    crossing = side[a] != side[b]
    homotopic = crossing & (stem[a] == stem[b])
    design = np.column_stack([np.ones(len(a)), distance_mm, crossing, homotopic])

    def loss(beta: np.ndarray) -> float:
        score = design @ beta
        return -float(norm.logcdf(np.where(present, score, -score)).sum())

    probit = minimize(loss, np.zeros(4), method="BFGS").x
    linear, *_ = np.linalg.lstsq(design[present], weight[present], rcond=None)
    residual = weight[present] - design[present] @ linear
    degree = np.bincount(np.concatenate([a[present], b[present]]))
    print("probit  (at 0 mm, per mm, crossing, homotopic):", probit.round(4))
    print("weights (at 0 mm, per mm, crossing, homotopic):", linear.round(4), "sd", residual.std().round(3))
    print("density", present.mean().round(3), "within", present[~crossing].mean().round(3))
    print("across", present[crossing].mean().round(3), "homotopic", present[homotopic].mean().round(3))
    print("sd of log weights", weight[present].std().round(3))
    print("r with distance", np.corrcoef(distance_mm[present], weight[present])[0, 1].round(3))
    print("cv of degrees", (degree.std() / degree.mean()).round(3))


if __name__ == "__main__":
    main()
