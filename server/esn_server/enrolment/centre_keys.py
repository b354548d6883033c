"""Who the centre is: its certificates and its signing key."""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_core.errors import ConfigError
from esn_core.identity.certificates import expiry_warning
from esn_core.identity.signing import create_signing_key, load_signing_key
from esn_core.system.files import write_new
from esn_server.enrolment.certificates import issue_authority, issue_server, names_of

_FILES = ("ca.crt", "ca.key", "server.crt", "server.key", "signing_key", "signing_key.pub")


def create_authority(directory: Path, *, names: Sequence[str]) -> None:
    """Create the centre's certificate authority, its server certificate and its signing key.

    Writes ``ca.crt``, ``ca.key``, ``server.crt`` and ``server.key`` (PEM, elliptic curve P-384), and
    ``signing_key`` with its public half ``signing_key.pub`` (OpenSSH, Ed25519); keys are readable by
    their owner only. ``localhost`` and the loopback addresses are always among the names, so that
    the centre's own programs reach the server too.

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
    authority_key = ec.generate_private_key(ec.SECP384R1())
    authority = issue_authority(authority_key)
    server_key = ec.generate_private_key(ec.SECP384R1())
    server = issue_server(server_key.public_key(), names, authority=authority, authority_key=authority_key)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(directory / "ca.key", _private_bytes(authority_key), mode=0o600)
    write_new(directory / "server.key", _private_bytes(server_key), mode=0o600)
    create_signing_key(directory / "signing_key")
    write_new(directory / "ca.crt", _public_bytes(authority), mode=0o644)
    write_new(directory / "server.crt", _public_bytes(server), mode=0o644)


def renew_server(directory: Path, *, names: Sequence[str]) -> tuple[str, ...]:
    """Replace the server's certificate and key by new ones of the same authority.

    Sites notice nothing: they trust the authority. A SuperLink that runs has to be started again.

    Parameters
    ----------
    directory : Path
    names : sequence of str
        DNS names and IP addresses; without any, those of the present certificate.

    Returns
    -------
    tuple of str
        The names in the new certificate, those of the loopback left out.

    Raises
    ------
    ConfigError
        The authority or the present certificate is missing or damaged, or a name cannot be used.

    """
    authority = read_certificate(directory / "ca.crt")
    try:
        authority_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except OSError as cause:
        raise ConfigError(f"{directory / 'ca.key'} cannot be read: {cause.strerror}") from cause
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ConfigError(f"{directory / 'ca.key'} is no private key in PEM") from cause
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{directory / 'ca.key'} is no elliptic curve key")
    names = tuple(names) or server_names(directory)
    key = ec.generate_private_key(ec.SECP384R1())
    server = issue_server(key.public_key(), names, authority=authority, authority_key=authority_key)
    new_key, new_certificate = directory / "new-server.key", directory / "new-server.crt"
    for left in (new_key, new_certificate):
        left.unlink(missing_ok=True)  # of a renewal that was interrupted
    write_new(new_key, _private_bytes(key), mode=0o600)
    write_new(new_certificate, _public_bytes(server), mode=0o644)
    # Between these two steps key and certificate do not fit, and no server starts: renewing again cures it.
    new_key.replace(directory / "server.key")
    new_certificate.replace(directory / "server.crt")
    return names_of(server)


def server_names(directory: Path) -> tuple[str, ...]:
    """Return the names under which the centre's certificate is good, those of the loopback left out."""
    return names_of(read_certificate(directory / "server.crt"))


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate; `ConfigError` when it is not there or none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as cause:
        raise ConfigError(f"{path} cannot be read: {cause.strerror}; run 'esn-server init' first") from cause
    except ValueError as cause:
        raise ConfigError(f"{path} is no certificate in PEM") from cause


def expiry_warnings(directory: Path) -> tuple[str, ...]:
    """Return a line for each certificate of the centre that ends within 30 days."""
    cures = {
        "server.crt": "run 'esn-server renew'",
        "ca.crt": "make a new centre with 'esn-server init', and enrol every site there",
    }
    found = (expiry_warning(directory / name, cure=cure) for name, cure in cures.items())
    return tuple(warning for warning in found if warning)


def load_centre_key(directory: Path) -> Ed25519PrivateKey:
    """Read the key by which the centre signs; `ConfigError` when it is not there or damaged."""
    return load_signing_key(directory / "signing_key", program="esn-server")


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


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PKCS #8 PEM, which Flower's server needs."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
