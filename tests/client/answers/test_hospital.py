"""A site can answer every phase that a protocol may have, and no other."""

import pytest

from esn_client.answers.hospital import ROWS
from esn_core.protocol.phases import PHASES


def test_every_phase_with_a_sum_over_children_has_what_makes_its_rows():
    assert list(ROWS) == [name for name, phase in PHASES.items() if phase.children is not None]


@pytest.mark.parametrize("name", ROWS)
def test_what_makes_the_rows_says_what_it_sums(name):
    assert ROWS[name].__doc__
