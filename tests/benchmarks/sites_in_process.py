"""What one round costs at the centre and at each site, for many sites in one process.

Rounds, run store, memory, gates, ledgers, audit logs, signatures and masks are those of a study; only the
hospital is cheap: its rows are drawn once. Times are of one process and one core, so
the sites' work adds up; the link itself costs nothing here.

    python tests/benchmarks/sites_in_process.py --sites 4 16 64 256 --numbers 5000 --rounds 3
"""

import argparse
import datetime
import statistics
import sys
import tempfile
import time
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_client.gate.approved import ApprovedProtocol, approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate, Rows
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.learning.releases import gradient_release
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_server.link.message_log import LoggedLink
from esn_server.run.checkpoints import Checkpoints, RunStore
from esn_server.run.memory import Memory
from esn_server.run.progress import ProgressFile
from esn_server.study.link import Reply
from esn_server.study.rounds import Rounds

CHILDREN = 24
LIMITS = Limits(
    epsilon_cap=1e6,
    delta=1e-3,
    minimum_children=5,
    trust="secure-sum",
    colluding_sites=1,
    exact_sums=False,
)


@dataclass
class CheapSites:
    """Answers at once through each site's real gate, and measures how long that takes."""

    approved: ApprovedProtocol
    gates: dict[int, Gate]
    rows: Rows
    centre_key: Ed25519PrivateKey
    seconds: list[float] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    sent: int = 0

    def send(self, node_id: int, body: bytes) -> str:
        began = time.perf_counter()
        gate = self.gates[node_id]
        question = Question.from_bytes(body, self.centre_key.public_key())
        gate.receive(question, body)
        answer = gate.answered(question, self.approved) if not question.reveal else None
        if question.reveal:
            answer = gate.reveal(question, self.approved)
        elif answer is None:
            answer = gate.release(question, self.rows, self.approved)
        self.seconds.append(time.perf_counter() - began)
        self.sent += 1
        self.replies.append(Reply(f"m{self.sent}", node_id, answer))
        return f"m{self.sent}"

    def receive(self) -> list[Reply]:
        arrived, self.replies = self.replies, []
        return arrived

    def online(self) -> set[int]:
        return set(self.gates)


def protocol_of(sites: int, *, trust: str, rounds: int, keys) -> Protocol:
    recipe = (files("esn_core.connectome") / "atlases" / "phantom-28.recipe.toml").read_text()
    roster = [
        {
            "site": name,
            "node_key": f"ecdsa-sha2-nistp384 {index:04d}",
            "identity_key": identity_text(identity.public_key()),
            "mask_key": mask_text(mask.public_key()),
        }
        for index, (name, (identity, mask)) in enumerate(keys.items())
    ]
    return Protocol.model_validate(
        {
            "format": 1,
            "study": "scaling",
            "simulated": True,
            "bundle_sha256": "0" * 64,
            "expires": datetime.date(2099, 12, 31),
            "roster": roster,
            "imaging": tomllib.loads(recipe),
            "cohort": {"held_out_fraction": 0.333, "split_salt": "x", "minimum_children": 5},
            "severity_network": {"candidates": "template"},
            "model": {"name": "compact", "initial_weights": "compact-3"},
            "training": {"rounds": rounds, "learning_rate": 0.001, "max_gradient_norm": 1.0},
            "privacy": {
                "trust": trust,
                "colluding_sites": 1,
                "noise": "gaussian",
                "epsilon": 8.0,
                "delta": 1e-4,
                "shares": {
                    "centre": 0.05,
                    "association": 0.7,
                    "gradient": 0.1,
                    "calibration": 0.15,
                    "evaluation": 1.0,
                },
            },
            "rounds": {"quorum": sites, "deadline_s": 3600.0},
        }
    )


def measure(sites: int, *, trust: str, numbers: int, rounds: int) -> dict[str, float]:
    """Return the medians of one round, in milliseconds."""
    names = [f"site-{index:03d}" for index in range(sites)]
    keys = {name: (Ed25519PrivateKey.generate(), X25519PrivateKey.generate()) for name in names}
    protocol = protocol_of(sites, trust=trust, rounds=rounds, keys=keys)
    kind = gradient_release(numbers - 1, max_gradient_norm=1.0)
    rng = np.random.default_rng(1)
    rows = Rows(kind, rng.normal(size=(CHILDREN, numbers)) / 100, tuple(f"sub-{i}" for i in range(CHILDREN)))
    centre_key = Ed25519PrivateKey.generate()
    signed = signed_with(centre_key, protocol)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        place = Path(scratch)
        gates = {}
        for node, (name, (identity, mask)) in enumerate(keys.items(), start=1):
            ledger = stack.enter_context(Ledger(place / f"{name}.sqlite", identity))
            gates[node] = Gate(
                site=name,
                limits=LIMITS,
                ledger=ledger,
                audit=AuditLog(place / f"{name}.jsonl", site=name),
                salt=b"s" * 32,
                identity_key=identity,
                mask_key=mask,
                noise=discrete_gaussian,
            )
        link = CheapSites(approved_as(protocol.sha256, signed), gates, rows, centre_key)
        nodes = {name: node for node, name in enumerate(names, start=1)}
        store = stack.enter_context(RunStore(place / "run.sqlite", protocol_sha256=protocol.sha256))
        asking = Checkpoints(
            store,
            Rounds(
                LoggedLink(link, nodes, centre=place),
                nodes,
                protocol=signed,
                signing_key=centre_key,
                memory=Memory(place / "centre", store),
                observer=ProgressFile(place / "progress.json", protocol=protocol),
                sleep=lambda _: None,
            ),
        )
        centre, site = [], []
        for round_ in range(rounds):
            number = QuestionId(
                protocol_sha256=protocol.sha256, run="r1", phase="gradient", round=round_, attempt=0
            )
            link.seconds.clear()
            began = time.perf_counter()
            asking.sum(Question(number), kind)
            whole = time.perf_counter() - began
            centre.append(whole - sum(link.seconds))
            site.append(statistics.mean(link.seconds))
    return {"centre_ms": 1e3 * statistics.median(centre), "site_ms": 1e3 * statistics.median(site)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--numbers", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| trust | sites | centre, ms a round | centre, ms a site | one site, ms |\n|---|---|---|---|---|")
    for trust in ("local", "secure-sum"):
        for sites in options.sites:
            found = measure(sites, trust=trust, numbers=options.numbers, rounds=options.rounds)
            print(
                f"| {trust} | {sites} | {found['centre_ms']:.0f} | {found['centre_ms'] / sites:.2f} "
                f"| {found['site_ms']:.1f} |"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
