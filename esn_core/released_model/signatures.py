"""Who stands behind a released model: the sites that countersigned it, and the centre that released it."""

import base64
import json
from typing import Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError

from esn_core.errors import ProtocolError
from esn_core.identity.roster import SiteName
from esn_core.identity.signing import Purpose, is_signed, sign
from esn_core.released_model.content import Digest, Record

_Signature = Field(pattern=r"^[A-Za-z0-9+/]{86}==$")


class AuditSaid(Record):
    """That a site attacked the protocol on its own children and found no fault; no figure of them."""

    at: str = Field(max_length=40)
    software: str = Field(max_length=40)
    repeats: int = Field(ge=1)


class _Signed(Record):
    """A record with a signature of everything else in it."""

    format: Literal[1] = 1
    model_sha256: Digest
    value: str = _Signature

    @property
    def _meant(self) -> bytes:
        content = self.model_dump(mode="json", exclude={"value"})
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    def signed(self, key: Ed25519PrivateKey, purpose: Purpose) -> Self:
        """Return the record with the signature of a key."""
        value = base64.b64encode(sign(self._meant, key, purpose)).decode()
        return self.model_copy(update={"value": value})

    def is_of(self, key: Ed25519PublicKey, purpose: Purpose) -> bool:
        """Return whether the holder of a key signed this record."""
        return is_signed(self._meant, base64.b64decode(self.value), key, purpose)

    @property
    def text(self) -> bytes:
        """The record as a file."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def read(cls, content: bytes, *, name: str) -> Self:
        """Read a file; `ProtocolError` when it is no such record."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as cause:
            raise ProtocolError(f"{name}: is no signature of a model") from cause


class Countersignature(_Signed):
    """A site's consent to the release of one model, to the byte."""

    site: SiteName
    audit: AuditSaid

    @classmethod
    def of(cls, model_sha256: str, *, site: str, audit: AuditSaid, key: Ed25519PrivateKey) -> Self:
        """Sign a model with a site's identity key."""
        unsigned = cls(model_sha256=model_sha256, site=site, audit=audit, value=_UNSIGNED)
        return unsigned.signed(key, "countersignature")


class CentreSignature(_Signed):
    """The centre's: what it proposes to the sites, or releases with their countersignatures."""

    stage: Literal["proposed", "released"]
    countersigned: dict[SiteName, Digest]
    """Hash of each site's countersignature."""

    @classmethod
    def of(cls, model_sha256: str, *, countersigned: dict[str, str], key: Ed25519PrivateKey) -> Self:
        """Sign a model with the centre's key; without countersignatures it is a proposal."""
        unsigned = cls(
            model_sha256=model_sha256,
            stage="released" if countersigned else "proposed",
            countersigned=countersigned,
            value=_UNSIGNED,
        )
        return unsigned.signed(key, "released-model")


_UNSIGNED = "A" * 86 + "=="
