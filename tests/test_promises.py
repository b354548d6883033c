"""Promises of docs/threat-model.md are the list of tests/mutations.py; each test and piece is there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_ROW = re.compile(r"^\| (.+?) \| (.+?) \| `(tests/[^`]+)` \| (.+?) \|$", re.M)


def loaded():
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "tests" / "mutations.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


mutations = loaded()


def test_every_promise_has_a_mutation_and_every_mutation_a_promise():
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    promised = [(name, test) for _, _, test, name in _ROW.findall(text)]
    assert promised == [(mutation.name, mutation.test) for mutation in mutations.MUTATIONS]
    assert len(dict(promised)) == len(promised) >= 36


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_promise_names_a_test_and_a_piece_of_source_that_are_there(mutation):
    file, name = mutation.test.split("::")
    assert f"\ndef {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert mutation.new != mutation.old


def test_a_mutation_without_its_piece_of_source_is_an_error(tmp_path):
    (tmp_path / "file.py").write_text("1 + 1 + 1")
    for old, times in (("+ 2", 0), ("+ 1", 2)):
        gone = mutations.Mutation("x", "file.py", old, "", "tests/no.py::test_nothing")
        assert mutations.outcome(gone, tmp_path) == f"its source is {times} times in file.py"


def test_a_test_that_does_not_run_has_seen_nothing(tmp_path):
    (tmp_path / "file.py").write_text("1")
    lost = mutations.Mutation("x", "file.py", "1", "2", "tests/no.py::test_nothing")
    assert "did not run" in mutations.outcome(lost, tmp_path)
    assert (tmp_path / "file.py").read_text() == "1"
