"""A consortium in one process: real hospitals, real gates and ledgers, connectomes instead of scans."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from esn_client.answers.hospital import Hospital
from esn_client.answers.study import Study
from esn_client.cohort.cohort import Cohort, Split
from esn_client.cohort.members import People
from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_client.site.cohort_bands import CohortBands
from esn_client.site.transcripts import Transcripts
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.own_controls import FEWEST_CONTROLS, ControlReference
from esn_core.connectome.template import load_template
from esn_core.errors import ProtocolError
from esn_core.messages.question import Question
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import SignedProtocol, signed_with
from esn_core.severity_network.candidate_list import pairs_of
from esn_server.run.checkpoints import RunStore
from esn_server.run.memory import Memory
from esn_server.study.link import Reply
from esn_server.study.rounds import Rounds
from esn_server.study.study import run_study

SITES = ("north", "south", "west")
CHILDREN, HELD_OUT, CONTROLS = 16, 8, 8


class InProcessLink:
    """Carries messages to hospitals in this process, and remembers every byte that came back.

    Attributes
    ----------
    down : dict of int to predicate of Question
        A node that gets no message for which the predicate holds, and is not online then.
    now : float
        The time, which passes only while somebody sleeps.

    """

    def __init__(self, hospitals, centre_key):
        self.hospitals = hospitals
        self.centre_key = centre_key
        self.replies = []
        self.carried = []
        self.down = {}
        self.now = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def read(self, body):
        return Question.from_bytes(body, self.centre_key.public_key())

    def send(self, node_id, body):
        lost = self.down.get(node_id)
        if lost is not None and lost(self.read(body)):
            self.lost = getattr(self, "lost", 0) + 1
            self.replies.append(Reply(f"lost{self.lost}", node_id, None, "SiteUnavailable"))
            return f"lost{self.lost}"
        answer = self.hospitals[node_id].reply(body)
        self.carried.append((node_id, body, answer))
        message_id = f"m{len(self.carried)}"
        self.replies.append(Reply(message_id, node_id, answer))
        return message_id

    def receive(self):
        arrived, self.replies = self.replies, []
        return arrived

    def online(self):
        return set(self.hospitals)


@dataclass
class Consortium:
    """Three hospitals, their ledgers, and the way to ask them."""

    signed: SignedProtocol
    cohorts: dict
    ledgers: dict
    link: InProcessLink
    store: RunStore
    rounds: Rounds

    @property
    def protocol(self):
        return self.signed.protocol

    def study(self, asking=None):
        """Run the whole study, by default with nothing kept between its steps; return what it found."""
        return run_study(
            self.signed,
            run="r1",
            asking=asking or self.rounds,
            rng=np.random.default_rng(0),
        )


@pytest.fixture(scope="session")
def build_consortium(protocol_content, more_sites, centre_key):
    """A function that builds a consortium in a directory, and lists the files that it keeps open."""
    roster, keys = more_sites

    def make(
        directory,
        opened,
        *,
        exact=False,
        consent=True,
        consents=False,
        sites=SITES,
        quorum=None,
        noise=discrete_gaussian,
        epsilon_cap=8.01,
        seed=1,
        analyses=None,
        phenotypes=None,
        disks=None,
        training=None,
        harmonisation="site-controls",
        votes=False,
        centre="mean",
        control_sums=True,
        controls=CONTROLS,
        after_withdrawal="go-on",
        pool_controls=False,
        control_reference=True,
        severity_network=None,
        reference=None,
        without_controls=(),
        tables=None,
        read=None,
        **privacy,
    ):
        def disk(whose):
            return (disks or {}).get(whose, directory)

        content = {**protocol_content, "privacy": {**protocol_content["privacy"], **privacy}}
        content["analyses"] = analyses or {}
        content["cohort"] = {**content["cohort"], "harmonisation": harmonisation}
        content["cohort"] |= {"after_withdrawal": after_withdrawal}
        if pool_controls:
            content["cohort"] |= {"pool_controls": True, "minimum_controls": 5}
        if reference is not None:
            content["cohort"] |= {"reference": reference, "without_controls": without_controls}
        for name, changes in (tables or {}).items():
            content[name] = {**content[name], **changes}
        content["training"] = {**content["training"], **(training or {})}
        content["phenotypes"] = phenotypes or {}
        content["severity_network"] = {**content["severity_network"], "centre": centre}
        if severity_network is not None:
            content["severity_network"] = {**severity_network, "centre": centre}
        if exact:
            content["privacy"]["noise"] = "none"
        if votes:
            content["severity_network"] = {"candidates": "votes"}
            content["privacy"] |= {"shares": {}}
        content["roster"] = [entry for entry in roster if entry["site"] in sites]
        content["rounds"] = {**content["rounds"], "quorum": quorum or len(sites)}
        signed = signed_with(centre_key, Protocol.model_validate(content))
        protocol = signed.protocol
        rng = np.random.default_rng(seed)
        cohorts = {s: draw_cohort(rng, controls=controls) for s in sites}
        cohorts |= {site: load(protocol) for site, load in (read or {}).items()}
        if votes:
            cohorts = {s: of_controls(cohort) for s, cohort in cohorts.items()}
        cohorts = {s: c if protocol.trains(s) else without_training(c) for s, c in cohorts.items()}
        limits = Limits(
            epsilon_cap=epsilon_cap,
            delta=1e-3,
            minimum_children=5,
            # Sums without noise or masks leave only a site that demands neither.
            trust="local" if price_of(protocol).exact and not protocol.masked else "secure-sum",
            colluding_sites=1,
            exact_sums=consents or (exact and consent),
            control_sums=control_sums,
            control_reference=control_reference,
        )
        ledgers, hospitals = {}, {}
        for node, site in enumerate(sites, start=1):
            ledgers[site] = ledger = Ledger(disk("sites") / f"{site}.sqlite", keys[site][0])
            opened.append(ledger)
            gate = Gate(
                site=site,
                limits=limits,
                ledger=ledger,
                audit=AuditLog(disk("sites") / f"{site}.jsonl", site=site),
                salt=b"s" * 32,
                identity_key=keys[site][0],
                mask_key=keys[site][1],
                noise=noise,
            )

            def approved(digest):
                if digest != protocol.sha256:
                    raise ProtocolError("not approved")
                return approved_as(digest, signed)

            def load(protocol, site=site, cohort=cohorts[site]):
                return Study(site, protocol, cohort, torch.device("cpu"))

            bands = CohortBands(disk("sites") / f"{site}-bands", salt=b"s" * 32)
            hospitals[node] = Hospital(
                gate=gate,
                bands=bands,
                transcripts=Transcripts(disk("sites") / f"{site}-transcripts.sqlite", salt=b"s" * 32),
                centre_key=centre_key.public_key(),
                approved=approved,
                load=load,
            )
        link = InProcessLink(hospitals, centre_key)
        nodes = {site: node for node, site in enumerate(sites, start=1)}
        store = RunStore(disk("centre") / "run.sqlite", protocol_sha256=protocol.sha256)
        opened.append(store)
        memory = Memory(disk("memory") / "centre", store)
        rounds = Rounds(
            link,
            nodes,
            protocol=signed,
            signing_key=centre_key,
            memory=memory,
            clock=link.clock,
            sleep=link.sleep,
        )
        return Consortium(signed, cohorts, ledgers, link, store, rounds)

    return make


@pytest.fixture(scope="session")
def pooled_rules():
    """What a study's protocol carries where its sites voted and pooled their controls, made up."""
    template, atlas = load_template("phantom-28", simulated=True), load_atlas("phantom-28")
    origin = {"kind": "votes", "people": 24, "note": "of a test"}
    pairs = pairs_of(atlas, template.present)
    numbers = {name: getattr(template, name)[template.present].tolist() for name in ("mean", "sd")}
    return {
        "severity_network": {"candidates": "list", "pairs": pairs, "origin": origin},
        "reference": {"sites": 3, "controls": 24, **numbers},
    }


