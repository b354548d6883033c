"""A site takes in one centre, approves what that centre signed and its own policy allows, and can go back."""

import datetime
import json
import shutil
import subprocess
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.approval import approvals as module
from esn_client.approval.approvals import Approvals
from esn_client.cli import main as cli
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.ledger import Ledger
from esn_client.site.centre_kit import centre_key as pinned_key
from esn_client.site.centre_kit import load_kit
from esn_client.site.keys import load_identity_key, load_mask_key
from esn_client.site.settings import load_site
from esn_client.site.state import own_entry
from esn_core.errors import ProtocolError
from esn_core.identity.certificates import expiry_warning
from esn_core.identity.enrolment import EnrolmentRequest
from esn_core.identity.public_keys import identity_text
from esn_core.identity.roster import RosterEntry
from esn_core.identity.signing import fingerprint
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.protocol import load_protocol
from esn_core.protocol.signature import load_signed
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.centre_keys import create_authority, load_centre_key
from esn_server.enrolment.kits import write_kit
from esn_server.protocol.drafting import analyses_of, draft

STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)


@pytest.fixture
def esn_client(run_command):
    """A function that runs a command; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-client", cli.main)


@pytest.fixture
def fails(command_fails):
    """A function that runs a command which must fail with a status and one line of certain words."""
    return partial(command_fails, "esn-client", cli.main)


@pytest.fixture
def centre(tmp_path):
    """A centre's directory, with its keys."""
    create_authority(tmp_path / "centre", names=["centre.example.org"])
    return tmp_path / "centre"


@pytest.fixture
def settings(tmp_path, esn_client):
    """The settings of a site that has not met a centre yet."""
    words = ["--site", "north", "--epsilon-cap", "8.01", "--delta", "1e-3"]
    places = ("--dataset", tmp_path / "bids", "--derivatives", tmp_path / "derivatives")
    assert esn_client("init", tmp_path / "site", *words, *places)[0] == 0
    return tmp_path / "site" / "site.toml"


@pytest.fixture
def site(settings):
    """What the settings say."""
    return load_site(settings)


@pytest.fixture
def make_kit(centre, site):
    """A function that writes the centre's kit for the site; returns the file and its fingerprint."""

    def make(*, directory=centre, entry=None, public_address=None):
        path, kit = write_kit(directory, entry or own_entry(site), public_address=public_address, port=9092)
        return path, kit.fingerprint

    return make


@pytest.fixture
def take_in(settings, esn_client):
    """A function that takes a kit in as a site that has compared its fingerprint."""

    def take(kit, *more):
        path, heard = kit
        return esn_client("kit", settings, path, "--fingerprint", heard, *more)

    return take


@pytest.fixture
def enrolled(settings, make_kit, take_in):
    """The settings of a site that has taken the centre's kit in."""
    assert take_in(make_kit())[0] == 0
    return settings


@pytest.fixture
def make_protocol(tmp_path, site, roster, centre, sign_as):
    """A function that drafts and signs a protocol with the site on its roster."""

    def make(*, key=None, replaced=(), name="protocol.toml", **changes):
        about = {
            "simulated": True,
            "trust": "secure-sum",
            "colluding_sites": 1,
            "noise": "gaussian",
            "epsilon": 8.0,
            "delta": 1e-3,
            "split_salt": "x",
            "training_rounds": 2,
            "deadline_s": 5.0,
        }
        about["analyses"] = Analyses()
        others = map(RosterEntry.model_validate, roster[1:])
        text = draft(study="test", roster=[own_entry(site), *others], **{**about, **changes})
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return sign_as(path, key or load_centre_key(centre))

    return make


@pytest.fixture
def approvals(enrolled, site):
    """What the site approved."""
    audit = AuditLog(site.audit_path, site="north")
    return Approvals(site, centre_key=pinned_key(site), audit=audit)


def audited(site):
    lines = site.audit_path.read_text(encoding="utf-8").splitlines()
    return [(line["event"], line) for line in map(json.loads, lines)]


# --- the kit ------------------------------------------------------------------------------------------


