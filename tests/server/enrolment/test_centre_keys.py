"""Certificates and keys are what TLS, Flower and standard tools expect, and are never replaced."""

import ipaddress
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from esn_client.site.keys import create_node_key
from esn_core.errors import ConfigError
from esn_server.enrolment.centre_keys import create_authority, read_node_key


def test_the_server_certificate_is_issued_by_the_authority_for_the_names(tmp_path):
    create_authority(tmp_path, names=["centre.example.org", "192.0.2.7"])
    authority, server = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes()) for name in ("ca.crt", "server.crt")
    )
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["centre.example.org", "localhost"]
    assert ipaddress.ip_address("192.0.2.7") in names.get_values_for_type(x509.IPAddress)
    assert ipaddress.ip_address("127.0.0.1") in names.get_values_for_type(x509.IPAddress)


def test_openssl_accepts_the_chain_as_a_tls_server(tmp_path):
    create_authority(tmp_path, names=["centre.example.org"])
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    assert context.cert_store_stats()["x509_ca"] == 1
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "centre.example.org",
    ]
    result = subprocess.run(
        [*command, "-CAfile", tmp_path / "ca.crt", tmp_path / "server.crt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_only_the_owner_reads_a_private_key(tmp_path):
    create_authority(tmp_path / "centre", names=[])
    create_node_key(tmp_path / "site" / "node_key")
    keys = [
        tmp_path / "centre" / "ca.key",
        tmp_path / "centre" / "server.key",
        tmp_path / "site" / "node_key",
    ]
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o600] * 3


@pytest.mark.parametrize("present", ["ca.crt", "ca.key", "server.crt", "server.key"])
def test_an_authority_is_never_replaced(tmp_path, present):
    (tmp_path / present).write_text("precious")
    with pytest.raises(ConfigError, match=f"already holds {present}"):
        create_authority(tmp_path, names=["localhost"])
    assert {path.name for path in tmp_path.iterdir()} == {present}


@pytest.mark.parametrize("name", ["", "https://centre", "centre:9092", "a b", "x" * 70])
def test_what_is_no_name_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(ConfigError, match="neither a DNS name nor an IP address"):
        create_authority(tmp_path / "centre", names=[name])
    assert not (tmp_path / "centre").exists()


def test_a_node_key_is_an_openssh_p384_key_that_the_centre_reads(tmp_path):
    create_node_key(tmp_path / "node_key")
    key = load_ssh_private_key((tmp_path / "node_key").read_bytes(), None)
    assert isinstance(key.curve, ec.SECP384R1)
    assert read_node_key(tmp_path / "node_key.pub") == key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("present", ["node_key", "node_key.pub"])
def test_a_node_key_is_never_replaced(tmp_path, present):
    (tmp_path / present).write_text("precious")
    with pytest.raises(ConfigError, match=f"{present} already exists"):
        create_node_key(tmp_path / "node_key")
    assert {path.name for path in tmp_path.iterdir()} == {present}


def test_a_file_that_holds_no_site_key_is_refused(tmp_path):
    path = tmp_path / "key.pub"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_node_key(path)
    path.write_text("no key")
    with pytest.raises(ConfigError, match="is no public key in OpenSSH format"):
        read_node_key(path)
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    path.write_bytes(other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    with pytest.raises(ConfigError, match="must hold an elliptic curve key"):
        read_node_key(path)
