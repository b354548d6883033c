"""Scans of one protocol are one kind, whatever little they differ in; others are told apart."""

from dataclasses import replace

import pytest

from esn_client.imaging.quality.scan_kinds import ScanKind, kinds_of

WHOLE = ScanKind(64, 1000.0, (2.4, 2.4, 2.4), "not corrected")


@pytest.mark.parametrize(
    "same",
    [
        {"directions": 60},  # some volumes were lost
        {"b_value_s_per_mm2": 995.0},
        {"voxel_mm": (2.3, 2.4, 2.5)},
        {"susceptibility": "not said"},
    ],
)
def test_scans_of_one_protocol_are_alike(same):
    other = replace(WHOLE, **same)
    assert WHOLE.is_like(other)
    assert kinds_of({"a": other, "b": WHOLE, "c": WHOLE}) == dict.fromkeys("abc", WHOLE.words)
    assert WHOLE.words == "64 directions, b 1000, 2.4 x 2.4 x 2.4 mm"


@pytest.mark.parametrize(
    "unlike",
    [
        {"directions": 32},
        {"b_value_s_per_mm2": 800.0},
        {"voxel_mm": (2.0, 2.0, 5.0)},
        {"susceptibility": "corrected"},
    ],
)
def test_scans_that_give_another_connectome_are_told_apart(unlike):
    other = replace(WHOLE, **unlike)
    assert kinds_of({"a": WHOLE, "b": other, "c": None}) == {"a": WHOLE.words, "b": other.words}
    assert WHOLE.words != other.words


def test_a_kind_is_read_from_a_record_however_the_scan_is_stored():
    record = {
        "ScanKind": {"Directions": 15, "BValue": 1000, "VoxelMm": [5, 2, 2]},
        "Susceptibility": "corrected",
    }
    assert ScanKind.of_record(record) == ScanKind(15, 1000.0, (2.0, 2.0, 5.0), "corrected")
    assert ScanKind.of_record({"Quality": {}}) is None
