"""Tests of the tensor fit against DIPY's, which takes one voxel after the other."""

import numpy as np
import pytest
from dipy.reconst.dti import TensorModel

from esn_client.imaging.fibres import tensor
from esn_client.imaging.fibres.tensor import dipy_table, fit_tensor
from esn_client.imaging.preprocessing.gradient_table import Gradients


@pytest.mark.parametrize("batch", [1000, 4096])
def test_the_tensors_are_dipys_in_tissue_in_fluid_and_where_volumes_lost_their_signal(monkeypatch, batch):
    monkeypatch.setattr(tensor, "BATCH_VOXELS", batch)
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(30, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gradients = Gradients(np.r_[0.0, 0.0, np.full(30, 1000.0)], np.vstack([np.zeros((2, 3)), vectors]))
    shape = (14, 14, 14)
    turns = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))[0]
    diffusivities = rng.uniform(0.2e-3, 3.0e-3, (*shape, 1, 3))
    tensors = (turns * diffusivities) @ np.swapaxes(turns, -1, -2)
    decay = np.einsum("vi,...ij,vj->...v", gradients.directions, tensors, gradients.directions)
    signal = 1000 * np.exp(-gradients.b_values_s_per_mm2 * decay) + rng.normal(scale=20, size=(*shape, 32))
    lost = rng.random(shape) < 0.05
    signal[lost, 2 + rng.integers(0, 30, lost.sum())] = 0
    # Next to all is lost: weights differ by 1e15, and normal equations alone are off by a hundredth.
    signal[1, :, :, 2:][rng.random((14, 14, 30)) < 0.9] = 0
    signal = np.maximum(signal, 0).astype(np.float32)
    monkeypatch.setattr(tensor, "find_brain", lambda b0, weighted: np.ones(shape, dtype=bool))
    maps = fit_tensor(signal, gradients)
    by_dipy = TensorModel(dipy_table(gradients), fit_method="WLS").fit(signal.astype(np.float64))
    # Normal equations of weights that differ by 1e8 keep eight digits of sixteen.
    assert maps.eigenvalues_mm2_per_s == pytest.approx(by_dipy.evals, rel=1e-6, abs=1e-10)
    assert maps.fa == pytest.approx(np.clip(np.nan_to_num(by_dipy.fa), 0, 1), abs=1e-6)
