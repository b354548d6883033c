"""The centre's certificates: the authority that sites trust, and the server's, which it issues."""

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from esn_core.errors import ConfigError

_AUTHORITY_DAYS = 3650
# Apple's and some hospitals' TLS stacks refuse server certificates that live longer than this.
_SERVER_DAYS = 825
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def issue_authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return the certificate of a new authority, signed by itself."""
    name = _distinguished_name("esn-federated certificate authority")
    return (
        _builder(name, name, key.public_key(), days=_AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def issue_server(
    key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    *,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """Return a server's certificate for `names`, and for the loopback names in any case.

    Raises
    ------
    ConfigError
        A name cannot stand in a certificate.

    """
    alternative_names = x509.SubjectAlternativeName(
        [_alternative_name(name) for name in dict.fromkeys([*names, *_LOOPBACK])]
    )
    return (
        _builder(_distinguished_name("esn-federated centre"), authority.subject, key, days=_SERVER_DAYS)
        .add_extension(alternative_names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA384())
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names that a server's certificate was issued for, those of the loopback left out."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(name for name in (str(entry.value) for entry in found) if name not in _LOOPBACK)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    """Return what an authority's and a server's certificate have in common."""
    now = datetime.datetime.now(datetime.UTC)
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
