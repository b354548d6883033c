"""Tests of brightness: b-values of another order are refused, and runs of another scale brought to one."""

import numpy as np
import pytest

from esn_client.imaging.preprocessing.brightness import level_runs
from esn_client.imaging.preprocessing.gradient_table import Gradients, Shell
from esn_core.errors import DataError

B = [0, 1000, 1000, 1000, 0, 1000, 1000, 1000, 1000]


def shell_of(b, *, dropped=(), traces=()):
    b = np.array(b, dtype=float)
    kept = np.array([place for place in range(len(b)) if place not in traces and b[place] not in dropped])
    table = Gradients(b[kept], np.where(b[kept, None] > 50, [1.0, 0, 0], 0.0))
    return Shell(table, kept, 1000.0, "s/mm2", tuple(dropped), ("fsl",), tuple(traces))


def volumes(b, scale=1.0, *, ratio=0.45):
    """A head in air, as bright as its b-values leave it, with a little noise."""
    rng = np.random.default_rng(4)
    head = np.zeros((6, 6, 6))
    head[1:5, 1:5, 1:5] = 1000
    level = np.where(np.array(b) > 50, ratio, 1.0)
    return ((head[..., None] * level + rng.normal(0, 20, (6, 6, 6, len(b)))) * scale).astype(np.float32)


def level(names, signals, b, **how):
    return level_runs(names, signals, shell_of(b, **how))


def test_volumes_as_bright_as_their_b_values_pass_as_they_are():
    signal = volumes(B)
    before = signal.copy()
    assert level(["s.nii.gz"], [signal], B) == []
    assert np.array_equal(signal, before)


@pytest.mark.parametrize("roll", [1, -1, 2])
def test_b_values_of_another_order_are_refused(roll):
    """Where no b0 is left in its place, all are as dark, which the voxels' own check refuses."""
    b = [0, 0, 0, 0, *[1000] * 8]
    with pytest.raises(
        DataError, match=r"volume \d, counted from 0, is a b0 by its b-value and as dark as a"
    ):
        level(["s.nii.gz"], [volumes(np.roll(b, roll))], b)


def test_a_b0_that_passes_for_a_mean_over_the_directions_is_seen():
    """A table moved by one beside vectors that were not: its first volume has a b-value and no vector."""
    b = np.array([0, 0, 0, *[1000] * 7])
    with pytest.raises(DataError, match="volume 0 weighted and as bright as a b0"):
        level(["s.nii.gz"], [volumes(b)], np.roll(b, 1), traces=(0,))


def test_one_dark_b0_is_named_and_used():
    """Signal may be lost in it; a table of another order has a bright weighted volume, too."""
    signal = volumes(B)
    signal[..., 4] *= 0.4
    (warning,) = level(["s.nii.gz"], [signal], B)
    assert warning.startswith("s.nii.gz: volume 4, counted from 0, is a b0 by its b-value, and as dark as a")


def test_weak_weighting_says_nothing_of_single_volumes():
    assert level(["s.nii.gz"], [volumes(np.roll(B, 1), ratio=0.85)], B) == []


def test_a_weaker_shell_may_be_as_bright_as_the_b0s():
    b = [0, 0, *[1000] * 6, *[200] * 6]
    signal = volumes(b)
    signal[..., 8:] = signal[..., :1] * 0.95
    assert level(["s.nii.gz"], [signal], b) == []


def test_runs_are_brought_to_one_brightness():
    names, runs = ["run-1.nii.gz", "run-2.nii.gz"], [volumes(B), volumes(B, 10.0)]
    (warning,) = level(names, runs, B * 2)
    assert "run-2.nii.gz: its b0s are 10 times as bright as those of run-1.nii.gz; it was brought" in warning
    # float32, multiplied and divided by 10.
    assert runs[1] == pytest.approx(runs[0], rel=1e-5, abs=1e-2)


def test_runs_that_drift_a_little_are_left_alone():
    runs = [volumes(B), volumes(B, 1.05)]
    before = runs[1].copy()
    assert level(["a", "b"], runs, B * 2) == []
    assert np.array_equal(runs[1], before)


def test_a_run_without_b0s_is_left_as_it_is():
    weighted = [1000] * 5
    runs = [volumes(B), volumes(weighted)]
    assert level(["a", "b"], runs, B + weighted) == []


def test_nan_has_no_say():
    signal = volumes(B)
    signal[:1] = np.nan
    assert level(["s.nii.gz"], [signal], B) == []
