"""A roll call that is repeated tells nothing more of a cohort than the first one."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from esn_client.site.cohort_bands import CohortBands

PROTOCOL, OTHER = "a" * 64, "b" * 64


def test_a_band_that_was_said_stands_when_children_come_and_go(tmp_path):
    bands = CohortBands(tmp_path / "bands", salt=b"s" * 32)
    said = bands.band(PROTOCOL, 24)
    bands.keep(PROTOCOL, said)
    again = CohortBands(tmp_path / "bands", salt=b"s" * 32)  # after a restart
    assert {again.band(PROTOCOL, children) for children in range(400)} == {said}
    again.keep(PROTOCOL, "0-15")
    assert again.band(PROTOCOL, 24) == said


def test_a_band_that_never_left_binds_nobody(tmp_path):
    bands = CohortBands(tmp_path / "bands", salt=b"s" * 32)
    assert bands.band(PROTOCOL, 4) != bands.band(PROTOCOL, 400)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 1000))
def test_two_protocols_are_told_the_same_of_the_same_cohort(salt, children):
    """Edges that moved from protocol to protocol would average out."""
    bands = CohortBands(Path("/nowhere"), salt=salt)
    assert bands.band(PROTOCOL, children) == bands.band(OTHER, children)


def test_where_bands_end_differs_from_site_to_site(tmp_path):
    edges = set()
    for site in range(32):
        bands = CohortBands(tmp_path, salt=bytes([site]) * 32)
        edges.add(next(n for n in range(32, 200) if bands.band(PROTOCOL, n) != bands.band(PROTOCOL, n + 1)))
    # Of 32 sites' secrets; an edge that all of them had would be known to everybody.
    assert len(edges) > 5