@pytest.fixture
def make_consortium(tmp_path, build_consortium):
    """A function that builds a consortium under given privacy rules."""
    opened = []
    yield partial(build_consortium, tmp_path, opened)
    for file in opened:
        file.close()


def of_controls(cohort):
    """Leave the children out, as a site does when it votes."""
    nobody = Split((), np.empty((0, cohort.training.scores.shape[1])), np.empty(0))
    chosen = np.array([standing == "control" for standing in cohort.people.standing])
    people = People(
        participants=tuple(p for p, of in zip(cohort.people.participants, chosen, strict=True) if of),
        standing=("control",) * int(chosen.sum()),
        age_years=cohort.people.age_years[chosen],
        sex=cohort.people.sex[chosen],
    )
    return replace(cohort, training=nobody, held_out=nobody, people=people)


def without_training(cohort):
    """Leave the training children and the controls out, as a site does that has too few controls."""
    nobody = Split((), cohort.training.scores[:0], np.empty(0))
    left_out = np.array([of not in ("child", "control") for of in cohort.people.standing])
    people = People(
        participants=tuple(p for p, of in zip(cohort.people.participants, left_out, strict=True) if of),
        standing=tuple(s for s, of in zip(cohort.people.standing, left_out, strict=True) if of),
        age_years=cohort.people.age_years[left_out],
        sex=cohort.people.sex[left_out],
    )
    return replace(cohort, training=nobody, controls=0, people=people)


