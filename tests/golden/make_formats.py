"""Make a file of each version of each format that is still read.

Usage: python tests/golden/make_formats.py [--commit 7257ccb]

Version 1 is written by the code of that commit, the last before formats had versions, taken from git into a
temporary folder and run on its own tests' made-up study; later versions by the code that runs now. Writes
tests/golden/formats; a file that is there stays: no code but that of its time can make it again. When a
version is raised, its file is added to `write_todays`.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.gate.charge import Charge
from esn_client.gate.frozen_cohort import FrozenCohort, Person
from esn_client.gate.ledger import Ledger
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_core.connectome.atlas import load_atlas
from esn_core.learning.weights import pretrained, to_vector
from esn_core.messages.answer import Answer
from esn_core.messages.facts import LedgerMark
from esn_core.messages.question import Question, QuestionId
from esn_core.messages.transcript_mark import TranscriptMark
from esn_core.privacy.accounting import GaussianRelease
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.signature import signed_with
from esn_core.released_model.archive import ReleasedModel
from esn_core.released_model.content import ErrorOfPrediction, ModelContent, Reference, StudysChildren
from esn_core.released_model.numbers import ModelNumbers
from esn_core.severity_network.candidate_list import CandidateList, Origin
from esn_core.severity_network.selection import SeverityNetwork
from esn_server.run.checkpoints import RunStore
from esn_server.study.asking import Pooled

GOLDEN = Path(__file__).parent / "formats"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
"""Signs the golden messages and ledgers; no secret."""
_NOT_READ_ANY_MORE = ("question-1.bin", "answer-1.bin", "run-1.sqlite")
NEW = ("candidates-1", "model-1")
"""First versions of formats that came after the others had a version."""
EARLIER = """
import os
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.charge import Charge
from esn_client.ledger import Ledger
from esn_core.enrolment import RosterEntry
from esn_core.protocol import load_protocol
from esn_core.questions import Answer, LedgerMark, Question, QuestionId
from esn_core.releases import ReleaseKind
from esn_server.checkpoints import RunStore
from esn_server.identity import create_authority
from esn_server.kits import write_kit
from esn_server.progress import ProgressFile
from esn_server.report.result import write_result
from esn_server.rounds import Pooled

GOLDEN = Path(os.environ["GOLDEN"])
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def test_write_version_1(protocol_content, sign_as, result, tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "centre")
    path = GOLDEN / "protocol-1.toml"
    path.write_text(tomli_w.dumps(protocol_content))
    protocol = load_protocol(sign_as(path, KEY))
    number = QuestionId(protocol_sha256=protocol.sha256, run="r1", phase="gradient", round=2, attempt=1)
    question = Question(number, {"weights": np.arange(3.0)}, ("north", "south", "west"))
    (GOLDEN / "question-1.bin").write_bytes(question.to_bytes(KEY))
    paid = LedgerMark(entries=7, head="5" * 64)
    answer = Answer(number, "north", total=np.arange(4), charged=paid)
    (GOLDEN / "answer-1.bin").write_bytes(answer.to_bytes(KEY))
    with Ledger(GOLDEN / "ledger-1.sqlite", KEY) as ledger:
        for which in ("q1", "q2"):
            charge = Charge(
                question=which, protocol_sha256="a" * 64, run="r1", release="centre", trust="local",
                noise_multiplier=2.0, noise_share=1.0, sampling_rate=1.0, l2_bound=1.0, dimension=2,
                patients=("p1", "p2", "p3"), salt_sha256="5" * 64, software="0.1.0",
            )
            ledger.charge(
                charge, np.array([1, 2]), content_sha256="c" * 64, epsilon_cap=50.0, delta=1e-3
            )
        ledger.reveal("q1", ["north", "south"])
    with RunStore(GOLDEN / "run-1.sqlite", protocol_sha256=protocol.sha256) as store:
        store.keep(question, Pooled(np.array([1.5, -2.0]), ("north", "south")))
        store.see_ledger("north", paid)
    ProgressFile(GOLDEN / "progress-1.json", protocol=protocol)
    write_result(result, GOLDEN / "result-1.json")
    create_authority(tmp_path / "centre", names=["centre.example.org"])
    entry = RosterEntry.model_validate(protocol_content["roster"][0])
    kit, _ = write_kit(tmp_path / "centre", entry, public_address=None, port=9092)
    (GOLDEN / "kit-1.toml").write_bytes(kit.read_bytes())
"""


def main() -> None:
    """Write the files that are not there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--commit", default="7257ccb")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        write_earlier(commit, made)
        write_todays(made, load_protocol(made / "protocol-1.toml"))
        GOLDEN.mkdir(exist_ok=True)
        for path in sorted(made.iterdir()):
            kept = GOLDEN / path.name
            if path.name in _NOT_READ_ANY_MORE:
                continue
            if path.suffix in (".toml", ".bin", ".json", ".sqlite", ".esn") and not kept.exists():
                kept.write_bytes(path.read_bytes())
                note(
                    kept,
                    f"code of {commit}"
                    if path.stem.endswith("-1") and path.stem not in NEW
                    else "the code beside this file",
                )


def write_earlier(commit: str, made: Path) -> None:
    """Let the code of a commit write version 1 of each format."""
    packed = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(code, filter="data")
        # Among the tests that have the made-up result at hand.
        script = code / "tests" / "server" / "report" / "test_write_version_1.py"
        script.write_text(EARLIER)
        path = os.pathsep.join(str(code / part) for part in ("", "client", "server"))
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", script],
            check=True,
            cwd=code,
            env=os.environ | {"PYTHONPATH": path, "GOLDEN": str(made)},
        )


