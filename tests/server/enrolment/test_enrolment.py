"""Who is let in, who no longer is, and what the centre signs; the SuperLink is played, and remembers."""

import datetime
import json
import shutil
import ssl
import subprocess
from functools import partial

import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from esn_core.identity.enrolment import EnrolmentRequest, SiteKit
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.identity.roster import RosterEntry
from esn_core.identity.signing import fingerprint
from esn_core.protocol.protocol import load_protocol
from esn_core.protocol.signature import load_signed
from esn_core.system.toml_file import read_toml
from esn_server.cli import main as cli
from esn_server.enrolment.centre_keys import load_centre_key, read_certificate, server_names
from esn_server.enrolment.sites import enrolled
from esn_server.protocol.drafting import example
from esn_server.service.address import Address

SITES = ("north", "south", "west")
DRAFT = (
    *("--study", "test", "--epsilon", "8", "--delta", "1e-3", "--split-salt", "x"),
    *("--simulated", "--candidates", "template"),
)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)


@pytest.fixture
def esn_server(run_command):
    """A function that runs a command; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-server", cli.main)


@pytest.fixture
def fails(command_fails):
    """A function that runs a command which must fail with a status and one line of certain words."""
    return partial(command_fails, "esn-server", cli.main)


@pytest.fixture
def superlink(monkeypatch):
    """The node keys that the SuperLink of a started centre accepts now."""
    accepted = set()
    started = Address(1, "2026-11-25T00:00:00+00:00", "0.0.0.0:9443", "127.0.0.1:1", "127.0.0.1:2")
    monkeypatch.setattr("esn_server.link.admission.read_address", lambda _: started)
    monkeypatch.setattr(
        "esn_server.link.admission.register_site", lambda _d, _a, key: accepted.add(key.read_text())
    )
    monkeypatch.setattr(
        "esn_server.link.admission.unregister_site", lambda _d, _a, key: accepted.discard(key.read_text())
    )
    return accepted


@pytest.fixture
def centre(tmp_path, esn_server):
    """A centre as its coordinator makes it."""
    directory = tmp_path / "centre"
    assert esn_server("init", directory, "--name", "centre.example.org", "--name", "192.0.2.7")[0] == 0
    return directory


class Site:
    """A site that can make keys, and ask to be enrolled with them."""

    def __init__(self, name, directory):
        self.name, self.path = name, directory / f"{name}.request.toml"
        self.identity = Ed25519PrivateKey.generate()
        self.new_keys()

    def new_keys(self):
        node = ec.generate_private_key(ec.SECP384R1()).public_key()
        self.entry = RosterEntry(
            site=self.name,
            node_key=node.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
            identity_key=identity_text(self.identity.public_key()),
            mask_key=mask_text(X25519PrivateKey.generate().public_key()),
        )

    def request(self):
        self.path.write_text(EnrolmentRequest.of(self.entry, self.identity).text)
        return self.path


@pytest.fixture
def sites(tmp_path):
    """Three sites, by name."""
    return {name: Site(name, tmp_path) for name in SITES}


@pytest.fixture
def enrol(centre, superlink, esn_server):
    """A function that enrols a site as a coordinator who has heard its fingerprint."""

    def enrol_one(site, *more):
        return esn_server("enrol", centre, site.request(), "--fingerprint", site.entry.fingerprint, *more)

    return enrol_one


@pytest.fixture
def consortium(centre, sites, enrol):
    """A centre's directory with three enrolled sites."""
    for site in sites.values():
        assert enrol(site)[0] == 0
    return centre


@pytest.fixture
def protocol(consortium, tmp_path, esn_server):
    """A draft of the three sites' protocol."""
    path = tmp_path / "protocol.toml"
    assert esn_server("protocol", "new", consortium, *DRAFT, "--out", path)[0] == 0
    return path


# --- the centre ---------------------------------------------------------------------------------------


def test_a_centre_is_made_with_a_signing_key_and_a_protocol_to_read(centre):
    assert (centre / "signing_key").stat().st_mode & 0o777 == 0o600
    assert (centre / "protocol.example.toml").read_text() == example()
    if shutil.which("ssh-keygen"):
        told = subprocess.run(
            ["ssh-keygen", "-l", "-f", centre / "signing_key.pub"], capture_output=True, text=True, check=True
        )
        assert told.stdout.split()[1] == fingerprint(load_centre_key(centre).public_key())