def test_a_kit_pins_the_centre_and_standard_tools_read_what_it_holds(centre, site, make_kit, take_in):
    status, out, _ = take_in(make_kit())
    assert (status, out) == (0, "centre.example.org:9092\n")
    kit = load_kit(site)
    assert identity_text(load_centre_key(centre).public_key()) == kit.signing_key
    assert site.ca_certificate_path.read_bytes() == (centre / "ca.crt").read_bytes()
    assert [event for event, _ in audited(site)] == ["kit"]
    if shutil.which("openssl") and shutil.which("ssh-keygen"):
        told = subprocess.run(
            ["openssl", "x509", "-in", site.ca_certificate_path, "-noout", "-subject"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "esn-federated certificate authority" in told.stdout
        told = subprocess.run(
            ["ssh-keygen", "-l", "-f", site.signing_key_path], capture_output=True, text=True, check=True
        )
        assert told.stdout.split()[1] == fingerprint(pinned_key(site))


def test_a_kit_holds_no_secret(centre, make_kit):
    path, _ = make_kit()
    text = path.read_text()
    assert "PRIVATE" not in text
    for secret in ("ca.key", "server.key", "signing_key"):
        assert not any(line in text for line in (centre / secret).read_text().splitlines())


def test_a_fingerprint_may_be_written_as_it_was_heard(settings, make_kit, esn_client):
    path, said = make_kit()
    heard = said.replace(" ", "").upper()
    assert esn_client("kit", settings, path, "--fingerprint", heard)[0] == 0


def test_a_kit_is_not_taken_in_before_its_fingerprint_was_compared(settings, site, make_kit, fails):
    path, said = make_kit()
    fails(10, ("has the fingerprint " + said, "on the telephone"), "kit", settings, path)
    fails(12, f"has the fingerprint {said}, not 0000", "kit", settings, path, "--fingerprint", "0000")
    assert not site.kit_path.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("centre.example.org:9092", "centre.example.net:9092"),
        ("ssh-ed25519 ", "STRANGER"),
        ('site = "north"', 'site = "nord"'),
    ],
)
def test_a_kit_that_was_changed_on_its_way_has_another_fingerprint(
    settings, site, make_kit, fails, tmp_path, old, new
):
    path, said = make_kit()
    text = path.read_text()
    assert old in text
    if new == "STRANGER":
        old, new = load_text(text, "signing_key"), identity_text(STRANGER.public_key())
    changed = tmp_path / "changed.toml"
    changed.write_text(text.replace(old, new))
    fails(12, "somebody may have exchanged it on its way", "kit", settings, changed, "--fingerprint", said)
    assert not site.kit_path.exists()


def load_text(text, name):
    return next(line for line in text.splitlines() if line.startswith(name)).split('"')[1]


def test_another_sites_kit_is_refused(settings, site, make_kit, roster, fails):
    path, said = make_kit(entry=RosterEntry.model_validate(roster[1]))
    words = ("the kit is made for south", "this site is north")
    fails(12, words, "kit", settings, path, "--fingerprint", said)
    assert not site.kit_path.exists()


def test_another_centre_is_taken_in_only_when_that_is_said(
    enrolled, site, tmp_path, make_kit, take_in, fails
):
    before = load_kit(site)
    moved = make_kit(public_address="localhost:443")
    assert take_in(moved)[:2] == (0, "localhost:443\n")
    create_authority(tmp_path / "other", names=["centre.example.org"])
    path, said = make_kit(directory=tmp_path / "other")
    words = "the kit names another signing key and certificate authority than the one this site has"
    fails(12, words, "kit", enrolled, path, "--fingerprint", said)
    assert load_kit(site).signing_key == before.signing_key
    assert take_in((path, said), "--replace")[0] == 0
    assert load_kit(site).signing_key != before.signing_key


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: "no kit", "is not TOML"),
        (lambda text: text.replace("BEGIN CERT", "BEGIN CRET"), "'ca_certificate': it is no certificate"),
        (lambda text: text.replace("format = 1", "format = 2"), "kit format 2, this one reads 1"),
        (lambda text: text.replace(":9092", ""), "'address'"),
    ],
)
def test_what_is_no_kit_is_refused_by_what_was_found(settings, make_kit, fails, damage, words):
    path, said = make_kit()
    path.write_text(damage(path.read_text()))
    fails(12, words, "kit", settings, path, "--fingerprint", said)


