"""A hospital of simulated connectomes, and a study over such hospitals: programs for tests of faults.

Every part is the real one but two: the children are drawn from a seed, and the
noise is drawn from a seed that depends on the question, so that two runs of one
study can be compared byte by byte. The product has no such option: the gate is
built here, with another source of noise than the one that `open_hospital` gives it.
"""

import hashlib
import json
import logging
import sys
import time
from dataclasses import replace
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_client.answers.hospital import Hospital
from esn_client.answers.study import Study
from esn_client.cohort.cohort import Cohort, Split
from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.site.cohort_bands import CohortBands
from esn_client.site.transcripts import Transcripts
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template
from esn_core.errors import EsnError, ProtocolError
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with

CHILDREN, HELD_OUT = 16, 8
CENTRE_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the centre, for tests").digest())


def protocols(content):
    """The studies that may be asked: equal but for their names."""
    rules = {**content["protocol"], "expires": date.fromisoformat(content["protocol"]["expires"])}
    found = [Protocol.model_validate({**rules, "study": name}) for name in content["studies"]]
    return {protocol.sha256: protocol for protocol in found}


def private_keys(site):
    """The keys whose public halves are in the roster of the tests."""

    def secret(purpose):
        return hashlib.sha256(f"{purpose} of {site}, for tests".encode()).digest()

    return (
        Ed25519PrivateKey.from_private_bytes(secret("identity")),
        X25519PrivateKey.from_private_bytes(secret("mask")),
    )


def seed_of(*words):
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big")


def draw_cohort(site):
    rng = np.random.default_rng(seed_of("cohort", site))
    template = load_template("phantom-28", simulated=True)
    affected = np.flatnonzero(template.present)[:20]

    def split(n, first):
        gase = rng.integers(1, 8, n).astype(float)
        scores = rng.normal(size=(n, len(load_atlas("phantom-28").edges)))
        scores[:, affected] -= 0.8 * ((gase - 4) / 1.5)[:, None]
        names = tuple(f"sub-{i:03d}" for i in range(first, first + n))
        return Split(names, np.where(template.present, scores, 0.0), gase)

    return Cohort(split(CHILDREN, 1), split(HELD_OUT, 101), controls=8)


class SeededHospital(Hospital):
    """A hospital whose noise is drawn anew from the question's id each time."""

    def __init__(self, directory, site, content):
        self.asked, self.misbehaviour = None, directory / "misbehaviour"
        known, cohort = protocols(content), draw_cohort(site)

        def noise(dimension, scale):
            # Phase and round, and not the run's name, which is drawn at random.
            rng = np.random.default_rng(seed_of("noise", site, self.asked.phase, self.asked.round))
            return np.rint(rng.normal(0.0, scale, dimension)).astype(np.int64)

        def approved(digest):
            if digest not in known:
                raise ProtocolError("not approved")
            return approved_as(digest, signed_with(CENTRE_KEY, known[digest]))

        def load(protocol):
            return Study(site, protocol, cohort, torch.device("cpu"))

        identity, mask = private_keys(site)
        self.identity = identity
        self.ledger = Ledger(directory / "ledger.sqlite", identity)
        limits = Limits(
            epsilon_cap=1000.0,
            delta=1e-3,
            minimum_children=5,
            trust="secure-sum",
            colluding_sites=1,
            exact_sums=False,
        )
        gate = Gate(
            site=site,
            limits=limits,
            ledger=self.ledger,
            audit=AuditLog(directory / "audit.jsonl", site=site),
            salt=b"s" * 32,
            identity_key=identity,
            mask_key=mask,
            noise=noise,
        )
        bands = CohortBands(directory / "bands", salt=b"s" * 32)
        key = CENTRE_KEY.public_key()
        transcripts = Transcripts(directory / "transcripts.sqlite", salt=b"s" * 32)
        super().__init__(
            gate=gate, bands=bands, transcripts=transcripts, centre_key=key, approved=approved, load=load
        )

    def reply(self, body):
        self.asked = Question.from_bytes(body, CENTRE_KEY.public_key()).id
        said = super().reply(body)
        if self.asked.phase != "association" or not self.misbehaviour.exists():
            return said
        answer = Answer.from_bytes(said, self.identity.public_key())
        wrong = {
            "not finite": lambda: replace(answer, total=np.full(answer.total.shape, np.nan)),
            "another shape": lambda: replace(answer, total=answer.total[:-1]),
            "another site": lambda: replace(answer, site="west" if answer.site != "west" else "north"),
            "stale": lambda: replace(answer, id=answer.id.model_copy(update={"phase": "centre"})),
        }
        what = self.misbehaviour.read_text()
        if what == "a gigabyte":
            return said  # and the guard sends another
        if what == "nonsense":
            return b"nonsense"
        if what == "nothing":
            time.sleep(3600)
        return wrong[what]().to_bytes(self.identity)


def answer(directory, site, descriptor):
    """Be the process that answers."""
    from esn_client.worker.process import serve

    content = json.loads((directory / "content.json").read_text())
    hospital = SeededHospital(directory, site, content)
    serve(Connection(int(descriptor)), hospital.reply, idle_s=content.get("idle_s", 300.0))


class InProcessLink:
    """Carries messages to hospitals in this process: the undisturbed run."""

    def __init__(self, hospitals):
        self.hospitals, self.replies, self.sent = hospitals, [], 0

    def send(self, node_id, body):
        from esn_server.link.transport import Reply

        self.sent += 1
        self.replies.append(Reply(str(self.sent), node_id, self.hospitals[node_id].reply(body), None))
        return str(self.sent)

    def receive(self):
        arrived, self.replies = self.replies, []
        return arrived

    def online(self):
        return set(self.hospitals)


def ask(link, nodes, directory, study, content):
    """Run one study over a link; its sums are kept in the directory."""
    from esn_server.run.checkpoints import Checkpoints, RunStore
    from esn_server.run.memory import Memory
    from esn_server.study.rounds import Rounds
    from esn_server.study.study import run_study

    signed = signed_with(CENTRE_KEY, next(p for p in protocols(content).values() if p.study == study))
    with RunStore(directory / f"{study}.sqlite", protocol_sha256=signed.protocol.sha256) as store:
        rounds = Rounds(
            link, nodes, protocol=signed, memory=Memory(directory / "memory", store), signing_key=CENTRE_KEY
        )
        run_study(
            signed,
            run=store.run,
            asking=Checkpoints(store, rounds),
            rng=np.random.default_rng(0),
        )


def study(directory, centre, name):
    """Be the centre's study, over the real link."""
    from esn_server.link.flower_run import open_study
    from esn_server.run.queue import place_in_queue

    content = json.loads((directory / "content.json").read_text())
    with (
        place_in_queue(Path(centre), study=name, run_directory=directory / name, behind=lambda _: None),
        open_study(Path(centre)) as link,
    ):
        ask(link, content["nodes"], directory, name, content)


def alone(directory, name):
    """Run a study in one process, undisturbed."""
    content = json.loads((directory / "content.json").read_text())
    sites = [entry["site"] for entry in content["protocol"]["roster"]]
    nodes = {site: number for number, site in enumerate(sites, start=1)}
    for site in sites:
        (directory / site).mkdir()
    hospitals = {n: SeededHospital(directory / site, site, content) for site, n in nodes.items()}
    ask(InProcessLink(hospitals), nodes, directory, name, content)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    role, where, *others = sys.argv[1:]
    try:
        {"answer": answer, "study": study, "alone": alone}[role](Path(where), *others)
    except EsnError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
