"""`esn-client audit` from its command line to its page."""

import json
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from esn_client.cli import main as cli
from esn_client.gate.noise import discrete_gaussian
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.privacy_audit import rehearsal
from esn_client.privacy_audit.findings import Audit, Canaries, KindAudit, Membership
from esn_client.privacy_audit.page import page_text, write_page
from esn_client.site.settings import load_site
from esn_client.site.state import own_entry
from esn_core.errors import GateError
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.phases import PHASES
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_server.protocol.drafting import draft

CHILDREN, CONTROLS = 24, 4


@pytest.fixture
def esn_client(run_command):
    """A function that runs a command; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-client", cli.main)


@pytest.fixture
def site(tmp_path, esn_client, more_sites):
    """A hospital with connectomes of 24 children: its settings, and a drafted protocol."""
    (tmp_path / "bids").mkdir()
    options = {
        "--site": "north",
        "--epsilon-cap": "8.01",
        "--delta": "1e-3",
        "--dataset": tmp_path / "bids",
        "--derivatives": tmp_path / "derivatives",
    }
    status, _, _ = esn_client("init", tmp_path / "site", *(w for pair in options.items() for w in pair))
    assert status == 0
    settings = tmp_path / "site" / "site.toml"
    (tmp_path / "protocol.toml").write_text(drafted(settings, more_sites))
    write_connectomes(tmp_path, load_protocol(tmp_path / "protocol.toml"))
    return settings, tmp_path / "protocol.toml"


def drafted(settings, more_sites, *, study="test", votes=False):
    """A protocol of this site and two others, for simulated children."""
    return draft(
        study=study,
        roster=[own_entry(load_site(settings)), *roster_of(more_sites)[1:3]],
        training_rounds=2,
        deadline_s=5.0,
        analyses=Analyses(),
        simulated=True,
        trust="secure-sum",
        colluding_sites=1,
        noise="gaussian",
        epsilon=8.0,
        delta=1e-3,
        split_salt="x",
        votes=votes,
        candidates=None if votes else "template",
    )


def roster_of(more_sites):
    from esn_core.identity.roster import RosterEntry

    return [RosterEntry.model_validate(entry) for entry in more_sites[0]]


def write_connectomes(directory, protocol):
    rng = np.random.default_rng(0)
    lines = ["participant_id\tage\tsex\tgroup\tgase\n"]
    for number in range(1, CHILDREN + CONTROLS + 1):
        child = f"dre\t{rng.integers(1, 8)}" if number <= CHILDREN else "control\tn/a"
        lines.append(f"sub-{number:03d}\t10\tF\t{child}\n")
        counts = rng.integers(1, 500, (28, 28)).astype(float)
        visit = Visit(f"sub-{number:03d}", None)
        derivative = Derivative(directory / "derivatives", visit, protocol.imaging)
        matrices = dict.fromkeys(derivative.measures, counts + counts.T)
        derivative.write(matrices, sources={}, details={"Quality": {}})
    (directory / "bids" / "participants.tsv").write_text("".join(lines))
    (directory / "bids" / "dataset_description.json").write_text('{"Authors": ["esn-client simulate"]}')


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_an_audit_passes_writes_its_page_and_nothing_else(site, esn_client, tmp_path):
    settings, protocol = site
    before = contents(tmp_path)
    page = tmp_path / "audit.html"
    # The fewest repeats: that an honest gate passes does not depend on them, and the attacks' strength is the
    # business of the test below.
    status, out, err = esn_client("audit", settings, protocol, "--out", page, "--repeats", 20, "--json")
    assert status == 0
    said = [re.sub(r"auditing: \d+/\d+ ", "", line) for line in err.splitlines()]
    assert list(dict.fromkeys(said)) == [
        "connectomes read",
        "sums of phase 'centre' attacked (1 of 5 phases)",
        "sums of phase 'association' attacked (2 of 5 phases)",
        "sums of phase 'gradient' attacked (3 of 5 phases)",
        "sums of phase 'calibration' attacked (4 of 5 phases)",
        "sums of phase 'evaluation' attacked (5 of 5 phases)",
        "phases asked as a dishonest centre would",
    ]
    found = json.loads(out)
    assert found["passed"] is True
    assert found["protocol_sha256"] == load_protocol(protocol).sha256
    assert [kind["phase"] for kind in found["kinds"]] == [
        "centre",
        "association",
        "gradient",
        "calibration",
        "evaluation",
    ]
    told = [kind for kind in found["kinds"] if kind["membership"]]
    # So long a sum is formed too seldom for that attack.
    assert [kind["phase"] for kind in found["kinds"] if kind not in told] == ["gradient"]
    children = {kind["children"]: kind["membership"]["children"] for kind in told}
    assert {attempt["phase"] for attempt in found["attempts"]} == {kind["phase"] for kind in found["kinds"]}
    assert not any(attempt["broken"] for attempt in found["attempts"])
    # The number of children hangs on no control.
    on_controls = [kind["phase"] for kind in found["kinds"] if kind["controls"]]
    assert on_controls == ["association", "gradient", "calibration", "evaluation"]
    assert found["controls"]["area"] > 0.5
    assert sum(children.values()) == CHILDREN
    after = contents(tmp_path)
    assert set(after) - set(before) == {page}
    assert {path: after[path] for path in before} == before
    assert "Pass: no attack found more" in page.read_text()
    assert "Can this site's healthy controls be found?" in page.read_text()
    assert "sub-" not in page.read_text()


def test_an_audit_of_votes_counts_the_edges_that_one_control_turns(site, esn_client, tmp_path, more_sites):
    """Nothing about children is said: a control who alone lacks a region turns the vote on its 27 edges."""
    settings, _ = site
    protocol, page = tmp_path / "votes.toml", tmp_path / "audit.html"
    protocol.write_text(drafted(settings, more_sites, study="votes", votes=True))
    settings.write_text(settings.read_text().replace("control_sums = false", "control_sums = true"))
    command = ("audit", settings, protocol, "--out", page, "--json")
    status, _, err = esn_client(*command)
    assert status == GateError.exit_status
    assert "4 controls with a connectome, fewer than the minimum of 5" in err
    table = tmp_path / "bids" / "participants.tsv"
    table.write_text(re.sub(r"dre\t\d", "control\tn/a", table.read_text(), count=4))
    recipe = load_protocol(protocol).imaging
    lacking = Derivative(tmp_path / "derivatives", Visit("sub-001", None), recipe)
    counts = np.full((28, 28), 9.0)
    counts[0] = counts[:, 0] = 0.0
    lacking.write(dict.fromkeys(lacking.measures, counts), sources={}, details={"Quality": {}})
    status, out, err = esn_client(*command)
    assert (status, err.count("esn-client:")) == (0, 0), err
    found = json.loads(out)
    assert found["votes"] == {"controls": 8, "edges": 378, "median": 0.0, "largest": 27}
    words = Words(page.read_text()).text
    assert "this site's 8 controls" in words
    assert "turns the site's vote on 0 of 378 connections" in words
    assert "and on 27 for the control who turns most" in words
    for absent in ("Table 2", "how well children are found", "beyond the attack above"):
        assert absent not in words


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("share", "passes"), [(1.0, True), (0.7, False)])
def test_an_audit_at_its_full_strength_tells_seven_tenths_of_the_noise_from_all(
    site, esn_client, tmp_path, monkeypatch, share, passes
):
    def fainter(dimension, scale):
        return discrete_gaussian(dimension, scale * share)

    monkeypatch.setattr(rehearsal, "discrete_gaussian", fainter)
    status, out, _ = esn_client("audit", *site, "--out", tmp_path / "audit.html", "--json")
    found = json.loads(out)
    assert (status, found["passed"]) == ((0, True) if passes else (13, False))
    # By the audit's own word, it can show this fault.
    assert any(kind["canaries"]["smallest_fault"] > 0.7 for kind in found["kinds"])


def test_an_audit_of_broken_noise_fails_with_its_page_and_one_line(site, esn_client, tmp_path, monkeypatch):
    def weak(dimension, scale):
        return discrete_gaussian(dimension, scale / 10)

    monkeypatch.setattr(rehearsal, "discrete_gaussian", weak)
    settings, protocol = site
    protocol.write_text(protocol.read_text().replace('trust = "secure-sum"', 'trust = "local"'))
    page = tmp_path / "audit.html"
    status, out, err = esn_client("audit", settings, protocol, "--out", page, "--repeats", 20)
    assert (status, out.strip()) == (13, str(page))
    assert "esn-client: the audit found a fault" in err
    assert "association: the noise is at most" in err
    assert "FAIL: at least one release reveals more" in page.read_text()


# --- the page --------------------------------------------------------------------------------------------


def kind(phase="association", *, mu_low=1.5, membership=True, canaries=True, releases=1):
    return KindAudit(
        phase=phase,
        children="training",
        releases=releases,
        numbers=97,
        noise_multiplier=0.575 if canaries else 0.0,
        canaries=Canaries(2000, 500, 430, 2.25, 9.5, mu_low, 1.95, 1.74, 0.83) if canaries else None,
        membership=Membership(16, 8.1, 100, 0.55, 0.01, 0.02, 0.91, 0.53, 0.89, 0.27) if membership else None,
    )


def audit(protocol_content, *kinds, **changes):
    protocol = Protocol.model_validate(protocol_content)
    about = {
        "site": "north",
        "study": "a<b",
        "protocol_sha256": protocol.sha256,
        "at": "2026-11-25 02:00",
        "software": "0.1.0",
        "price": price_of(protocol),
        "trust": "local",
        "colluding_sites": 0,
        "repeats": 100,
        "kinds": kinds or (kind(),),
    }
    return Audit(**{**about, **changes})


class Words(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.said, self.open, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.said))


@pytest.mark.axe
def test_a_screen_reader_and_a_keyboard_miss_nothing_of_the_page(protocol_content, barriers_of):
    assert barriers_of(page_text(audit(protocol_content, kind(), kind("centre", canaries=False)))) == []


def test_the_page_needs_nothing_else_and_is_well_formed(protocol_content, tmp_path):
    found = audit(protocol_content, kind(), kind("gradient", releases=20), trust="secure-sum")
    write_page(tmp_path / "page.html", found)
    text = (tmp_path / "page.html").read_text()
    words = Words(text)
    assert words.open == []
    assert words.links == []
    assert "<script" not in text
    assert "a&lt;b" in text


def test_the_page_says_what_was_found_in_words_and_numbers(protocol_content):
    words = Words(page_text(audit(protocol_content, kind(releases=20)))).text
    for said in (
        "Pass: no attack found more than the price of the protocol allows.",
        "ε 8.00 for a training child",
        "one of 20",
        "430 of 500",
        "89 % to 116 %",
        "83 %",
        "8 of 16",
        "0.55 ± 0.02",
        "What this audit cannot show",
    ):
        assert said in words


def test_a_fault_is_at_the_top_of_the_page(protocol_content):
    words = Words(page_text(audit(protocol_content, kind(mu_low=1.9), kind("centre")))).text
    assert "FAIL: at least one release reveals more than its price says." in words
    assert "association: the noise is at most 0.92 of what the price says" in words
    assert words.count("FAIL") == 2
    assert "Pass" not in words


def test_a_protocol_without_noise_neither_passes_nor_fails(protocol_content):
    content = {**protocol_content, "privacy": {**protocol_content["privacy"], "noise": "none"}}
    words = Words(page_text(audit(content, kind(canaries=False)))).text
    assert "There is no privacy to be tested" in words
    assert "Table 1" not in words.split("Table 2")[0]
    assert "Pass:" not in words


@pytest.mark.parametrize("phase", [name for name in PHASES if PHASES[name].children is not None])
def test_every_phase_has_its_words_on_the_page(protocol_content, phase):
    words = Words(page_text(audit(protocol_content, kind(phase)))).text
    assert f"{phase}{PHASES[phase].leaves}" in words


def test_a_phase_that_is_declared_exact_stands_beside_those_with_noise(protocol_content):
    content = {**protocol_content, "analyses": {"cohort": True, "exact": ["cohort"]}}
    words = Words(page_text(audit(content, kind(), kind("cohort", canaries=False)))).text
    assert "Pass: no attack found more" in words
    assert "Declared exact: cohort." in words
    assert words.count("there is no claim to be tested") == 1
    assert "ε 8.00 for a training child" in words
    assert "unbounded" not in words


def test_too_few_children_are_said_so(protocol_content):
    words = Words(page_text(audit(protocol_content, kind(membership=False)))).text
    assert "too few training children to leave them out" in words


def test_the_facts_are_json_without_infinities(protocol_content):
    content = {**protocol_content, "privacy": {**protocol_content["privacy"], "noise": "none"}}
    facts = json.loads(json.dumps(audit(content, kind(canaries=False)).facts, allow_nan=False))
    assert facts["epsilon_training_child"] is None
    assert facts["kinds"][0]["membership"]["area"] == 0.55
    assert facts["passed"] is True


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon_proven": 9.6}, "prove epsilon 9.60 at delta 1e-06; the price says 9.50"),
        ({"mu_low": 1.75}, "the noise is at most 0.99 of what the price says"),
    ],
)
def test_each_bound_above_its_claim_is_a_fault(changes, words):
    about = {**kind().canaries.__dict__, **changes}
    found = KindAudit("centre", "training", 1, 2, 0.5, Canaries(**about), None)
    assert len(found.faults) == 1
    assert words in found.faults[0]


def test_an_area_far_above_its_bound_is_a_fault_and_one_within_its_error_is_none():
    def faults(area):
        membership = Membership(16, 8.1, 100, area, 0.01, 0.02, 0.95, 0.53, 0.80, 0.27)
        return KindAudit("centre", "training", 1, 2, 0.5, None, membership).faults

    assert faults(0.83) == ()
    assert "members are told from others better (area 0.850) than the price allows" in faults(0.85)[0]
