"""Ed25519 signatures: keys in files that standard tools read, and bytes that say who made them.

What is signed begins with what it is for, so that a signature under one kind of
thing is none under another. The ledger's entries are signed apart from these:
their hashes, 64 hexadecimal digits, cannot begin like any of them.
"""

import base64
import hashlib
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from esn_core.errors import ConfigError
from esn_core.identity.public_keys import identity_text
from esn_core.system.files import write_new

Purpose = Literal[
    "protocol", "question", "answer", "enrolment", "audit-log", "released-model", "countersignature"
]

SIGNATURE_BYTES = 64


def create_signing_key(path: Path) -> None:
    """Create an Ed25519 key in OpenSSH format.

    Parameters
    ----------
    path : Path
        Of the private key, readable by its owner only; the public key goes beside it, with ``.pub`` appended.

    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    write_new(path, private, mode=0o600)
    public = f"{identity_text(key.public_key())}\n"
    write_new(path.with_name(path.name + ".pub"), public.encode(), mode=0o644)


def load_signing_key(path: Path, *, program: str) -> Ed25519PrivateKey:
    """Read a private key; `ConfigError` when it is not there or no such key.

    Parameters
    ----------
    path : Path
    program : str
        Whose 'init' makes the key.

    """
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read; run '{program} init' first") from cause
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ConfigError(f"{path}: is no private key in OpenSSH format; it was damaged") from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: is no Ed25519 key")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return a key's fingerprint as 'ssh-keygen -l' prints it."""
    wire = base64.b64decode(identity_text(key).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def sign(content: bytes, key: Ed25519PrivateKey, purpose: Purpose) -> bytes:
    """Return the signature of 64 bytes; equal contents have equal signatures (RFC 8032)."""
    return key.sign(_domain(purpose) + content)


def is_signed(content: bytes, signature: bytes, key: Ed25519PublicKey, purpose: Purpose) -> bool:
    """Return whether the holder of a key signed this content for this purpose."""
    try:
        key.verify(signature, _domain(purpose) + content)
    except InvalidSignature:
        return False
    return True


def _domain(purpose: Purpose) -> bytes:
    return f"esn-federated {purpose} 1\0".encode()
