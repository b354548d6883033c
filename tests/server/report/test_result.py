"""result.json: what is written is read back, and what is malformed is refused with words."""

import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from esn_core.errors import ProtocolError
from esn_core.system.files import write_whole
from esn_server.report import result as result_module
from esn_server.report.result import Evaluation, StudyResult, read_result, write_result


def change(result: StudyResult, path: Path, *keys: str | int, to: object) -> Path:
    """Write `result` with one value changed behind the schema's back."""
    content = json.loads(result.model_dump_json())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(content))
    return path


def test_a_written_result_is_read_back_whole(result, tmp_path):
    write_result(result, tmp_path / "deep" / "result.json")
    assert read_result(tmp_path / "deep" / "result.json") == result


def test_an_undefined_result_survives_the_round_trip(undefined_result, tmp_path):
    write_result(undefined_result, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == undefined_result


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("format",), 0, "format: Input should be 1"),
        (("child_scores",), [3.1], "child_scores: Extra inputs are not permitted"),
        (("protocol_sha256",), "abc", "protocol_sha256: String should match pattern"),
        (("evaluation", "r"), 1.2, "evaluation.r: Input should be less than or equal to 1"),
        (("evaluation", "r"), None, "undefined_because must say why"),
        (("evaluation", "r_interval"), [0.7, 0.2], r"r_interval must be \(low, high\)"),
        (("evaluation", "mae"), "NaN", "evaluation.mae: Input should be a finite number"),
        (("evaluation", "by_gase", 1, "gase"), 1, "each step of GASE at most once"),
        (("evaluation", "by_gase", 0, "gase"), 8, "gase: Input should be less than or equal to 7"),
        (("severity_network", "candidates"), 2, "at most the 2 candidates, not 3 connections"),
        (("severity_network", "retained"), 4, "edges must hold the 4 retained connections"),
        (("privacy", "noise"), "none", "each total must be null"),
        (("privacy", "trust"), "blind", "Input should be 'local' or 'secure-sum'"),
        (("privacy", "delta"), 0, "privacy.delta: Input should be greater than 0"),
        (("timing_s", "gradient"), -1, "timing_s.gradient: Input should be greater than or equal to 0"),
    ],
)
def test_a_malformed_result_is_refused_with_its_place(result, tmp_path, keys, value, words):
    path = change(result, tmp_path / "result.json", *keys, to=value)
    with pytest.raises(ProtocolError, match=words) as refusal:
        read_result(path)
    assert str(refusal.value).startswith(f"{path}: not a study result: ")
    assert "\n" not in str(refusal.value)


def test_all_faults_are_named_at_once(result, tmp_path):
    path = change(result, tmp_path / "result.json", "study", to="")
    content = json.loads(path.read_text())
    del content["run"]
    path.write_text(json.dumps(content))
    with pytest.raises(ProtocolError, match=r"study: .*; run: Field required"):
        read_result(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_not_json_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ProtocolError, match="not a study result") as refusal:
        read_result(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ProtocolError, match=r"nowhere\.json: cannot be read as a study result: No such file"):
        read_result(tmp_path / "nowhere.json")


def test_a_number_that_is_not_finite_is_refused_before_it_is_written(result):
    with pytest.raises(ValidationError, match="finite"):
        Evaluation(**{**result.evaluation.model_dump(), "rmse": float("inf")})


def test_a_result_does_not_change_after_it_was_built(result):
    with pytest.raises(ValidationError, match="frozen"):
        result.study = "another"


def test_a_write_that_fails_leaves_the_older_file_and_no_other(result, tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_result(result, path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"half of it")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_field_of_the_schema_says_what_it_means():
    models = [m for m in vars(result_module).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    silent = [
        f"{m.__name__}.{name}"
        for m in models
        for name, field in m.model_fields.items()
        if not field.description
    ]
    assert len(models) > 8
    assert silent == []


def test_the_schema_allows_nothing_else():
    schema = StudyResult.model_json_schema()
    assert schema["title"] == "StudyResult"
    assert schema["additionalProperties"] is False


def test_the_documented_schema_is_the_one_in_use():
    documented = Path(__file__).parents[3] / "docs" / "result.schema.json"
    assert json.loads(documented.read_text(encoding="utf-8")) == StudyResult.model_json_schema()
