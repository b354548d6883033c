"""What a report says of the controls is what holds for the protocol's way to judge children."""

import pytest

from esn_core.protocol.protocol import Protocol
from esn_server.report.outcome import controls_note

OPEN = "With ten controls, whether somebody is one is about as open as"


@pytest.mark.parametrize(
    ("rules", "said", "unsaid"),
    [
        ({}, ("judged by its hospital's own healthy controls. Epsilon", OPEN), "pooled"),
        (
            {"without_controls": ("west",)},
            ("children of west by the pooled controls of other sites", "is public", OPEN),
            "template",
        ),
        ({"harmonisation": "public-template"}, ("judged by a public template", "without a bound"), OPEN),
        ({"harmonisation": "combat"}, ("no healthy control enters",), "judged by"),
    ],
)
def test_the_note_on_controls_follows_the_way_to_judge(protocol_content, rules, said, unsaid):
    protocol = Protocol.model_validate(protocol_content)
    cohort = protocol.cohort.model_copy(update=rules)
    note = controls_note(protocol.model_copy(update={"cohort": cohort}))
    for words in said:
        assert words in note
    assert unsaid not in note
