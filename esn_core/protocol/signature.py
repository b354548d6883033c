"""Signed protocols: what the centre signed is what the sites approve, to the byte of its meaning.

The signature is a table `[signature]` in the protocol's own file. It is taken over
the canonical form, of which the protocol's hash is taken too and to which the
signature does not belong.
"""

import base64
import datetime
from dataclasses import InitVar, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from esn_core.errors import ProtocolError
from esn_core.identity.public_keys import identity_key, identity_text
from esn_core.identity.signing import fingerprint, is_signed, sign
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.rules import Signature

_CHECKED = object()


@dataclass(frozen=True)
class SignedProtocol:
    """A protocol whose signature was checked; `load_signed` and `signed_with` alone make one.

    Attributes
    ----------
    protocol : Protocol

    """

    protocol: Protocol
    checked: InitVar[object] = None

    def __post_init__(self, checked: object) -> None:
        """Refuse a protocol whose signature nobody looked at."""
        if checked is not _CHECKED:
            raise TypeError("a signed protocol is made by load_signed or signed_with, which check it")


def load_signed(path: Path, key: Ed25519PublicKey) -> SignedProtocol:
    """Read a protocol that the holder of a key signed; drafts are read by `load_protocol`.

    Parameters
    ----------
    path : Path
    key : Ed25519PublicKey
        The centre's.

    Raises
    ------
    ProtocolError
        The file is no protocol, is not signed, is signed by another key, or was altered since.

    """
    protocol = load_protocol(path)
    try:
        found = signer(protocol)
    except ProtocolError as fault:
        raise ProtocolError(f"{path}: {fault}") from fault
    if found is None:
        raise ProtocolError(f"{path}: is not signed; the centre runs 'esn-server protocol sign'")
    if identity_text(found) != identity_text(key):
        raise ProtocolError(
            f"{path}: is signed by the key {fingerprint(found)}, not by the centre's, {fingerprint(key)}"
        )
    return SignedProtocol(protocol, _CHECKED)


def signer(protocol: Protocol) -> Ed25519PublicKey | None:
    """Return the key that signed a protocol, or None for a draft.

    Raises
    ------
    ProtocolError
        The signature belongs to another text: the protocol was altered since.

    """
    if protocol.signature is None:
        return None
    key = identity_key(protocol.signature.key)
    value = base64.b64decode(protocol.signature.value)
    if not is_signed(protocol.canonical, value, key, "protocol"):
        raise ProtocolError(
            f"was altered since it was signed by {fingerprint(key)}, or the signature is another protocol's"
        )
    return key


def signature_of(protocol: Protocol, key: Ed25519PrivateKey) -> Signature:
    """Sign a protocol."""
    value = sign(protocol.canonical, key, "protocol")
    return Signature(key=identity_text(key.public_key()), value=base64.b64encode(value).decode())


def signed_with(key: Ed25519PrivateKey, protocol: Protocol) -> SignedProtocol:
    """Return a protocol with the signature of a key that is at hand."""
    return SignedProtocol(protocol.model_copy(update={"signature": signature_of(protocol, key)}), _CHECKED)


def require_current(protocol: Protocol, today: datetime.date) -> None:
    """Do nothing up to the end of a protocol's last day, in UTC.

    Raises
    ------
    ProtocolError
        It has expired.

    """
    if today > protocol.expires:
        raise ProtocolError(
            f"protocol {protocol.sha256[:16]} expired: its last day was {protocol.expires}, today is {today}"
        )


def today_utc() -> datetime.date:
    """Return the day by which both sides judge a protocol's validity."""
    return datetime.datetime.now(datetime.UTC).date()