def draw_cohort(rng, *, controls=CONTROLS):
    """Draw a site whose severity lowers the first twenty candidate edges, and two scores with it."""
    template = load_template("phantom-28", simulated=True)
    candidates = np.flatnonzero(template.present)
    affected = candidates[:20]

    def split(n, first):
        gase = rng.integers(1, 8, n).astype(float)
        scores = rng.normal(size=(n, len(load_atlas("phantom-28").edges)))
        scores[:, affected] -= 0.8 * ((gase - 4) / 1.5)[:, None]
        names = tuple(f"sub-{i:03d}" for i in range(first, first + n))
        return Split(names, np.where(template.present, scores, 0.0), gase)

    training, held_out = split(CHILDREN, 1), split(HELD_OUT, 101)
    # Drawn after everything else, so that scores and severities are the same with and without them.
    training, held_out = (replace(s, phenotypes=draw_phenotypes(s.gase, rng)) for s in (training, held_out))
    training, held_out = (
        replace(s, age_years=s.phenotypes["age"], sex=s.phenotypes["sex"]) for s in (training, held_out)
    )
    labels = tuple(f"sub-c{i:02d}" for i in range(controls))
    people = People(
        participants=(*training.participants, *labels, "sub-x1"),
        standing=(*["child"] * CHILDREN, *["control"] * controls, "no-connectome"),
        age_years=np.concatenate([training.phenotypes["age"], rng.uniform(5, 17, controls + 1)]),
        sex=np.concatenate([training.phenotypes["sex"], rng.integers(0, 2, controls + 1).astype(float)]),
    )
    # Of a generator of its own: what is drawn after this is the same with other controls.
    (own,) = rng.spawn(1)
    strengths = np.maximum(template.mean + template.sd * own.normal(size=(controls, len(template.mean))), 0.0)
    judged = np.empty((0, strengths.shape[1]))
    if controls >= FEWEST_CONTROLS:
        reference = ControlReference.of_controls(strengths)
        judged = np.array([reference.scores(each) for each in strengths])
    return Cohort(
        training,
        held_out,
        controls=controls,
        people=people,
        control_strengths=strengths,
        control_scores=judged,
    )


def draw_phenotypes(gase, rng):
    """Draw age, sex and two standard scores, one of them not known for one child."""
    n = len(gase)
    verbal = 100 - 5 * (gase - 3) + rng.normal(0, 12, n)
    verbal[0] = np.nan
    return {
        "age": rng.uniform(4, 18, n),
        "sex": rng.integers(0, 2, n).astype(float),
        "verbal_score": np.clip(verbal, 40, 160),
        "nonverbal_score": np.clip(98 - 3 * (gase - 3) + rng.normal(0, 14, n), 40, 160),
    }
