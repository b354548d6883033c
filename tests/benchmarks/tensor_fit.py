"""CPU seconds of the tensor fit of one real subject beside DIPY's, and how far apart the two are.

Usage: python tests/benchmarks/tensor_fit.py DIRECTORY

DIRECTORY keeps the subject. The scan is taken as it is, neither denoised nor aligned; both fits take turns at
a batch of voxels each, so that they share the machine alike.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import real_subject
from dipy.reconst.dti import TensorModel, decompose_tensor, from_lower_triangular
from whole_subject import ATLAS

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.scans import load_scan
from esn_client.imaging.bids.visits import segmentation_of
from esn_client.imaging.fibres import tensor
from esn_client.imaging.preprocessing.mask import find_brain
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

BATCHES = 12


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    dataset = Dataset(real_subject.fetch(parser.parse_args().directory).bids)
    recipe = ImagingRecipe(**recipe_settings(ATLAS))
    (visit,) = dataset.visits(None, None)
    files = dataset.files(visit, segmentation=segmentation_of(ATLAS))
    scan = load_scan(files, atlas=recipe.parcellation, recipe=recipe)
    is_b0 = scan.gradients.is_b0
    mask = find_brain(*(scan.signal[..., kind].mean(axis=3, dtype=np.float64) for kind in (is_b0, ~is_b0)))
    model = TensorModel(tensor.dipy_table(scan.gradients), fit_method="WLS")
    design = model.design_matrix
    least = tensor.LEAST_DIFFUSIVITY / -design.min()
    voxels = np.random.default_rng(0).permutation(scan.signal[mask])[: BATCHES * tensor.BATCH_VOXELS]
    seconds, worst = np.zeros(2), 0.0
    for batch in np.array_split(voxels.astype(np.float64), BATCHES):
        begin = time.process_time()
        theirs = model.fit(batch).evals
        between = time.process_time()
        logs = np.log(np.maximum(batch, tensor.LEAST_SIGNAL))
        tensors = from_lower_triangular(tensor.solve_weighted(design, logs))
        ours = decompose_tensor(tensors, min_diffusivity=least)[0]
        seconds += between - begin, time.process_time() - between
        worst = max(worst, float(np.abs(ours / theirs - 1).max()))
    print(f"{len(voxels)} of {mask.sum()} voxels: DIPY {seconds[0]:.2f}, ours {seconds[1]:.2f} CPU s")
    print(f"eigenvalues differ by {worst:.1e} of themselves at most")


if __name__ == "__main__":
    main()
