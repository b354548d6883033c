"""A signature covers all that a protocol says, and nothing else; what is wrong with one is named."""

import dataclasses
import datetime
import random
import shutil
import subprocess

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.gate.approved import ApprovedProtocol, approved_as
from esn_core.errors import ConfigError, ProtocolError
from esn_core.identity.public_keys import identity_text
from esn_core.identity.signing import create_signing_key, fingerprint, is_signed, load_signing_key, sign
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.signature import SignedProtocol, load_signed, require_current, signed_with, signer

UTC = datetime.UTC
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


@pytest.fixture
def path(tmp_path, protocol_content, centre_key, sign_as):
    """A signed protocol's file."""
    path = tmp_path / "protocol.toml"
    path.write_text(tomli_w.dumps(protocol_content), encoding="utf-8")
    return sign_as(path, centre_key)


def test_a_signed_protocol_is_the_draft_with_the_same_hash(path, protocol_content, centre_key):
    signed = load_signed(path, centre_key.public_key()).protocol
    draft = Protocol.model_validate(protocol_content)
    assert (draft.signature, signed.sha256) == (None, draft.sha256)
    assert signed == load_protocol(path)


def test_comments_and_order_do_not_change_what_was_signed(path, protocol_content, centre_key):
    signature = load_protocol(path).signature.model_dump()
    turned = {"signature": signature, **dict(reversed(protocol_content.items()))}
    path.write_text("# a comment\n" + tomli_w.dumps(turned), encoding="utf-8")
    load_signed(path, centre_key.public_key())


def test_a_draft_is_not_signed(path, protocol_content, centre_key):
    path.write_text(tomli_w.dumps(protocol_content), encoding="utf-8")
    assert signer(load_protocol(path)) is None
    with pytest.raises(ProtocolError, match=r"is not signed; the centre runs 'esn-server protocol sign'"):
        load_signed(path, centre_key.public_key())


def test_a_protocol_signed_by_another_key_is_refused_with_both_fingerprints(path, sign_as, centre_key):
    sign_as(path, OTHER)
    with pytest.raises(ProtocolError) as refusal:
        load_signed(path, centre_key.public_key())
    for key in (OTHER, centre_key):
        assert fingerprint(key.public_key()) in str(refusal.value)


def test_a_protocol_with_any_byte_changed_is_refused_or_says_the_same(path, centre_key):
    signed = load_signed(path, centre_key.public_key()).protocol
    whole = path.read_bytes()
    rng = random.Random(20261125)
    refused = 0
    for at in rng.sample(range(len(whole)), 300):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ rng.randrange(1, 256)]) + whole[at + 1 :])
        try:
            assert load_signed(path, centre_key.public_key()).protocol.sha256 == signed.sha256
        except ProtocolError:
            refused += 1
    # What says the same: an empty line that became spaces, and the like.
    assert refused > 280


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epsilon = 8.0", "epsilon = 8.1"),
        ('study = "test"', 'study = "tesu"'),
        ("expires = 2099-12-31", "expires = 2099-12-30"),
        ("rounds = 3", "rounds = 4"),
    ],
)
def test_a_protocol_altered_since_it_was_signed_is_refused(path, old, new, centre_key):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ProtocolError, match="was altered since it was signed by SHA256:"):
        load_signed(path, centre_key.public_key())


def test_a_signature_from_another_study_is_refused(path, protocol_content, centre_key):
    other = {**protocol_content, "study": "other"}
    signature = load_protocol(path).signature.model_dump()
    path.write_text(tomli_w.dumps({**other, "signature": signature}), encoding="utf-8")
    with pytest.raises(ProtocolError, match="or the signature is another protocol's"):
        load_signed(path, centre_key.public_key())


def test_a_signature_for_another_purpose_is_none(path, protocol_content, centre_key):
    protocol = Protocol.model_validate(protocol_content)
    for made in (sign(protocol.canonical, centre_key, "question"), centre_key.sign(protocol.canonical)):
        assert not is_signed(protocol.canonical, made, centre_key.public_key(), "protocol")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "ssh-ed25519 AAAA"}, "'signature.key': an identity key is Ed25519"),
        ({"value": "AAAA"}, "'signature.value': string should match"),
        ({"by": "me"}, "unknown setting 'signature.by'"),
    ],
)
def test_what_is_no_signature_is_refused_with_its_place(path, protocol_content, changes, words):
    signature = {**load_protocol(path).signature.model_dump(), **changes}
    path.write_text(tomli_w.dumps({**protocol_content, "signature": signature}), encoding="utf-8")
    with pytest.raises(ProtocolError, match=words):
        load_protocol(path)


def test_a_protocol_is_good_up_to_the_end_of_its_last_day(protocol_content):
    day = datetime.date(2027, 3, 31)
    protocol = Protocol.model_validate({**protocol_content, "expires": day})
    require_current(protocol, day)
    with pytest.raises(ProtocolError, match=r"expired: its last day was 2027-03-31, today is 2027-04-01"):
        require_current(protocol, day + datetime.timedelta(days=1))


@pytest.mark.parametrize(
    "expires", ["2027-03-31", 20270331, "soon", datetime.datetime(2027, 3, 31, 12, tzinfo=UTC)]
)
def test_an_expiry_is_a_date_and_nothing_like_one(path, protocol_content, expires):
    path.write_text(tomli_w.dumps({**protocol_content, "expires": expires}), encoding="utf-8")
    with pytest.raises(ProtocolError, match="'expires': input should be a valid date"):
        load_protocol(path)


# --- keys ---------------------------------------------------------------------------------------------


def test_a_signing_key_is_for_its_owner_and_standard_tools_read_it(tmp_path):
    path = tmp_path / "signing_key"
    create_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    key = load_signing_key(path, program="esn-server")
    public = path.with_name("signing_key.pub")
    assert public.read_text() == identity_text(key.public_key()) + "\n"
    if shutil.which("ssh-keygen"):
        told = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True, check=True)
        assert told.stdout.split()[1] == fingerprint(key.public_key())


def test_a_fingerprint_is_the_one_that_ssh_keygen_prints():
    # ssh-keygen -l -f key.pub (OpenSSH 9.2p1, 2026-11-25) for the private key of 32 bytes 'o'.
    assert fingerprint(OTHER.public_key()) == "SHA256:TG6frS9Ve5HYpknUxOXorQ2Ebcc2E+f9JtIcF4N/Ogc"


def test_what_is_no_signing_key_is_refused_by_what_was_found(tmp_path):
    path = tmp_path / "signing_key"
    with pytest.raises(ConfigError, match="cannot be read; run 'esn-server init' first"):
        load_signing_key(path, program="esn-server")
    path.write_text("no key")
    with pytest.raises(ConfigError, match="is no private key in OpenSSH format; it was damaged"):
        load_signing_key(path, program="esn-server")


def test_nothing_but_a_check_makes_a_signed_or_an_approved_protocol(protocol_content, centre_key):
    protocol = Protocol.model_validate(protocol_content)
    signed = signed_with(centre_key, protocol)
    assert signer(signed.protocol) is not None
    with pytest.raises(TypeError, match="load_signed or signed_with, which check it"):
        SignedProtocol(protocol)
    with pytest.raises(TypeError, match="load_signed or signed_with"):
        dataclasses.replace(signed, protocol=protocol)
    with pytest.raises(TypeError, match="approved_as, which compares the hash"):
        ApprovedProtocol(protocol)
    assert approved_as(protocol.sha256, signed).protocol == signed.protocol
    with pytest.raises(ProtocolError, match="was changed after it was approved"):
        approved_as("0" * 64, signed)
