"""What a released model says of the children who made it."""

from types import SimpleNamespace

import pytest

from esn_core.protocol.protocol import Protocol
from esn_server.release.contents import children_of
from esn_server.report.analyses import GroupSummary

EXACT = {"exact": ["cohort"]}


@pytest.mark.parametrize(
    ("people", "sd_years", "declared", "told"),
    [(200.0, 0.6, {}, None), (200.0, 3.5, {}, None), (2e4, 3.5, {}, 3.5), (200.0, 0.6, EXACT, 0.6)],
)
def test_ages_that_may_be_noise_alone_are_none_by_which_a_child_is_refused(
    protocol_content, people, sd_years, declared, told
):
    privacy = protocol_content["privacy"]
    shares = {**privacy["shares"], "association": 0.68, **({} if declared else {"cohort": 0.02})}
    if declared:
        shares["association"] = 0.7
    rules = {"trust": "secure-sum", "shares": shares}
    analyses = {"cohort": True, **declared}
    protocol = Protocol.model_validate({**protocol_content, "privacy": privacy | rules, "analyses": analyses})
    ages = GroupSummary(people=people, mean_age_years=9.9, sd_age_years=sd_years, share_male=0.5)
    result = SimpleNamespace(evaluation=SimpleNamespace(by_gase=[]), cohort=SimpleNamespace(children=ages))
    assert children_of(protocol, result).sd_age_years == told
