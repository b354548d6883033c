"""A site's keys: for the link, for its signature, and for its masks."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_core.errors import ConfigError
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.identity.roster import RosterEntry
from esn_core.identity.signing import load_signing_key
from esn_core.system.files import write_new


def create_node_key(path: Path) -> None:
    """Create the key with which this site's SuperNode signs its calls to the centre.

    Writes an elliptic curve P-384 private key to `path` (OpenSSH format, readable by its owner only)
    and the public key, which is handed to the centre, to `path` with ``.pub`` appended.

    Parameters
    ----------
    path : Path
        Its directory is created if it does not exist, readable by its owner only.

    Raises
    ------
    ConfigError
        One of the two files is there already; nothing is overwritten.

    """
    public_path = public_half(path)
    for present in (path, public_path):
        if present.exists():
            raise ConfigError(f"{present} already exists; a node key is not replaced: choose another path")
    key = ec.generate_private_key(ec.SECP384R1())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public_bytes = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write_new(path, private_bytes, mode=0o600)
    write_new(public_path, public_bytes + b"\n", mode=0o644)


def create_mask_key(path: Path) -> None:
    """Create the X25519 key from which this site's masks are made, in PEM (PKCS 8), for its owner only."""
    key = X25519PrivateKey.generate()
    write_new(
        path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        mode=0o600,
    )


def load_identity_key(path: Path) -> Ed25519PrivateKey:
    """Read the key with which this site signs; `ConfigError` when it is not there or no such key."""
    return load_signing_key(path, program="esn-client")


def load_mask_key(path: Path) -> X25519PrivateKey:
    """Read the key of this site's masks; `ConfigError` when it is not there or no such key."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ConfigError(f"{path}: is no private key in PEM; it was damaged") from cause
    if not isinstance(key, X25519PrivateKey):
        raise ConfigError(f"{path}: is no X25519 key")
    return key


def roster_entry(site: str, *, node_key: Path, identity_key: Path, mask_key: Path) -> RosterEntry:
    """Return what a roster says of this site: its name and its public keys.

    Parameters
    ----------
    site : str
    node_key, identity_key, mask_key : Path
        The private keys; the node key's public half stands beside it.

    """
    public = _read(public_half(node_key)).decode()
    return RosterEntry(
        site=site,
        node_key=" ".join(public.split()[:2]),
        identity_key=identity_text(load_identity_key(identity_key).public_key()),
        mask_key=mask_text(load_mask_key(mask_key).public_key()),
    )


def public_half(path: Path) -> Path:
    """Return the file of the public key that belongs to a private one."""
    return path.with_name(path.name + ".pub")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read; run 'esn-client init' first") from cause
