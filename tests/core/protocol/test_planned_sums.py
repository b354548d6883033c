"""What a site could not send is known before anybody is asked."""

import math

import pytest

from esn_core.analyses.planned_sums import grid_delta_of, kind_of, misfits
from esn_core.errors import GateError
from esn_core.learning.releases import COMPACT_PARAMETERS
from esn_core.learning.weights import parameter_count, pretrained
from esn_core.messages.envelope import LARGEST_MESSAGE_BYTES, LARGEST_NUMBERS_BYTES
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import CENTRE
from esn_core.severity_network.centring import ADJUSTED, LEVELS


def make(content, **privacy):
    return Protocol.model_validate({**content, "privacy": {**content["privacy"], **privacy}})


def test_a_protocol_that_fits_has_no_misfit(protocol_content):
    assert misfits(make(protocol_content), largest_bytes=LARGEST_NUMBERS_BYTES) == ()


def test_the_numbers_of_a_message_leave_room_for_the_longest_header():
    assert LARGEST_MESSAGE_BYTES - LARGEST_NUMBERS_BYTES == 64 * 2**10 + 64 + 8


def test_the_parameters_of_the_model_are_counted():
    assert parameter_count(pretrained("compact-3")) == COMPACT_PARAMETERS


def test_a_sum_that_is_longer_than_a_message_is_named(protocol_content):
    protocol = make(protocol_content)
    needed = 8 * (COMPACT_PARAMETERS + 2)  # the loss, and the check number of the masks
    assert misfits(protocol, largest_bytes=needed) == ()
    (said,) = misfits(protocol, largest_bytes=needed - 1)
    assert said == f"the sum of gradient has 7436 numbers, {needed} bytes; a message may hold {needed - 1}"


def test_a_share_so_small_that_its_noise_leaves_the_grid_is_named(protocol_content):
    shares = {"centre": 1e-13, "association": 0.75 - 1e-13, "gradient": 0.1, "calibration": 0.15}
    protocol = make(protocol_content, shares={**shares, "evaluation": 1.0})
    (said,) = misfits(protocol, largest_bytes=LARGEST_NUMBERS_BYTES)
    assert said.startswith("release centre would need noise of standard deviation")
    assert math.isinf(grid_delta_of(protocol, "training"))


@pytest.mark.parametrize("delta", [1e-3, 1e-6])
@pytest.mark.parametrize("trust", ["local", "secure-sum"])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 20.0])
def test_at_every_epsilon_that_a_protocol_allows_the_grid_adds_nothing_to_delta(
    protocol_content, epsilon, delta, trust
):
    protocol = make(protocol_content, epsilon=epsilon, delta=delta, trust=trust)
    for children in ("training", "held-out"):
        # privacy.md says so; six sites and all analyses are in the figure there.
        assert 0 < grid_delta_of(protocol, children) < 1e-9
    assert misfits(protocol, largest_bytes=LARGEST_NUMBERS_BYTES) == ()


def test_beyond_that_the_grid_would_show_and_the_protocol_is_refused(protocol_content):
    """Where the bound on epsilon comes from: from about 30 on, e to it is more than the grid is fine."""
    protocol = make(protocol_content, delta=1e-6)
    wide = protocol.model_copy(update={"privacy": protocol.privacy.model_copy(update={"epsilon": 40.0})})
    (said,) = misfits(wide, largest_bytes=LARGEST_NUMBERS_BYTES)
    assert "at epsilon 40 the grid of the noise could add" in said
    assert "take a smaller epsilon" in said


def test_no_sum_leaves_at_roll_call(protocol_content):
    with pytest.raises(GateError, match="no sum leaves at roll call"):
        kind_of("roll-call", make(protocol_content))


@pytest.mark.parametrize(("centring", "kind"), [("mean", CENTRE), ("levels", LEVELS), ("adjusted", ADJUSTED)])
def test_the_centre_is_summed_as_the_protocol_asks(protocol_content, centring, kind):
    protocol = make(protocol_content)
    rules = protocol.severity_network.model_copy(update={"centre": centring})
    assert kind_of("centre", protocol.model_copy(update={"severity_network": rules})) == kind