def write_todays(made: Path, protocol: Protocol) -> None:
    """Write the versions that this code writes where they are not 1."""
    cohort = protocol.cohort.model_copy(update={"harmonisation": "site-controls"})
    signed = signed_with(KEY, protocol.model_copy(update={"format": 2, "cohort": cohort})).protocol
    said = signed.model_dump(mode="json", exclude_none=True) | {"expires": protocol.expires}
    CandidateList(
        format=1,
        atlas="phantom-28",
        recipe_sha256=protocol.imaging.sha256,
        origin=Origin(kind="prepared", people=12, note="twelve controls"),
        pairs=(("L_precentral", "L_postcentral"),),
    ).write(made / "candidates-1.toml")
    (made / "protocol-2.toml").write_text(tomli_w.dumps(said), encoding="utf-8")
    with Ledger(made / "ledger-3.sqlite", KEY) as ledger:
        people = [Person("sub-001", "training", "a line", ("a scan",)), Person("sub-002", "control")]
        cohort = FrozenCohort.of(people, salt=b"s" * 32, simulated=False)
        ledger.freeze(cohort, protocol_sha256="a" * 64, run="r1", salt_sha256="5" * 64)
        charge = Charge(
            question="q1",
            protocol_sha256="a" * 64,
            run="r1",
            release="centre",
            trust="local",
            noise_multiplier=2.0,
            noise_share=1.0,
            l2_bound=1.0,
            dimension=2,
            patients=("p1", "p2", "p3"),
            salt_sha256="5" * 64,
            software="0.1.0",
        )
        total = np.array([1, 2], dtype=np.int64)
        ledger.charge(charge, total, content_sha256="c" * 64, epsilon_cap=50.0, delta=1e-3)
        ledger.withdraw("p3", scans=["a scan"], salt_sha256="5" * 64)
        lost = [("centre", GaussianRelease(4.0), 1)]
        for patients in (None, ["p4"]):
            ledger.count_lost(lost, protocol_sha256="b" * 64, patients=patients, salt_sha256="5" * 64)
    number = QuestionId(protocol_sha256=protocol.sha256, run="r1", phase="gradient", round=2, attempt=1)
    after = TranscriptMark(sums=2, head="7" * 64)
    question = Question(number, ("north", "south", "west"), after=after, relayed=b"released", offset=5)
    (made / "question-2.bin").write_bytes(question.to_bytes(KEY))
    paid = LedgerMark(entries=7, head="5" * 64)
    answer = Answer(number, "north", total=np.arange(4), charged=paid, after=after)
    (made / "answer-2.bin").write_bytes(answer.to_bytes(KEY))
    with RunStore(made / "run-2.sqlite", protocol_sha256=protocol.sha256) as store:
        store.keep(question, Pooled(np.array([1.5, -2.0]), ("north", "south"), b"signed"))
        store.see_ledger("north", paid)
    derivative = Derivative(made / "derivatives", Visit("sub-001", None), protocol.imaging)
    counts = np.eye(28)
    counts[2], counts[:, 2] = np.nan, np.nan  # a region without tissue
    stages = [{"Name": "tensor"}, {"Name": "tracking"}]
    derivative.write(dict.fromkeys(derivative.measures, counts), sources={}, details={"Stages": stages})
    (made / "derivative-3.json").write_bytes(derivative.record.read_bytes())
    write_model(made / "model-1.esn", signed, said)


def write_model(path: Path, protocol: Protocol, said: dict[str, Any]) -> None:
    """Write a proposal of a model that learned nothing."""
    atlas, edges = load_atlas(protocol.imaging.atlas), np.arange(3, dtype=np.int64)
    network = SeverityNetwork(edges, np.array([-0.3, 0.1, 0.2]), np.full(3, 0.1), np.full(3, 0.9))
    weights = to_vector(pretrained(protocol.model.initial_weights))
    numbers = ModelNumbers(weights, network, np.array([0.0, 1.0]))
    parts = {
        "model.safetensors": numbers.to_bytes(),
        "protocol.toml": tomli_w.dumps(said).encode(),
        "result.json": b"{}",
        "README.md": b"# A model\n",
    }
    content = ModelContent(
        study=protocol.study,
        run="r1",
        protocol_sha256=protocol.sha256,
        simulated=True,
        sites=protocol.sites,
        software={"esn-federated": "0.1.0"},
        atlas=atlas.name,
        atlas_sha256=atlas.sha256,
        recipe_sha256=protocol.imaging.sha256,
        reference=Reference(
            method="site-controls",
            words="own controls",
            fewest_controls=3,
            template_sha256=protocol.template_sha256,
            candidates="a template",
        ),
        calibration=(0.0, 1.0),
        error=ErrorOfPrediction(
            children=40.0, rmse=0.9, rmse_interval=(0.7, 1.1), r=0.8, r_interval=(0.7, 0.9)
        ),
        children=StudysChildren(
            mean_prediction=4.0, sd_prediction=1.2, mean_age_years=None, sd_age_years=None
        ),
        probe=numbers.probe(atlas),
        random_r=(0.01,),
        risks=(),
        intended_use="tests",
        not_intended="anything else",
        files={name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
    )
    path.write_bytes(ReleasedModel.of(content, parts, countersignatures=(), key=KEY).file)


def note(path: Path, origin: str) -> None:
    """Say in provenance.json who made a file."""
    book = GOLDEN / "provenance.json"
    said = json.loads(book.read_text(encoding="utf-8")) if book.exists() else {}
    said[path.name] = {
        "Command": "python tests/golden/make_formats.py",
        "MadeBy": origin,
        "Date": datetime.now(UTC).date().isoformat(),
        "Sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    book.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