def test_joining_warns_of_a_certificate_that_ends_soon(centre):
    now = datetime.datetime.now(datetime.UTC)
    certificate = centre / "server.crt"
    for days, words in ((790, None), (796, "ends on"), (826, "ended on")):
        warning = expiry_warning(certificate, cure="renew it", now=now + datetime.timedelta(days=days))
        assert (warning is None) if words is None else (words in warning and warning.endswith("; renew it"))


# --- approval -----------------------------------------------------------------------------------------


def test_an_approval_counts_at_once_and_is_audited(approvals, site, make_protocol):
    path = make_protocol()
    digest = load_protocol(path).sha256
    with pytest.raises(ProtocolError, match="has not approved, or has withdrawn"):
        approvals.protocol(digest)
    other = Approvals(site, centre_key=pinned_key(site), audit=AuditLog(site.audit_path, site="north"))
    assert other.approve(path).protocol.sha256 == digest
    assert approvals.protocol(digest).protocol.sha256 == digest
    assert approvals.bundles() == {approvals.protocol(digest).protocol.bundle_sha256}
    event, line = audited(site)[-1]
    assert (event, line["protocol"]) == ("approved", digest)


def test_a_rehearsal_is_not_approved_for_a_dataset_of_patients(approvals, site, make_protocol):
    path = make_protocol()
    site.dataset.mkdir()
    with pytest.raises(ProtocolError, match="the site's dataset is not marked as simulated"):
        approvals.approve(path)
    (site.dataset / "dataset_description.json").write_text('{"Authors": ["esn-client simulate"]}')
    approvals.approve(path)


def test_an_approved_file_is_parsed_again_where_a_byte_has_changed(
    approvals, site, make_protocol, monkeypatch
):
    digest = approvals.approve(make_protocol()).protocol.sha256
    parsed = []
    monkeypatch.setattr(
        module, "load_signed", lambda path, key: parsed.append(path) or load_signed(path, key)
    )
    first = approvals.protocol(digest)
    assert approvals.protocol(digest) is first
    assert len(parsed) == 1
    path = site.approved_path / f"{digest}.toml"
    path.write_text(path.read_text() + "# a remark\n")
    assert approvals.protocol(digest) == first
    assert len(parsed) == 2
    path.write_text(path.read_text().replace('study = "', 'study = "x'))
    with pytest.raises(ProtocolError, match="was altered since it was signed"):
        approvals.protocol(digest)


def test_a_withdrawal_counts_at_once_and_is_audited(enrolled, approvals, site, make_protocol, esn_client):
    digest = approvals.approve(make_protocol()).protocol.sha256
    approvals.protocol(digest)
    assert esn_client("withdraw", enrolled, digest[:8])[:2] == (0, digest + "\n")
    with pytest.raises(ProtocolError, match="has not approved, or has withdrawn"):
        approvals.protocol(digest)
    assert approvals.bundles() == frozenset()
    event, line = audited(site)[-1]
    assert (event, line["protocol"]) == ("withdrawn", digest)
    # What was once approved stays readable, and may be approved again.
    approvals.approve(site.withdrawn_path / f"{digest}.toml")
    approvals.protocol(digest)


def test_what_is_not_approved_cannot_be_withdrawn(enrolled, approvals, make_protocol, fails):
    digest = approvals.approve(make_protocol()).protocol.sha256
    fails(
        12,
        f"0 approved protocols begin with 00000000; approved: {digest[:16]}",
        "withdraw",
        enrolled,
        "0" * 8,
    )
    fails(12, "8 digits or more of a protocol's hash are needed, not '../x'", "withdraw", enrolled, "../x")
    approvals.protocol(digest)