def test_the_protocol_to_read_lacks_nothing_but_its_sites(centre, fails):
    fails(
        12,
        "protocol.example.toml: missing setting 'roster'\n",
        "protocol",
        "validate",
        centre / "protocol.example.toml",
    )


def test_a_renewed_certificate_is_of_the_same_authority_and_for_the_same_names(centre, esn_server):
    before, key = read_certificate(centre / "server.crt"), (centre / "server.key").read_bytes()
    status, out, err = esn_server("renew", centre)
    assert (status, out.strip()) == (0, str(centre / "server.crt"))
    assert "good for centre.example.org, 192.0.2.7; stop the centre and start it again" in err
    after = read_certificate(centre / "server.crt")
    after.verify_directly_issued_by(read_certificate(centre / "ca.crt"))
    assert after.serial_number != before.serial_number
    assert (centre / "server.key").read_bytes() != key
    assert (centre / "server.key").stat().st_mode & 0o777 == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(centre / "server.crt", centre / "server.key")
    if shutil.which("openssl"):
        told = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.crt", "server.crt"],
            cwd=centre,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr


def test_a_certificate_can_be_renewed_for_other_names(centre, esn_server, fails):
    assert esn_server("renew", centre, "--name", "new.example.org")[0] == 0
    assert server_names(centre) == ("new.example.org",)
    fails(10, "neither a DNS name nor an IP address", "renew", centre, "--name", "https://new")
    assert server_names(centre) == ("new.example.org",)
    (centre / "ca.key").unlink()
    fails(10, "ca.key cannot be read", "renew", centre)


def test_a_certificate_that_ends_soon_is_warned_of(
    consortium, sites, enrol, esn_server, monkeypatch, tmp_path
):
    from esn_server.enrolment import certificates

    monkeypatch.setattr(certificates, "_SERVER_DAYS", 20)
    esn_server("renew", consortium)
    ends = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=20)).date()
    warning = f"server.crt ends on {ends}; run 'esn-server renew'"
    assert warning in enrol(sites["north"])[2]
    assert warning in esn_server("run", consortium, tmp_path / "missing.toml", "--out", tmp_path / "out")[2]
    monkeypatch.setattr("esn_server.service.supervisor.serve", lambda *_, **__: None)
    assert warning in esn_server("start", consortium)[2]


# --- enrolment ----------------------------------------------------------------------------------------


def test_an_enrolled_site_gets_a_kit_whose_fingerprint_is_read_out(centre, sites, enrol, superlink):
    status, out, err = enrol(sites["north"])
    kit = read_toml(centre / "kits" / "north.kit.toml", SiteKit)
    assert (status, out.strip()) == (0, str(centre / "kits" / "north.kit.toml"))
    assert kit.fingerprint in err
    assert (kit.address, kit.entry) == ("centre.example.org:9443", sites["north"].entry)
    assert kit.ca_certificate == (centre / "ca.crt").read_text()
    assert superlink == {sites["north"].entry.node_key + "\n"}
    assert enrol(sites["north"])[0] == 0  # once more: nothing changes
    assert enrolled(centre) == (sites["north"].entry,)


def test_a_kit_names_an_address_at_which_the_certificate_is_good(centre, sites, enrol):
    for address in ("192.0.2.7:443", "centre.example.org:8443", "127.0.0.1:9092", "[::1]:9092"):
        assert enrol(sites["north"], "--public-address", address)[0] == 0
        assert read_toml(centre / "kits" / "north.kit.toml", SiteKit).address == address
    status, _, err = enrol(sites["south"], "--public-address", "other.example.org:443")
    assert status == 10
    assert "does not name other.example.org, only centre.example.org, 192.0.2.7" in err
    assert enrol(sites["south"], "--public-address", "centre.example.org")[0] == 10
    assert len(enrolled(centre)) == 1


def test_nobody_is_enrolled_before_the_fingerprint_was_compared(centre, sites, superlink, fails):
    site = sites["north"]
    said = site.entry.fingerprint
    fails(
        10, ("the request of north has the fingerprint " + said, "telephone"), "enrol", centre, site.request()
    )
    words = f"the request of north has the fingerprint {said}, not 0000 0000"
    fails(12, words, "enrol", centre, site.request(), "--fingerprint", "0000 0000")
    assert not superlink
    assert not list(centre.glob("sites/*"))


def test_a_centre_that_is_not_started_enrols_nobody(centre, sites, fails):
    site = sites["north"]
    words = ("is not started; run 'esn-server start", "first")
    fails(15, words, "enrol", centre, site.request(), "--fingerprint", site.entry.fingerprint)
    assert not list(centre.glob("sites/*"))
    assert not list(centre.glob("kits/*"))


