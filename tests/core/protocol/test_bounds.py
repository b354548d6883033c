"""Every number of a protocol has bounds, and every list and text an end; the reason stands beside it."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import esn_core.protocol
from esn_core.identity import roster as roster_module
from esn_core.protocol.protocol import Protocol

SCHEMA = Protocol.model_json_schema()
_BOUNDS = {"le", "lt", "max_length"}
# Its fields are described in one docstring, with the bounds of all.
DESCRIBED_TOGETHER = {"ImagingRecipe"}


def unbounded(schema, place="protocol"):
    """Yield every place of a schema that takes a number, list, table or text without an end."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from unbounded(SCHEMA["$defs"][name], place)
        return
    for part in [*schema.get("anyOf", ()), *schema.get("allOf", ())]:
        yield from unbounded(part, place)
    match schema.get("type"):
        case "number" | "integer":
            if "enum" not in schema and "const" not in schema:
                upper = {"maximum", "exclusiveMaximum"} & schema.keys()
                lower = {"minimum", "exclusiveMinimum"} & schema.keys()
                if not upper or not lower:
                    yield place
        case "string":
            ends = "maxLength" in schema or "enum" in schema or "const" in schema
            ends = ends or schema.get("format") == "date"
            pattern = schema.get("pattern")
            # A '+' or '*' outside a class of characters repeats without end.
            endless = pattern is None or re.search(r"[+*]", re.sub(r"\[[^]]*\]", "", pattern))
            if not ends and endless:
                yield place
        case "array":
            if "maxItems" not in schema:
                yield place
            for i, item in enumerate(schema.get("prefixItems", ())):
                yield from unbounded(item, f"{place}[{i}]")
            if "items" in schema:
                yield from unbounded(schema["items"], f"{place}[]")
        case "object":
            for name, part in schema.get("properties", {}).items():
                yield from unbounded(part, f"{place}.{name}")
            values = schema.get("additionalProperties")
            if isinstance(values, dict) or "patternProperties" in schema:
                named = "enum" in schema.get("propertyNames", {})
                if not named and "maxProperties" not in schema:
                    yield place
                for part in [values, *schema.get("patternProperties", {}).values()]:
                    if isinstance(part, dict):
                        yield from unbounded(part, f"{place}.*")


def test_no_number_list_or_text_of_a_protocol_is_without_end():
    assert list(unbounded(SCHEMA)) == []


def modules():
    folder = Path(esn_core.protocol.__file__).parent
    return [*folder.glob("*.py"), Path(roster_module.__file__)]


def bounded_without_reason(tree):
    """Yield every bounded number of a table below which no sentence stands."""
    for owner in ast.walk(tree):
        if (
            not isinstance(owner, ast.ClassDef | ast.Module)
            or getattr(owner, "name", "") in DESCRIBED_TOGETHER
        ):
            continue
        for at, statement in enumerate(owner.body):
            said = owner.body[at + 1] if at + 1 < len(owner.body) else None
            names = {word.arg for word in ast.walk(statement) if isinstance(word, ast.keyword)}
            if not isinstance(statement, ast.AnnAssign | ast.Assign) or not names & _BOUNDS:
                continue
            if not (isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)):
                yield ast.unparse(statement)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_a_bound_has_a_sentence_beside_it(path):
    assert list(bounded_without_reason(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("roster",), "many", "at most 512 items"),
        (("cohort", "minimum_children"), 4097, "less than or equal to 4096"),
        (("privacy", "epsilon"), 20.1, "less than or equal to 20"),
        (("rounds", "quorum"), 513, "less than or equal to 512"),
        (("imaging", "quality", "displacement_mm", "fail"), 1e7, "less than or equal to 1000000"),
        (("phenotypes",), {f"c{i}": {"kind": "category", "codes": ["a", "b"]} for i in range(101)}, "100"),
        (("phenotypes",), {"c": {"kind": "number", "unit": "x", "range": [0, 1e300]}}, "1000000"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_beyond_a_bound_is_refused_by_name(protocol_content, place, value, words):
    content = {**protocol_content}
    table = content
    for name in place[:-1]:
        table[name] = dict(table[name])
        table = table[name]
    table[place[-1]] = content["roster"] * 171 if value == "many" else value
    with pytest.raises(ValidationError, match=words) as refused:
        Protocol.model_validate(content)
    assert place[-1] in {part for fault in refused.value.errors() for part in fault["loc"]}


def test_a_model_of_more_predictors_than_the_children_could_bear_is_refused(protocol_content):
    columns = {f"c{i}": {"kind": "number", "unit": "x", "range": [0, 1]} for i in range(13)}
    rules = {
        "rounds": 2,
        "models": [list(columns)],
        "outcomes": [{"name": "o", "column": "c0", "impaired_below": 0.5}],
    }
    content = {**protocol_content, "phenotypes": columns, "analyses": {"neurocognition": rules}}
    with pytest.raises(ValidationError, match="at most 12 items"):
        Protocol.model_validate(content)
