"""Answers: a released sum, facts at roll call, a mask's seed, or a refusal. The gate alone makes them.

A site that lacks a part of the transcript says how much of it it has.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from esn_core.errors import ProtocolError
from esn_core.identity.roster import SiteName
from esn_core.messages.envelope import Header, pack, seal, unpack, unseal, validated
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import QuestionId
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark


class Refusal(BaseModel):
    """A refusal: the class of the error and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str = Field(pattern=r"^[A-Za-z]{1,60}$")


class _AnswerHeader(Header):
    id: QuestionId
    site: SiteName
    facts: SiteFacts | None = None
    seed: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    refusal: Refusal | None = None
    charged: LedgerMark | None = None
    after: TranscriptMark
    noted: int | None = Field(default=None, ge=0, le=2**53)


@dataclass(frozen=True)
class Answer:
    """One answer of one site: a released sum, facts at roll call, a mask's seed, a note, or a refusal.

    Attributes
    ----------
    id : QuestionId
    site : str
    total : (d,) or (d + 1,) int64 or None
        The released sum on the fixed-point grid; with masks, hidden and with a check number.
    facts : SiteFacts or None
    seed : bytes or None
        Of the site's own mask in one attempt.
    refusal : Refusal or None
    charged : LedgerMark or None
        The entry with which the site's ledger paid for the sum, or noted the seed.
    after : TranscriptMark
        Of the sums from which the site computed what it answered with.
    noted : int or None
        Of a site that lacks some of the transcript: how many bytes of it are there.

    """

    id: QuestionId
    site: str
    total: NDArray[np.int64] | None = None
    facts: SiteFacts | None = None
    seed: bytes | None = None
    refusal: Refusal | None = None
    charged: LedgerMark | None = None
    after: TranscriptMark = NOTHING_RELEASED
    noted: int | None = None

    def __post_init__(self) -> None:
        said = [part is not None for part in (self.total, self.facts, self.seed, self.noted, self.refusal)]
        if sum(said) != 1:
            raise ProtocolError("an answer is one of a released sum, facts, a seed, a note or a refusal")
        if (self.charged is None) == (self.total is not None or self.seed is not None):
            raise ProtocolError("a released sum or seed, and nothing else, comes with its ledger entry")

    def to_bytes(self, key: Ed25519PrivateKey) -> bytes:
        """Return the answer as a safetensors file, signed by the site's identity key."""
        header = _AnswerHeader(
            id=self.id,
            site=self.site,
            facts=self.facts,
            seed=None if self.seed is None else self.seed.hex(),
            refusal=self.refusal,
            charged=self.charged,
            after=self.after,
            noted=self.noted,
        )
        return seal(pack({} if self.total is None else {"total": self.total}, header), key, "answer")

    @classmethod
    def from_bytes(cls, body: bytes, key: Ed25519PublicKey) -> Self:
        """Read an answer.

        Parameters
        ----------
        body : bytes
        key : Ed25519PublicKey
            The identity key of the site that was asked, from the protocol's roster.

        Raises
        ------
        ProtocolError
            It is too large, not signed by the site, or malformed.

        """
        arrays, header = unpack(unseal(body, key, "answer"), np.int64)
        parsed = validated(_AnswerHeader, header)
        if set(arrays) - {"total"}:
            raise ProtocolError(f"an answer holds no array but 'total', not {sorted(arrays)}")
        return cls(
            id=parsed.id,
            site=parsed.site,
            total=arrays.get("total"),
            facts=parsed.facts,
            seed=None if parsed.seed is None else bytes.fromhex(parsed.seed),
            refusal=parsed.refusal,
            charged=parsed.charged,
            after=parsed.after,
            noted=parsed.noted,
        )
