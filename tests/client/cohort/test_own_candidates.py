"""A list of candidates from a site's controls: who enters it, and that no child with epilepsy does."""

import numpy as np
import pytest

from esn_client.cohort.own_candidates import candidates_of_controls
from esn_client.cohort.participants import read_participants
from esn_client.imaging.bids.derivatives import MEASURES, Derivative
from esn_client.imaging.bids.visits import Visit
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.candidate_list import read_candidates

HEAD = "participant_id\tage\tsex\tgroup\tgase\n"
ATLAS = load_atlas("phantom-28")


@pytest.fixture
def site(tmp_path, protocol_content):
    """A function that writes a site of so many controls and four children, and lists its candidates.

    All have the first fifty edges; the children have the next ten as well.
    """
    recipe = Protocol.model_validate(protocol_content).imaging

    def people(controls, lacking=()):
        labels = [(f"sub-c{n:02d}", "control", "n/a") for n in range(controls)]
        labels += [(f"sub-p{n:02d}", "dre", "3") for n in range(4)]
        lines = [f"{label}\t10\tF\t{group}\t{gase}\n" for label, group, gase in labels]
        (tmp_path / "participants.tsv").write_text(HEAD + "".join(lines))
        for label, group, _ in labels:
            counts = np.zeros((28, 28))
            for edge, (a, b) in enumerate(ATLAS.edges[: 50 if group == "control" else 60]):
                counts[a, b] = counts[b, a] = 0 if label in lacking and edge == 0 else 20 + edge
            Derivative(tmp_path / "out", Visit(label, None), recipe).write(
                dict.fromkeys(MEASURES, counts), sources={}, details={}
            )
        return candidates_of_controls(
            read_participants(tmp_path), tmp_path / "out", recipe, note="controls of a test"
        )

    return people


def test_the_list_is_what_nearly_all_controls_have(site, tmp_path):
    found = site(12)
    names = [(ATLAS.names[a], ATLAS.names[b]) for a, b in ATLAS.edges[:50]]
    assert list(found.pairs) == names
    assert (found.origin.kind, found.origin.people, found.atlas) == ("prepared", 12, "phantom-28")
    found.write(tmp_path / "list.toml")
    assert read_candidates(tmp_path / "list.toml") == found


def test_one_control_of_twelve_keeps_an_edge_out_and_one_of_twenty_does_not(site):
    assert len(site(12, lacking=("sub-c00",)).pairs) == 49
    assert len(site(20, lacking=("sub-c00",)).pairs) == 50


def test_fewer_than_ten_controls_are_refused(site):
    with pytest.raises(DataError, match="9 controls have a usable connectome by this recipe; 10 or more"):
        site(9)