def test_keys_are_exchanged_only_when_that_is_said(consortium, sites, enrol, superlink, esn_server):
    site = sites["north"]
    old = site.entry
    site.new_keys()
    status, _, err = enrol(site)
    assert status == 10
    assert "north is enrolled with other keys already" in err
    assert "--replace" in err
    assert enrol(site, "--replace")[0] == 0
    assert site.entry in enrolled(consortium)
    assert superlink == {s.entry.node_key + "\n" for s in sites.values()}
    # The keys before are not taken back, under any name.
    site.entry = old
    status, _, err = enrol(site, "--replace")
    assert status == 12
    assert "the node key of north was rotated on" in err


def test_an_identity_key_is_not_exchanged(consortium, sites, enrol):
    site = sites["north"]
    old = site.entry
    site.identity = Ed25519PrivateKey.generate()
    site.new_keys()
    status, _, err = enrol(site, "--replace")
    assert status == 10
    assert "enrolled with another identity key" in err
    assert old in enrolled(consortium)


def test_a_revoked_site_is_known_no_longer_even_to_a_new_superlink(
    consortium, sites, enrol, superlink, esn_server, fails
):
    status, out, _ = esn_server("revoke", consortium, "west")
    assert (status, "Nothing is changed yet" in out, len(enrolled(consortium))) == (0, True, 3)
    status, out, _ = esn_server("revoke", consortium, "west", "--yes")
    assert (status, out) == (0, "west\n")
    assert [entry.site for entry in enrolled(consortium)] == ["north", "south"]
    assert superlink == {sites[s].entry.node_key + "\n" for s in ("north", "south")}
    # A backup of the SuperLink's database comes back; revoking once more cures it.
    superlink.add(sites["west"].entry.node_key + "\n")
    assert esn_server("revoke", consortium, "west", "--yes")[0] == 0
    assert len(superlink) == 2
    status, _, err = enrol(sites["west"])
    assert status == 12
    assert "the node key of west was revoked on" in err
    # Another site that comes with one of its keys is refused as well.
    east = sites["west"]
    east.name, east.identity = "east", Ed25519PrivateKey.generate()
    mask = east.entry.mask_key
    east.new_keys()
    east.entry = east.entry.model_copy(update={"mask_key": mask})
    status, _, err = enrol(east)
    assert "the mask key of east was revoked on" in err
    fails(10, "site nobody is not enrolled at this centre, and never was", "revoke", consortium, "nobody")


# --- the protocol -------------------------------------------------------------------------------------


def test_a_draft_is_validated_signed_once_and_validated_again(consortium, protocol, esn_server):
    digest = load_protocol(protocol).sha256
    _, out, _ = esn_server("protocol", "validate", protocol)
    assert out.startswith(f"protocol {digest}, unsigned, a draft\n")
    assert "epsilon 8.00 for a training child, 8.00 for a held-out child, at delta 0.001" in out
    assert esn_server("protocol", "sign", consortium, protocol)[:2] == (0, digest + "\n")
    key = load_centre_key(consortium).public_key()
    assert load_signed(protocol, key).protocol.sha256 == digest
    signed = protocol.read_text()
    assert esn_server("protocol", "sign", consortium, protocol)[0] == 0
    assert protocol.read_text() == signed
    _, out, _ = esn_server("protocol", "validate", protocol)
    assert out.startswith(f"protocol {digest}, signed by {fingerprint(key)}\n")
    facts = json.loads(esn_server("protocol", "validate", protocol, "--json")[1])
    assert (facts["protocol_sha256"], facts["signed_by"]) == (digest, fingerprint(key))
    assert (facts["expired"], facts["delta"]) == (False, 0.001)
    assert facts["epsilon_training_child"] == pytest.approx(8.0, abs=0.005)  # as it is printed in words


def test_validation_says_every_fault_at_once(protocol, fails):
    text = protocol.read_text()
    for old, new in (
        ("quorum = 3", "quorum = 9"),
        ("format = 2", "format = 0"),
        ("delta = 0.001", "delta = 1"),
    ):
        assert old in text
        text = text.replace(old, new)
    protocol.write_text(text)
    words = ("'format': input should be 1", "the quorum is 9", "'privacy.delta'")
    fails(12, words, "protocol", "validate", protocol)


