"""Enrolment: the request that a site sends, and the kit that the centre sends back.

There is no secret in either. Each is compared by telephone, by one fingerprint,
before it is used: from then on everything else is proved by the keys in them.
"""

import base64
import hashlib
import json
from typing import Literal, Self

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from esn_core.errors import ProtocolError
from esn_core.identity.public_keys import identity_key, spoken
from esn_core.identity.roster import RosterEntry
from esn_core.identity.signing import is_signed, sign


class EnrolmentRequest(BaseModel):
    """A site's name and public keys, signed by the site itself.

    The signature shows that whoever sends the request holds the identity key:
    nobody else can ask for other keys in the site's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: str = Field(pattern=r"^[A-Za-z0-9+/]{86}==$")
    entry: RosterEntry

    @model_validator(mode="after")
    def _signed_by_the_site(self) -> Self:
        key, value = identity_key(self.entry.identity_key), base64.b64decode(self.signature)
        if not is_signed(_canonical(self.entry), value, key, "enrolment"):
            raise ValueError("the request is not signed by the identity key in it")
        return self

    @classmethod
    def of(cls, entry: RosterEntry, key: Ed25519PrivateKey) -> Self:
        """Sign a request with the site's identity key."""
        value = sign(_canonical(entry), key, "enrolment")
        return cls(signature=base64.b64encode(value).decode(), entry=entry)

    @property
    def text(self) -> str:
        """The request as a commented TOML file."""
        words = (
            "# Enrolment request of one site; there is no secret in it. Before the centre enrols the site,\n"
            f"# two people compare this fingerprint by telephone: {self.entry.fingerprint}\n"
        )
        return words + tomli_w.dumps(self.model_dump())


class SiteKit(BaseModel):
    """All that an enrolled site needs to know of the centre."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    address: str = Field(pattern=r"^[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}$")
    """``host:port`` at which sites reach the centre."""
    signing_key: str
    """Ed25519 key by which the centre signs protocols and questions, in OpenSSH form."""
    ca_certificate: str
    """The authority that the centre's link proves itself against, PEM."""
    entry: RosterEntry
    """The site, as it is enrolled."""

    @field_validator("signing_key")
    @classmethod
    def _is_signing_key(cls, text: str) -> str:
        try:
            identity_key(text)
        except ProtocolError as fault:
            raise ValueError("a signing key is Ed25519 in OpenSSH form") from fault
        return text

    @field_validator("ca_certificate")
    @classmethod
    def _is_certificate(cls, text: str) -> str:
        try:
            x509.load_pem_x509_certificate(text.encode())
        except ValueError as fault:
            raise ValueError("it is no certificate in PEM") from fault
        return text

    @property
    def fingerprint(self) -> str:
        """What two people compare by telephone: a hash of all that the kit says."""
        return spoken(hashlib.sha256(_canonical(self)).digest())

    @property
    def text(self) -> str:
        """The kit as a commented TOML file."""
        words = (
            f"# Kit of the site {self.entry.site}; no secret is in it. 'esn-client kit' takes it in, once\n"
            f"# two people have compared this fingerprint by telephone: {self.fingerprint}\n"
        )
        return words + tomli_w.dumps(self.model_dump(), multiline_strings=True)


def _canonical(content: BaseModel) -> bytes:
    return json.dumps(content.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