def test_an_expired_protocol_is_neither_approved_nor_answered(site, approvals, make_protocol):
    path = make_protocol(valid_days=3)
    digest = approvals.approve(path).protocol.sha256
    later = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=5)
    audit = AuditLog(site.audit_path, site="north")
    then = Approvals(site, centre_key=pinned_key(site), audit=audit, today=lambda: later)
    with pytest.raises(ProtocolError, match="expired: its last day was"):
        then.protocol(digest)
    with pytest.raises(ProtocolError, match="expired: its last day was"):
        then.approve(path)


def test_only_what_the_pinned_key_signed_is_approved(enrolled, site, make_protocol, centre, fails):
    words = (
        f"is signed by the key {fingerprint(STRANGER.public_key())}, not by the centre's",
        fingerprint(load_centre_key(centre).public_key()),
    )
    fails(12, words, "approve", enrolled, make_protocol(key=STRANGER))
    draft_only = make_protocol()
    draft_only.write_text(draft_only.read_text().partition("\n[signature]")[0])
    fails(12, "is not signed; the centre runs", "approve", enrolled, draft_only)
    altered = make_protocol()
    altered.write_text(altered.read_text().replace("epsilon = 8.0", "epsilon = 7.0"))
    fails(12, "was altered since it was signed by SHA256:", "approve", enrolled, altered)
    assert not list(site.approved_path.glob("*"))
    assert [event for event, _ in audited(site)] == ["kit"]


def test_nothing_is_approved_before_the_centre_is_known(settings, make_protocol, fails):
    fails(10, "has no kit of the centre yet", "approve", settings, make_protocol())
    fails(10, "has no kit of the centre yet", "withdraw", settings, "0" * 64)


def test_no_site_approves_exact_models_of_real_children(site, enrolled, make_protocol, fails):
    analyses = analyses_of(network=False, neurocognition=True, exact=("neurocognition",))
    path = make_protocol(analyses=analyses)
    text = enrolled.read_text(encoding="utf-8")
    enrolled.write_text(text.replace("exact_sums = false", "exact_sums = true"), encoding="utf-8")
    path.write_text(path.read_text().replace("simulated = true", "simulated = false"))
    words = (
        "exact sums of linear, newton, comparison, ranking are for simulated children; these are real",
        "could choose which child they are about; take 'neurocognition' out of 'exact'",
    )
    for command in ("approve", "review"):
        fails(12, words, command, *([enrolled] if command == "approve" else []), path)
    assert not list(site.approved_path.glob("*"))


# One phase without noise in a study with noise.
EXPLAINED = Analyses.model_validate({"explanation": True, "exact": ["explanation"]})


@pytest.mark.parametrize(
    ("limits", "protocol", "words"),
    [
        ({'"secure-sum"': '"local"'}, {}, ["this site adds all of it (limits.trust)"]),
        (
            {"colluding_sites = 1": "colluding_sites = 2"},
            {},
            ["this site demands 2 (limits.colluding_sites)"],
        ),
        ({"minimum_children = 5": "minimum_children = 9"}, {}, ["9 or more (limits.minimum_children)"]),
        ({}, {"noise": "none"}, ["has not consented (limits.exact_sums)"]),
        ({}, {"analyses": EXPLAINED}, ["has not consented (limits.exact_sums)"]),
        # Consent to exact sums is none to exact sums that no masks hide.
        (
            {"exact_sums = false": "exact_sums = true"},
            {"noise": "none", "trust": "local"},
            ["this site demands masks (limits.trust)"],
        ),
        # What is exact is a matter of consent; what is noised stays a matter of the cap.
        (
            {"epsilon_cap = 8.01": "epsilon_cap = 7.9", "exact_sums = false": "exact_sums = true"},
            {"analyses": EXPLAINED},
            ["epsilon 8.00 at delta 0.001; this site's cap is 7.9"],
        ),
        (
            {"epsilon_cap = 8.01": "epsilon_cap = 7.9"},
            {},
            ["epsilon 8.00 at delta 0.001; this site's cap is 7.9"],
        ),
        (
            {
                "epsilon_cap = 8.01": "epsilon_cap = 3.0",
                "minimum_children = 5": "minimum_children = 6",
                "colluding_sites = 1": "colluding_sites = 3",
            },
            {},
            ["limits.colluding_sites", "limits.minimum_children", "limits.epsilon_cap"],
        ),
    ],
)
def test_all_that_the_sites_policy_forbids_is_said_at_once(
    enrolled, site, make_protocol, fails, esn_client, limits, protocol, words
):
    text = enrolled.read_text(encoding="utf-8")
    for old, new in limits.items():
        assert old in text
        text = text.replace(old, new)
    enrolled.write_text(text, encoding="utf-8")
    path = make_protocol(**protocol)
    fails(12, ("this site's settings forbid it: ", *words), "approve", enrolled, path)
    assert not list(site.approved_path.glob("*"))
    _, out, _ = esn_client("review", path, "--settings", enrolled)
    assert all(word in out for word in words)


