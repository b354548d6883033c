"""Documents for officers and committees: filled in from the protocol, and nothing an auditor could refute."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from esn_client.approval.documents import DOCUMENTS, documents_of
from esn_client.cli import main as cli
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol, load_protocol

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tests" / "golden" / "formats" / "protocol-2.toml"
# What no software can promise.
REFUTABLE = (
    r"not personal data|no personal data|anonym|fully (safe|secure)|guarantee|cannot be (identified|traced)|"
    r"compliant"
)


def test_the_examples_in_the_documents_are_what_is_written_today():
    """If not: esn-client review tests/golden/formats/protocol-2.toml --documents docs/governance."""
    written = {
        p.name: p.read_text() for p in (ROOT / "docs" / "governance").glob("*.md") if p.name != "README.md"
    }
    assert written == documents_of(load_protocol(EXAMPLE), audit={})


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_claims_what_could_be_refuted(patients_content, name):
    text = documents_of(Protocol.model_validate(patients_content), audit={})[f"{name}.md"]
    assert re.findall(REFUTABLE, text, flags=re.IGNORECASE) == []
    assert "{{" not in text
    assert "None" not in text


def test_every_release_has_a_line_and_the_numbers_are_those_of_the_price(patients_content):
    protocol = Protocol.model_validate(patients_content)
    price, found = price_of(protocol), documents_of(protocol, audit={})
    for phase in price.phases:
        assert f"| {phase.phase}: " in found["data-flow.md"]
    epsilon = max(price.epsilon(children) for children in ("training", "held-out"))
    for name in ("impact-assessment.md", "ethics-paragraph.md", "residual-risk.md"):
        assert f"ε {epsilon:.2f}" in found[name]
    assert "simulated" not in found["ethics-paragraph.md"]


def test_exact_sums_are_said_to_have_no_bound(protocol_content):
    content = {**protocol_content, "privacy": {**protocol_content["privacy"], "noise": "none"}}
    found = documents_of(Protocol.model_validate(content), audit={})
    assert "no number bounds what they tell of a child" in found["residual-risk.md"]
    assert "ε" not in found["ethics-paragraph.md"]


def test_the_figures_of_the_sites_own_attack_are_filled_in(run_command, command_fails, tmp_path):
    protocol = load_protocol(EXAMPLE)
    kinds = [{"phase": "centre", "membership": {"area": 0.51, "area_bound": 0.62}, "faults": []}]
    facts = {"protocol_sha256": protocol.sha256, "at": "2026-11-29 10:00", "passed": True, "kinds": kinds}
    (tmp_path / "audit.json").write_text(json.dumps(facts))
    words = ("review", EXAMPLE, "--documents", tmp_path / "out", "--audit", tmp_path / "audit.json")
    run = partial(run_command, "esn-client", cli.main)
    status, _, err = run(*words)
    assert (status, err.count(".md\n")) == (0, len(DOCUMENTS))
    assert "| centre | 0.510 | 0.620 |" in (tmp_path / "out" / "residual-risk.md").read_text()
    status, _, err = run(*words)
    assert (status, "would be overwritten" in err) == (10, True)
    (tmp_path / "audit.json").write_text(json.dumps(facts | {"protocol_sha256": "0" * 64}))
    status, _, err = run(*words[:3], tmp_path / "more", *words[4:])
    assert (status, "is the audit of protocol 0000" in err) == (10, True)
    assert not (tmp_path / "more").exists()