def test_a_protocol_altered_since_it_was_signed_is_signed_again_only_on_purpose(
    consortium, protocol, esn_server, fails, tmp_path
):
    esn_server("protocol", "sign", consortium, protocol)
    protocol.write_text(protocol.read_text().replace("epsilon = 8.0", "epsilon = 7.0"))
    fails(12, "was altered since it was signed by SHA256:", "protocol", "validate", protocol)
    fails(12, "delete its table [signature] to sign it", "protocol", "sign", consortium, protocol)
    words = ("run", consortium, protocol, "--out", tmp_path / "out")
    fails(12, "was altered since it was signed by SHA256:", *words)
    protocol.write_text(protocol.read_text().partition("[signature]")[0])
    fails(12, "is not signed; the centre runs 'esn-server protocol sign'", *words)
    assert esn_server("protocol", "sign", consortium, protocol)[0] == 0
    assert not (tmp_path / "out").exists()


def test_another_centres_protocol_is_neither_run_nor_signed(consortium, protocol, sign_as, fails, tmp_path):
    sign_as(protocol, STRANGER)
    words = ("is signed by the key " + fingerprint(STRANGER.public_key()), "not by the centre's, SHA256:")
    fails(12, words, "run", consortium, protocol, "--out", tmp_path / "out")
    fails(12, words, "protocol", "sign", consortium, protocol)


def test_an_expired_protocol_is_neither_run_nor_signed(
    consortium, protocol, sign_as, esn_server, fails, tmp_path
):
    text = protocol.read_text()
    expires = load_protocol(protocol).expires
    protocol.write_text(text.replace(f"expires = {expires}", "expires = 2026-01-31"))
    fails(12, "expired: its last day was 2026-01-31", "protocol", "sign", consortium, protocol)
    assert "expired, last day 2026-01-31" in esn_server("protocol", "validate", protocol)[1]
    sign_as(protocol, load_centre_key(consortium))
    fails(12, "expired: its last day was 2026-01-31", "run", consortium, protocol, "--out", tmp_path / "out")


def test_the_days_of_a_draft_are_counted_from_today(consortium, tmp_path, esn_server):
    path = tmp_path / "short.toml"
    before = datetime.datetime.now(datetime.UTC).date()
    esn_server("protocol", "new", consortium, *DRAFT, "--out", path, "--valid-days", "30")
    after = datetime.datetime.now(datetime.UTC).date()
    days = datetime.timedelta(days=30)
    assert before + days <= load_protocol(path).expires <= after + days


def test_a_protocol_with_a_site_that_is_revoked_or_has_rotated_is_neither_signed_nor_run(
    consortium, protocol, sites, enrol, sign_as, esn_server, fails, tmp_path
):
    sites["north"].new_keys()
    assert enrol(sites["north"], "--replace")[0] == 0
    fails(12, "the node key of north was rotated on", "protocol", "sign", consortium, protocol)
    sign_as(protocol, load_centre_key(consortium))
    fails(12, "the node key of north was rotated on", "run", consortium, protocol, "--out", tmp_path / "out")
    assert esn_server("revoke", consortium, "north", "--yes")[0] == 0
    fails(
        12, "the identity key of north was revoked on", "run", consortium, protocol, "--out", tmp_path / "out"
    )


def test_what_is_kept_of_a_revocation_names_its_keys(consortium, sites, esn_server):
    esn_server("revoke", consortium, "west", "--yes")
    (path,) = (consortium / "revoked").glob("west-*.toml")
    text = path.read_text()
    for key in (sites["west"].entry.node_key, sites["west"].entry.identity_key, sites["west"].entry.mask_key):
        assert key in text
    assert 'reason = "revoked"' in text


def test_a_request_of_a_stranger_in_a_sites_name_is_refused(consortium, sites, tmp_path, fails):
    """The identity key in the request is the site's, and so it cannot be signed by somebody else."""
    north = sites["north"]
    north.new_keys()
    forged = EnrolmentRequest.of(north.entry, north.identity).model_dump()
    forged["signature"] = EnrolmentRequest.of(
        north.entry.model_copy(update={"identity_key": identity_text(STRANGER.public_key())}), STRANGER
    ).signature
    path = tmp_path / "forged.toml"
    path.write_text(tomli_w.dumps(forged))
    fails(10, "is not signed by the identity key in it", "enrol", consortium, path, "--replace")


def test_the_authority_may_sign_certificates_and_the_server_may_not(centre):
    for name, may in (("ca.crt", True), ("server.crt", False)):
        certificate = read_certificate(centre / name)
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is may
