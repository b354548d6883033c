"""Who is who: the centre's certificates, and the keys of sites."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from esn_core.errors import ConfigError
from esn_core.files import write_new

_AUTHORITY_DAYS = 3650
# Apple's and some hospitals' TLS stacks refuse server certificates that live longer than this.
_SERVER_DAYS = 825
_FILES = ("ca.crt", "ca.key", "server.crt", "server.key")


def create_authority(directory: Path, *, names: Sequence[str]) -> None:
    """Create the centre's certificate authority and its server certificate.

    Writes ``ca.crt``, ``ca.key``, ``server.crt`` and ``server.key`` (PEM, elliptic curve P-384);
    keys are readable by their owner only. ``localhost`` and the loopback addresses are always
    among the names, so that the centre's own programs reach the server too.

    Parameters
    ----------
    directory : Path
        Created if it does not exist, readable by its owner only.
    names : sequence of str
        DNS names and IP addresses under which sites reach the centre.

    Raises
    ------
    ConfigError
        A file is there already (nothing is overwritten), or a name cannot stand in a certificate.

    """
    present = [name for name in _FILES if (directory / name).exists()]
    if present:
        raise ConfigError(
            f"{directory} already holds {', '.join(present)}; an authority that sites trust is not "
            "replaced: choose an empty directory"
        )
    alternative_names = x509.SubjectAlternativeName(
        [_alternative_name(name) for name in dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"])]
    )
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = datetime.datetime.now(datetime.UTC)

    authority_key = ec.generate_private_key(ec.SECP384R1())
    authority_name = _distinguished_name("esn-federated certificate authority")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now, days=_AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    server_key = ec.generate_private_key(ec.SECP384R1())
    server = (
        _builder(
            _distinguished_name("esn-federated centre"),
            authority_name,
            server_key.public_key(),
            now,
            days=_SERVER_DAYS,
        )
        .add_extension(alternative_names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA384())
    )
    write_new(directory / "ca.key", _private_bytes(authority_key), mode=0o600)
    write_new(directory / "server.key", _private_bytes(server_key), mode=0o600)
    write_new(directory / "ca.crt", authority.public_bytes(serialization.Encoding.PEM), mode=0o644)
    write_new(directory / "server.crt", server.public_bytes(serialization.Encoding.PEM), mode=0o644)


def read_node_key(path: Path) -> bytes:
    """Read the public key by which a site is recognised.

    Parameters
    ----------
    path : Path
        An elliptic curve key in OpenSSH format.

    Returns
    -------
    bytes
        The key in PEM format, as Flower stores it.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds something else.

    """
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is no public key in OpenSSH format") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} must hold an elliptic curve key (P-384), not {type(key).__name__}")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    *,
    days: int,
) -> x509.CertificateBuilder:
    """Return what an authority's and a server's certificate have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # A site whose clock is a little behind must not find the certificate "not yet valid".
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _alternative_name(name: str) -> x509.GeneralName:
    """Return an IP address as such, anything else as a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConfigError(f"{name!r} is neither a DNS name nor an IP address") from error
    if not encoded or any(character in encoded for character in " /:@"):
        raise ConfigError(f"{name!r} is neither a DNS name nor an IP address; leave out scheme and port")
    return x509.DNSName(encoded)


def _distinguished_name(common_name: str) -> x509.Name:
    """Return a name with nothing but a common name in it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return the key usage of an authority, or of a server."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PKCS #8 PEM, which Flower's server needs."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
