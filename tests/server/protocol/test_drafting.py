"""Drafts are protocols: what is asked for together can be read, and what cannot be is said in words."""

import re

import pytest

from esn_core.errors import ConfigError
from esn_core.identity.roster import RosterEntry
from esn_core.protocol.protocol import load_protocol
from esn_server.protocol.drafting import analyses_of, draft
from esn_server.protocol.price_list import price_list


@pytest.fixture
def drafted(tmp_path, more_sites):
    """A function that drafts a protocol of so many sites with the exact network, and reads it."""

    def make(sites, *, colluding_sites=1, trust="secure-sum", models=False):
        text = draft(
            study="drafted",
            roster=[RosterEntry.model_validate(entry) for entry in more_sites[0][:sites]],
            simulated=True,
            trust=trust,
            colluding_sites=colluding_sites,
            noise="gaussian",
            epsilon=8.0,
            delta=1e-3,
            split_salt="x",
            training_rounds=3,
            deadline_s=60.0,
            analyses=analyses_of(
                network=not models, neurocognition=models, exact=() if models else ("network",)
            ),
        )
        path = tmp_path / "drafted.toml"
        path.write_text(text, encoding="utf-8")
        return load_protocol(path)

    return make


@pytest.mark.parametrize("sites", [3, 4, 6])
@pytest.mark.parametrize("colluding_sites", [0, 1])
def test_a_draft_asks_for_as_many_children_as_its_draws_need_and_no_more(drafted, sites, colluding_sites):
    rules = drafted(sites, colluding_sites=colluding_sites).analyses.network
    honest = sites - colluding_sites
    assert rules.too_many_draws(honest) is None
    fewer = rules.model_copy(update={"minimum_children": rules.minimum_children - 1})
    assert rules.minimum_children == 20 or fewer.too_many_draws(honest) is not None


def test_exact_phases_of_a_draft_have_no_share_and_no_noise(drafted):
    protocol = drafted(4)
    exact = [phase.phase for phase in protocol.phases if phase.exact]
    assert exact == ["network", "network-null", "network-bootstrap"]
    assert not set(exact) & set(protocol.privacy.shares)
    assert protocol.minimum("training") == protocol.analyses.network.minimum_children
    assert protocol.minimum("held-out") == protocol.cohort.minimum_children


def test_the_price_of_a_draft_warns_of_models_where_they_are_asked(drafted):
    for models in (True, False):
        text = price_list(drafted(3, models=models), training_children=90, held_out_children=60).in_words
        assert ("A logistic model on 36 children" in text) == models


def test_a_network_that_is_not_declared_exact_cannot_be_drafted():
    with pytest.raises(ConfigError, match=re.escape("'network' needs to be declared exact")):
        analyses_of(network=True, neurocognition=False, exact=())
