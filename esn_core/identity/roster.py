"""The roster of a study: its sites, and the public keys by which they are known."""

import hashlib
from typing import Annotated

from pydantic import Field, field_validator

from esn_core.identity.public_keys import identity_key, mask_key, readable, spoken
from esn_core.system.toml_file import Table

SiteName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class RosterEntry(Table):
    """One site of the study."""

    site: SiteName
    node_key: str = Field(pattern=r"^ecdsa-sha2-nistp(256|384|521) [A-Za-z0-9+/=]{1,300}$")
    """Public key of the site's SuperNode, in OpenSSH form without a comment."""
    identity_key: str = Field(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]{1,100}$")
    """Public key by which the site signs its ledger, in OpenSSH form without a comment."""
    mask_key: str = Field(pattern=r"^x25519 [A-Za-z0-9+/=]{1,100}$")
    """Public key from which the masks of the secure sum are made."""

    @field_validator("identity_key")
    @classmethod
    def _is_identity_key(cls, text: str) -> str:
        return readable(text, identity_key)

    @field_validator("mask_key")
    @classmethod
    def _is_mask_key(cls, text: str) -> str:
        return readable(text, mask_key)

    @property
    def fingerprint(self) -> str:
        """What two people compare by telephone: a hash of the name and all keys, in groups of four."""
        said = "\n".join((self.site, self.node_key, self.identity_key, self.mask_key))
        return spoken(hashlib.sha256(said.encode()).digest())
