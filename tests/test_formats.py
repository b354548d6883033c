"""Each format: files of every version are read, a newer one is refused in words, and so is what is none."""

import json
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from esn_client.gate.ledger import Ledger
from esn_client.gate.ledger_store import LedgerStore
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.site.centre_kit import read_kit
from esn_core.errors import ConfigError, DataError, EsnError, LedgerError, ProtocolError, StudyError
from esn_core.formats import (
    CANDIDATES,
    DERIVATIVE,
    FORMATS,
    KIT,
    LEDGER,
    MESSAGE,
    MODEL,
    PROGRESS,
    PROTOCOL,
    RESULT,
    RUN,
    Format,
    version_in,
)
from esn_core.identity.enrolment import SiteKit
from esn_core.identity.signing import sign
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import TranscriptMark
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.signature import load_signed
from esn_core.released_model.archive import read_model
from esn_core.released_model.content import ModelContent
from esn_core.severity_network.candidate_list import CandidateList, read_candidates
from esn_server.report.result import StudyResult, read_result
from esn_server.run.checkpoints import RunStore
from esn_server.run.progress import RunProgress, read_progress

GOLDEN = Path(__file__).parent / "golden" / "formats"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key()
HASH = "19e37cf3e207a29b"
"""How the golden protocol's hash began when version 1 was written."""


def read_ledger(path):
    with Ledger(path, KEY) as ledger:
        return ledger.spent()


def read_run(path):
    with RunStore(path, protocol_sha256=load_protocol(GOLDEN / "protocol-1.toml").sha256) as store:
        return store.ledger_seen("north").entries


def read_derivative(path):
    recipe = load_protocol(GOLDEN / "protocol-1.toml").imaging
    derivative = Derivative(path.parent, Visit("sub-001", None), recipe)
    derivative.record.parent.mkdir(parents=True)
    shutil.copy(path, derivative.record)
    return json.loads(path.read_text()) if derivative.is_current({}) else derivative.read_record()


def set_in_json(name):
    def change(path, version):
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: version, "unheard_of": 1}))

    return change


def set_in_toml(path, version):
    path.write_text(f"unheard_of = 1\n{re.sub('format = [0-9]+', f'format = {version}', path.read_text())}")


def set_in_database(path, version):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("CREATE TABLE unheard_of (x)")
    connection.close()


def set_in_message(purpose):
    def change(path, version):
        body = path.read_bytes()
        length = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["esn"])
        changed = save({}, {"esn": json.dumps(header | {"format": version, "unheard_of": 1})})
        path.write_bytes(changed + sign(changed, KEY, purpose))

    return change


def set_in_archive(path, version):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    said = json.loads(entries["model.json"]) | {"format": version, "unheard_of": 1}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (entries | {"model.json": json.dumps(said)}).items():
            archive.writestr(name, content)


@dataclass(frozen=True)
class Kind:
    """A kind of file, as its reader takes it."""

    format: Format
    read: Callable[[Path], object]
    make_newer: Callable[[Path, int], None]
    error: type[EsnError]
    suffix: str


KINDS = {
    "protocol": Kind(PROTOCOL, lambda p: load_signed(p, PUBLIC), set_in_toml, ProtocolError, "toml"),
    "candidates": Kind(CANDIDATES, read_candidates, set_in_toml, ConfigError, "toml"),
    "kit": Kind(KIT, read_kit, set_in_toml, ProtocolError, "toml"),
    "question": Kind(
        MESSAGE,
        lambda p: Question.from_bytes(p.read_bytes(), PUBLIC),
        set_in_message("question"),
        ProtocolError,
        "bin",
    ),
    "answer": Kind(
        MESSAGE,
        lambda p: Answer.from_bytes(p.read_bytes(), PUBLIC),
        set_in_message("answer"),
        ProtocolError,
        "bin",
    ),
    "ledger": Kind(LEDGER, read_ledger, set_in_database, LedgerError, "sqlite"),
    "derivative": Kind(DERIVATIVE, read_derivative, set_in_json("Format"), DataError, "json"),
    "result": Kind(RESULT, read_result, set_in_json("format"), ProtocolError, "json"),
    "run": Kind(RUN, read_run, set_in_database, StudyError, "sqlite"),
    "model": Kind(MODEL, read_model, set_in_archive, ProtocolError, "esn"),
    "progress": Kind(PROGRESS, read_progress, set_in_json("format"), ConfigError, "json"),
}
VERSIONS = [
    (name, version)
    for name, kind in KINDS.items()
    for version in range(kind.format.oldest, kind.format.version + 1)
    # What version 1 of a derivative is, with its matrices, tests of provenance read.
    if (name, version) != ("derivative", 1)
]


def golden(name, version, folder):
    """A copy of a golden file: reading a database may write to it."""
    file = f"{name}-{version}.{KINDS[name].suffix}"
    return shutil.copy(GOLDEN / file, folder / file)


def test_each_format_has_a_rule_and_is_held_to_files():
    assert {kind.format for kind in KINDS.values()} == set(FORMATS)
    assert all(f.raised_when and 1 <= f.oldest <= f.version for f in FORMATS)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (Protocol, PROTOCOL),
        (CandidateList, CANDIDATES),
        (SiteKit, KIT),
        (StudyResult, RESULT),
        (RunProgress, PROGRESS),
        (ModelContent, MODEL),
    ],
)
def test_a_model_takes_the_versions_in_the_table(model, known):
    said = model.model_json_schema()["properties"]["format"]
    assert said.get("enum", [said.get("const")]) == list(range(known.oldest, known.version + 1))


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_a_file_of_each_version_is_read(name, version, tmp_path):
    assert KINDS[name].read(golden(name, version, tmp_path))


