"""Approved protocols: what the gate answers questions of, and nothing else."""

from dataclasses import InitVar, dataclass

from esn_core.errors import ProtocolError
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import SignedProtocol

_CHECKED = object()


@dataclass(frozen=True)
class ApprovedProtocol:
    """A protocol that was signed, and that somebody approved under its hash; `approved_as` alone makes one.

    Attributes
    ----------
    protocol : Protocol

    """

    protocol: Protocol
    checked: InitVar[object] = None

    def __post_init__(self, checked: object) -> None:
        """Refuse a protocol that nobody compared with an approval."""
        if checked is not _CHECKED:
            raise TypeError("an approved protocol is made by approved_as, which compares the hash")


def approved_as(digest: str, signed: SignedProtocol) -> ApprovedProtocol:
    """Return a signed protocol as the one that was approved.

    Parameters
    ----------
    digest : str
        The hash under which it was approved.
    signed : SignedProtocol

    Raises
    ------
    ProtocolError
        It has another hash: it was changed since.

    """
    if signed.protocol.sha256 != digest:
        raise ProtocolError("was changed after it was approved; approve it again")
    return ApprovedProtocol(signed.protocol, _CHECKED)
