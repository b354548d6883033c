"""Tests of tracking on NVIDIA cards: in numba's simulator against the compiled processor loop, and as PTX."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numba import cuda, types

from esn_client.imaging.fibres.fodf import Fodf
from esn_client.imaging.tracking import cuda as cuda_tracking
from esn_client.imaging.tracking.device import choose_device
from esn_client.imaging.tracking.propagation import propagate
from esn_client.imaging.tracking.tracking import TrackingRules, track
from esn_core.errors import ConfigError

SHAPE = (9, 8, 7)
SEEDS = 100
BATCH_BYTES = 40 * 53 * 3 * 4
"""Room for 40 streamlines of 53 places, 26 steps each way and the seed."""
RULES = TrackingRules(
    step_size_mm=1.0,
    max_angle_deg=40.0,
    min_length_mm=2.0,
    max_length_mm=25.0,
    stop_threshold=0.25,
    fodf_threshold=0.1,
    sphere="repulsion100",
)


def follow(device):
    """Streamlines through random fODFs, voxels without one among them: every branch of the loop is met."""
    rng = np.random.default_rng(7)
    where = rng.random(SHAPE) < 0.8
    coefficients = rng.normal(scale=0.1, size=(where.sum(), 15)).astype(np.float32)
    coefficients[:, 0] = 0.3
    batches = track(
        Fodf(where, coefficients),
        rng.random(SHAPE),
        seed_mask=where,
        voxel_size_mm=np.array([2.0, 1.5, 3.0]),
        rules=RULES,
        seeds=SEEDS,
        random_seed=2**40 + 3,
        device=device,
    )
    found = list(batches)
    return [batch.points for batch in found], [np.diff(batch.offsets) for batch in found]


def simulate(batch_bytes, path):
    """Track in numba's simulator, which must be chosen before numba is imported, and keep the streamlines."""
    cuda_tracking.BATCH_BYTES = batch_bytes
    with np.errstate(over="ignore"):  # 64-bit random numbers wrap around, in Python with a warning
        points, sizes = follow("cuda")
    np.savez(path, points=np.concatenate(points), sizes=np.concatenate(sizes), batches=len(points))


def test_the_card_follows_the_processors_streamlines_to_the_last_bit_in_any_batches(tmp_path):
    path = tmp_path / "simulated.npz"
    subprocess.run(
        [sys.executable, __file__, str(BATCH_BYTES), path],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        check=True,
    )
    points, sizes = (np.concatenate(part) for part in follow("cpu"))
    with np.load(path) as simulated:
        assert simulated["batches"] == 3
        assert len(sizes) > SEEDS / 4
        assert len(set(sizes.tolist())) > 5
        assert np.array_equal(simulated["sizes"], sizes)
        assert np.array_equal(simulated["points"], points)


class Lazy:
    """A card's stream that does nothing before somebody waits for it: what is not waited for is not there."""

    def __init__(self):
        self.waiting = []

    def synchronize(self):
        while self.waiting:
            self.waiting.pop(0)()


class Away:
    """Memory on the card."""

    def __init__(self, shape, dtype):
        self.values = np.full(shape, -1, dtype)

    def copy_to_host(self, here, stream):
        stream.waiting.append(lambda: here.__setitem__(slice(None), self.values))


class Kernel:
    """The loop of the processor, started on a stream."""

    def __getitem__(self, launch):
        *_, stream = launch

        def start(*arguments):
            *inputs, first, last, points, bounds = arguments
            stream.waiting.append(lambda: propagate(*inputs, first, last, points.values, bounds.values))

        return start


@pytest.mark.parametrize("batch", [17, 40, SEEDS, 10 * SEEDS])
def test_the_card_works_on_a_batch_while_the_one_before_is_looked_at(monkeypatch, batch):
    streams = []

    def stream():
        streams.append(Lazy())
        return streams[-1]

    card = SimpleNamespace(
        stream=stream,
        device_array=Away,
        pinned_array=np.empty,
        to_device=lambda a: a,
    )
    monkeypatch.setattr(cuda_tracking, "cuda", card)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_tracking, "build_kernel", lambda axes: Kernel())
    monkeypatch.setattr(cuda_tracking, "BATCH_BYTES", batch * 53 * 3 * 4)
    inner, busy = cuda_tracking.propagate_on_card, []

    def watched(*arguments, **sizes):
        for found in inner(*arguments, **sizes):
            busy.append(sum(bool(stream.waiting) for stream in streams))
            yield found

    monkeypatch.setattr(cuda_tracking, "propagate_on_card", watched)
    points, sizes = (np.concatenate(part) for part in follow("cuda"))
    right = [np.concatenate(part) for part in follow("cpu")]
    assert np.array_equal(sizes, right[1])
    assert np.array_equal(points, right[0])
    batches = -(-SEEDS // min(batch, SEEDS))
    assert busy == [1] * (batches - 1) + [0]


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_the_loop_compiles_for_cards_and_rounds_each_product(monkeypatch, capability):
    from numba.cuda.cudadrv.error import NvvmSupportError  # the simulator has none

    # The functions that the kernel calls ask for the card's capability, which takes a driver.
    device = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    f4, f8, i4, i8 = types.float32, types.float64, types.int32, types.int64
    arguments = (f4[:, ::1], i4[:, :, ::1], f4[:, :, ::1], f8, f8, f8[:, ::1], i4[:, ::1])
    arguments += (types.boolean[:, ::1], i4[::1], i4[::1], f8[::1], i4[:, ::1], i8, i8, i8, i8)
    arguments += (f4[:, :, ::1], i8[:, ::1])
    try:
        ptx, _ = cuda.compile_ptx(cuda_tracking.build_kernel(100).py_func, arguments, cc=capability)
    except NvvmSupportError as error:
        pytest.skip(f"no CUDA toolkit whose NVVM could compile: {error}".splitlines()[0])
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert len(re.findall(r"\.entry", ptx)) == 1
    # The products of interpolation and steps, and of amplitudes; none is fused with the sum after it.
    assert "mul.rn.f64" in ptx
    assert "mul.rn.f32" in ptx
    assert "fma." not in ptx


def test_a_graphics_card_that_is_not_there_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(
        ConfigError, match="finds no NVIDIA card with its driver and a CUDA toolkit"
    ) as refused:
        choose_device("cuda")
    assert "CUDA_HOME" in str(refused.value)
    with pytest.raises(ConfigError, match="device must be 'auto', 'cpu' or 'cuda', not 'tpu'"):
        choose_device("tpu")


def test_a_graphics_card_that_is_there_is_chosen(monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    assert choose_device("cpu") == "cpu"


if __name__ == "__main__":
    simulate(int(sys.argv[1]), sys.argv[2])