def test_a_review_says_who_signed_and_until_when(enrolled, make_protocol, centre, esn_client):
    path = make_protocol()
    _, out, _ = esn_client("review", path, "--settings", enrolled)
    assert f"Signed by {fingerprint(load_centre_key(centre).public_key())}" in out
    assert f"Questions are answered up to and on {load_protocol(path).expires}." in out
    assert "Nothing forbids it." in out
    _, out, _ = esn_client("review", make_protocol(key=STRANGER), "--settings", enrolled)
    assert f"it is signed by {fingerprint(STRANGER.public_key())}, not by the centre" in out
    path.write_text(path.read_text().partition("\n[signature]")[0])
    _, out, _ = esn_client("review", path, "--settings", enrolled)
    assert "NOT SIGNED" in out
    assert "it is not signed" in out


# --- rotation -----------------------------------------------------------------------------------------


def test_a_rotation_exchanges_node_and_mask_key_and_keeps_the_ledgers_key(settings, site, esn_client):
    before, secrets = own_entry(site), [p.read_bytes() for p in (site.node_key_path, site.mask_key_path)]
    status, out, _ = esn_client("rotate", settings)
    assert (status, "Nothing is changed yet" in out) == (0, True)
    assert own_entry(site) == before
    status, out, _ = esn_client("rotate", settings, "--yes")
    assert (status, out.strip()) == (0, str(site.enrolment_path))
    after = own_entry(site)
    assert after.identity_key == before.identity_key
    assert after.node_key != before.node_key
    assert after.mask_key != before.mask_key
    assert read_toml(site.enrolment_path, EnrolmentRequest).entry == after
    for path in (site.node_key_path, site.mask_key_path):
        assert path.stat().st_mode & 0o777 == 0o600
    load_mask_key(site.mask_key_path)
    # The old private keys are gone, so that no mask of the past can be made again.
    for path in (p for p in site.state.rglob("*") if p.is_file()):
        assert not any(secret in path.read_bytes() for secret in secrets)
    with Ledger(site.ledger_path, load_identity_key(site.identity_key_path)) as ledger:
        ledger.verify()


def test_a_rotation_that_was_interrupted_is_made_good_by_another(settings, site, esn_client):
    for name in ("new-node_key", "new-node_key.pub", "new-mask_key.pem"):
        (site.state / name).write_text("half")
    assert esn_client("rotate", settings, "--yes")[0] == 0
    assert not list(site.state.glob("new-*"))


def test_keys_that_an_approved_protocol_names_are_not_exchanged(
    enrolled, site, approvals, make_protocol, fails
):
    digest = approvals.approve(make_protocol()).protocol.sha256
    before = own_entry(site)
    words = (f"name the present keys: {digest[:16]}", "run 'esn-client withdraw' first")
    fails(10, words, "rotate", enrolled)
    fails(10, words, "rotate", enrolled, "--yes")
    assert own_entry(site) == before


def test_a_protocol_with_the_keys_before_a_rotation_is_not_approved(
    enrolled, make_protocol, esn_client, fails
):
    path = make_protocol()
    assert esn_client("rotate", enrolled, "--yes")[0] == 0
    fails(12, "the roster lists another node key and mask key for north", "approve", enrolled, path)
