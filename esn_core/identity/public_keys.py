"""A site's public keys, as the one-line texts that stand in a roster."""

import base64
import binascii
from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from esn_core.errors import ProtocolError

_MASK_KEY = "x25519 "


def spoken(digest: bytes) -> str:
    """Return the first 16 bytes of a hash in groups of four digits, as two people compare it by telephone."""
    digits = digest[:16].hex()
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def identity_text(key: Ed25519PublicKey) -> str:
    """Return an identity key in OpenSSH form, without a comment."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def mask_text(key: X25519PublicKey) -> str:
    """Return a mask key as 'x25519' and 32 bytes in base64: OpenSSH has no form for it."""
    return _MASK_KEY + base64.b64encode(key.public_bytes_raw()).decode()


def identity_key(text: str) -> Ed25519PublicKey:
    """Read an identity key.

    Raises
    ------
    ProtocolError
        It is no Ed25519 key in OpenSSH form.

    """
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ProtocolError(f"an identity key is Ed25519 in OpenSSH form, not {text[:40]!r}") from cause
    if not isinstance(key, Ed25519PublicKey):
        raise ProtocolError(f"an identity key is Ed25519 in OpenSSH form, not {text[:40]!r}")
    return key


def mask_key(text: str) -> X25519PublicKey:
    """Read a mask key.

    Raises
    ------
    ProtocolError
        It is not 'x25519' and 32 bytes in base64.

    """
    try:
        return X25519PublicKey.from_public_bytes(
            base64.b64decode(text.removeprefix(_MASK_KEY).encode(), validate=True)
        )
    except (ValueError, binascii.Error) as cause:
        raise ProtocolError(f"a mask key is 'x25519' and 32 bytes in base64, not {text[:40]!r}") from cause


def readable(text: str, read: Callable[[str], object]) -> str:
    """Return a key's text as it came, if `read` can read it; pydantic is told otherwise by `ValueError`."""
    try:
        read(text)
    except ProtocolError as fault:
        raise ValueError(str(fault)) from fault
    return text
