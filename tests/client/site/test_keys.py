"""Keys of a site: one that is absent, damaged or of another kind is named, with its file."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_client.site.keys import load_identity_key, load_mask_key
from esn_core.errors import ConfigError
from esn_server.enrolment.centre_keys import create_authority, renew_server


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("load", "content", "words"),
    [
        (load_mask_key, None, "cannot be read; run 'esn-client init' first"),
        (load_mask_key, b"-----BEGIN", "is no private key in PEM"),
        (load_mask_key, pem(Ed25519PrivateKey.generate()), "is no X25519 key"),
        (load_identity_key, None, "esn-client"),
        (load_identity_key, b"", "is no"),
        (load_identity_key, pem(X25519PrivateKey.generate()), "is no"),
    ],
)
def test_a_key_that_is_none_is_named(tmp_path, load, content, words):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as said:
        load(path)
    assert str(path) in str(said.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "ca.key cannot be read"),
        (b"nothing", "ca.key is no private key in PEM"),
        (pem(Ed25519PrivateKey.generate()), "ca.key is no elliptic curve key"),
    ],
)
def test_a_certificate_is_not_renewed_by_a_key_that_is_none(tmp_path, content, words):
    directory = tmp_path / "centre"
    create_authority(directory, names=["centre.example.org"])
    before = (directory / "server.crt").read_bytes(), (directory / "server.key").read_bytes()
    (directory / "ca.key").unlink()
    if content is not None:
        (directory / "ca.key").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        renew_server(directory, names=())
    assert ((directory / "server.crt").read_bytes(), (directory / "server.key").read_bytes()) == before
