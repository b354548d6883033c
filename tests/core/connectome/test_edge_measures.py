"""Tests of what edge measures refuse."""

import numpy as np
import pytest

from esn_core.connectome.connectome import Connectome
from esn_core.connectome.edge_measures import EdgeMeasures
from esn_core.errors import DataError

PLAIN = np.array([[0.0, 2.0], [2.0, 1.0]])


def measures(**changes):
    matrices = dict.fromkeys(("mean_length_mm", "count_per_length", "count_per_volume", "mean_fa"), PLAIN)
    given = {"connectome": Connectome(PLAIN, ("a", "b")), **matrices, "streamlines": 5, "assigned": 3}
    return EdgeMeasures(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mean_fa": np.zeros((3, 3))},
            r"mean_fa must be float64 of shape \(2, 2\), not float64 of \(3, 3\)",
        ),
        ({"mean_fa": PLAIN.astype(np.float32)}, "mean_fa must be float64 of shape .* not float32"),
        ({"mean_length_mm": np.full((2, 2), np.nan)}, "mean_length_mm must be finite and not negative"),
        ({"count_per_volume": -PLAIN}, "count_per_volume must be finite and not negative"),
        ({"count_per_length": np.triu(PLAIN)}, "count_per_length must be symmetric"),
        ({"assigned": 6}, "6 streamlines of 5 cannot be assigned"),
    ],
)
def test_impossible_measures_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        measures(**changes)


def test_measures_have_names_and_a_share_of_assigned_streamlines():
    assert list(measures().matrices()) == [
        "mean_length_mm",
        "count_per_length",
        "count_per_volume",
        "mean_fa",
    ]
    assert measures().assigned_fraction == 0.6
    assert measures().density == 1.0
    assert measures(streamlines=0, assigned=0).assigned_fraction == 0.0