@pytest.mark.parametrize("name", KINDS)
def test_a_newer_version_is_refused_for_that_and_nothing_else(name, tmp_path):
    kind = KINDS[name]
    path = golden(name, kind.format.version, tmp_path)
    kind.make_newer(path, kind.format.version + 1)
    words = (
        f"written by a newer esn-federated: {kind.format.name} format {kind.format.version + 1}, "
        f"this one reads {kind.format.version}$"
    )
    with pytest.raises(kind.error, match=words):
        kind.read(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 5000, b'{"format": []}' * 30])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("ledger", "run")])
def test_what_is_no_such_file_is_refused_in_one_line(name, content, tmp_path):
    path = tmp_path / f"none.{KINDS[name].suffix}"
    path.write_bytes(content)
    with pytest.raises(KINDS[name].error) as refusal:
        KINDS[name].read(path)
    assert "newer" not in str(refusal.value)


@pytest.mark.parametrize("name", ["ledger", "run"])
def test_what_is_no_database_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / "none.sqlite"
    path.write_bytes(b"no database, though it is long enough for one" * 50)
    with pytest.raises(KINDS[name].error, match="cannot be opened as a"):
        KINDS[name].read(path)
    path.unlink()
    sqlite3.connect(path).execute("PRAGMA user_version = -3").connection.close()
    with pytest.raises(KINDS[name].error, match="its format must be a whole number from 1 on, not -3"):
        KINDS[name].read(path)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, [], {}])
def test_what_is_no_version_is_a_fault(version):
    assert "must be a whole number from 1 on" in DERIVATIVE.fault_in(version)
    assert version_in({"format": version}) is None


def test_an_older_version_than_the_oldest_is_refused():
    words = "written by an older esn-federated: thing format 2, this one reads 3 to 4"
    assert Format("thing", version=4, oldest=3, raised_when="").fault_in(2) == words


def test_a_signed_protocol_keeps_its_hash():
    assert load_protocol(GOLDEN / "protocol-1.toml").sha256.startswith(HASH)


def test_messages_are_written_as_when_their_version_began():
    number = QuestionId(
        protocol_sha256=load_protocol(GOLDEN / "protocol-1.toml").sha256,
        run="r1",
        phase="gradient",
        round=2,
        attempt=1,
    )
    after = TranscriptMark(sums=2, head="7" * 64)
    question = Question(number, ("north", "south", "west"), after=after, relayed=b"released", offset=5)
    assert question.to_bytes(KEY) == (GOLDEN / "question-2.bin").read_bytes()
    answer = Answer.from_bytes((GOLDEN / "answer-2.bin").read_bytes(), PUBLIC)
    assert answer.to_bytes(KEY) == (GOLDEN / "answer-2.bin").read_bytes()
    assert (answer.id, answer.total.tolist(), answer.after) == (number, [0, 1, 2, 3], after)


def test_a_message_of_before_is_refused_for_its_age(tmp_path):
    body = save({}, {"esn": json.dumps({"id": {}})})
    with pytest.raises(ProtocolError, match="written by an older esn-federated: message format 1"):
        Question.from_bytes(body + sign(body, KEY, "question"), PUBLIC)


def test_a_run_of_before_cannot_go_on(tmp_path):
    path = golden("run", RUN.version, tmp_path)
    for version in (0, 1):
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        with pytest.raises(StudyError, match="written by an older esn-federated: run format 1"):
            read_run(path)


def user_version(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    finally:
        connection.close()


def test_a_ledger_of_before_is_charged_on_and_then_has_the_new_format(tmp_path):
    path = golden("ledger", 1, tmp_path)
    with Ledger(path, KEY) as ledger:
        before, (one, two) = ledger.mark, ledger.entries()
        assert {len(spent.noisy) for spent in ledger.spent().values()} == {2}
        assert user_version(path) == 0
        ledger.reveal("q2", ["north", "south"])
    assert user_version(path) == LEDGER.version
    with Ledger(path, KEY) as ledger:
        assert ledger.mark_at(before.entries) == before
        assert ledger.entries() == [one, two]
        assert ledger.revealed("q1") == ledger.revealed("q2") == ("north", "south")


def test_the_notes_of_a_ledger_are_read(tmp_path):
    with Ledger(golden("ledger", 3, tmp_path), KEY) as ledger:
        assert {kept.standing for kept in ledger.cohort_of("a" * 64, "r1").people.values()} == {
            "training",
            "control",
        }
        assert (ledger.withdrawn, ledger.closed) == ({"p3"}, {"b" * 64})
        spent = ledger.spent(["p1", "p4", "p5"])
        assert [s.releases for s in spent.values()] == [2, 2, 1]


def test_an_entry_that_was_sampled_is_refused(tmp_path):
    path = golden("ledger", 1, tmp_path)
    store = LedgerStore(path, KEY)
    facts = json.loads(json.loads(next(iter(store.export())))["body"])
    sampled = facts | {"question": "q3", "sampling_rate": 0.5}
    del sampled["content_sha256"], sampled["total_sha256"]
    with store.writing():
        total = np.array([1, 2], dtype=np.int64)
        store.append_sum(sampled, total, question="q3", content_sha256="d" * 64)
    store.close()
    with pytest.raises(LedgerError, match=r"entry 4 of the ledger was sampled at rate 0\.5"):
        Ledger(path, KEY)


def test_a_ledger_that_a_newer_release_took_over_while_it_was_open_is_not_written_to(tmp_path):
    path = golden("ledger", 1, tmp_path)
    with Ledger(path, KEY) as ledger:
        set_in_database(path, LEDGER.version + 1)
        with pytest.raises(LedgerError, match="written by a newer esn-federated"):
            ledger.reveal("q2", ["north"])
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM entries").fetchone() == (3,)
    connection.close()
