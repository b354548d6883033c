"""Settings of a later format: what was signed before keeps its meaning, and cannot ask for them."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, create_model

from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.newer_settings import NewIn, canonical_content, newer_than
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.rules import RoundRules
from esn_core.system.toml_file import Table


class Part(Table):
    """As a table of format 1, to which format 2 added something."""

    old: Annotated[Literal["a", "b"], NewIn(2, values=("b",))] = "a"
    several: Annotated[tuple[Literal["x", "y"], ...], NewIn(2, values=("y",))] = ()
    new: Annotated[int, NewIn(2)] = 0


class Whole(Table):
    """One that holds it in every way."""

    one: Part = Part()
    listed: tuple[Part, ...] = ()
    named: dict[str, Part] = Field(default={})
    added: Annotated[Part | None, NewIn(2)] = None


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"one": {"new": 1}}, "one.new is a setting of format 2"),
        ({"one": {"old": "b"}}, "one.old 'b' is of format 2"),
        ({"listed": [{}, {"new": 1}]}, "listed.1.new is a setting of format 2"),
        ({"listed": [{"several": ["x", "y"]}]}, "listed.0.several 'y' is of format 2"),
        ({"named": {"k": {"new": 1}}}, "named.k.new is a setting of format 2"),
        ({"added": {}}, "added is a setting of format 2"),
    ],
)
def test_what_is_new_is_refused_in_an_older_table_and_said_in_a_newer_one(said, complaint):
    whole = Whole.model_validate(said)
    assert [f"{complaint}; this protocol has format 1"] == list(newer_than(1, whole))
    assert list(newer_than(2, whole)) == []
    assert Whole.model_validate(canonical_content(whole)) == whole


def test_a_default_of_a_newer_setting_is_not_said():
    whole = Whole(one=Part(new=0), listed=(Part(), Part(new=2)), named={"k": Part()}, added=None)
    plain = {"old": "a", "several": []}
    assert canonical_content(whole) == {
        "one": plain,
        "listed": [plain, plain | {"new": 2}],
        "named": {"k": plain},
    }
    assert list(newer_than(1, Whole())) == []


def with_a_newer_setting(table):
    return create_model("Newer", __base__=table, later=(Annotated[int, NewIn(2)], 0))


def test_a_new_setting_leaves_the_hash_of_every_protocol_that_does_not_use_it(protocol_content):
    """The path of a real table: a release later, with one setting more."""
    later = create_model(
        "Later", __base__=Protocol, rounds=(with_a_newer_setting(RoundRules), ...), __validators__={}
    )
    old = protocol_content | {"cohort": protocol_content["cohort"] | {"harmonisation": "own-controls"}}
    for number, content in ((1, old | {"format": 1}), (2, protocol_content)):
        assert content["format"] == number
        assert later.model_validate(content).sha256 == Protocol.model_validate(content).sha256
    asked = protocol_content | {"rounds": protocol_content["rounds"] | {"later": 1}}
    assert later.model_validate(asked).sha256 != Protocol.model_validate(protocol_content).sha256
    with pytest.raises(ValueError, match=r"rounds\.later is a setting of format 2"):
        later.model_validate(asked | {"format": 1, "cohort": old["cohort"]})


def test_a_new_setting_of_a_recipe_leaves_what_was_prepared_without_it_current(protocol_content):
    recipe = protocol_content["imaging"]
    later = with_a_newer_setting(ImagingRecipe)
    assert later.model_validate(recipe).sha256 == ImagingRecipe.model_validate(recipe).sha256
    assert later.model_validate(recipe | {"later": 1}).sha256 != ImagingRecipe.model_validate(recipe).sha256


def test_each_format_has_a_hash_of_its_own(protocol_content):
    combat = {
        **protocol_content,
        "cohort": protocol_content["cohort"] | {"harmonisation": "combat"},
        "privacy": protocol_content["privacy"] | {"noise": "none", "trust": "secure-sum"},
    }
    assert len({Protocol.model_validate(combat | {"format": n}).sha256 for n in (1, 2)}) == 2
