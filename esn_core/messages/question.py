"""Questions: what the centre asks of a site, as bytes.

A question is a safetensors file, that is a small JSON header and bytes of the transcript, and nothing that
could run.

* It has an id; the same id is always the same question.
* It carries no number that the answer depends on. A site computes these from the sums that were released
  before (`esn_core.transcript`); the question names their transcript by its mark, and brings what the site
  lacks.
* The centre's signature, 64 bytes, follows the file, and is looked at before anything else is.

The id and the mark make the content that a site pays for once; the number of the attempt is no part of it:

>>> from dataclasses import replace
>>> asked = QuestionId(protocol_sha256="ab" * 32, run="run-1", phase="evaluation", round=0, attempt=0)
>>> question = Question(asked, relayed=b"what was released")
>>> again = replace(question, id=asked.model_copy(update={"attempt": 1}))
>>> again.content_sha256 == question.content_sha256
True
>>> key = Ed25519PrivateKey.generate()
>>> Question.from_bytes(question.to_bytes(key), key.public_key()).relayed
b'what was released'
>>> str(question.id)
'abababababababab/run-1/evaluation/0'
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from esn_core.errors import ProtocolError
from esn_core.identity.roster import SiteName
from esn_core.messages.envelope import HEADER, Header, pack, seal, unpack, unseal, validated
from esn_core.messages.transcript_mark import NOTHING_RELEASED, TranscriptMark
from esn_core.protocol.phases import PhaseName


class QuestionId(BaseModel):
    """Which question this is; two questions with one id must be the same to the byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    run: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    phase: PhaseName
    round: int = Field(ge=0, le=100_000)
    attempt: int = Field(ge=0, le=1_000)

    def __str__(self) -> str:
        """Return the id as it stands in ledgers and logs.

        The attempt is left out: a second attempt asks for the same sum again.
        """
        return f"{self.protocol_sha256[:16]}/{self.run}/{self.phase}/{self.round}"


@dataclass(frozen=True)
class Question:
    """One question to one site.

    Attributes
    ----------
    id : QuestionId
    participants : tuple of str
        The sites whose masked vectors are summed in this attempt, in the order of the roster; empty
        where no masks are used.
    reveal : bool
        Whether the seed of the site's own mask is asked for: all participants have answered.
    entries_seen : int
        At roll call, how many entries the centre knows this site's ledger to have.
    after : TranscriptMark
        Of the sums from which the numbers of this question follow.
    relayed : bytes
        What the site lacks of their transcript, or a part of it.
    offset : int
        Where in the transcript this part begins.
    more : bool
        Whether this brings a part of the transcript alone, and the question itself comes later.

    """

    id: QuestionId
    participants: tuple[str, ...] = ()
    reveal: bool = False
    entries_seen: int = 0
    after: TranscriptMark = NOTHING_RELEASED
    relayed: bytes = b""
    offset: int = 0
    more: bool = False

    @property
    def content_sha256(self) -> str:
        """Hash of all that the sum depends on: the id without its attempt, and what was released before."""
        return hashlib.sha256(f"{self.id.protocol_sha256}\n{self.id}\n{self.after.head}".encode()).hexdigest()

    def to_bytes(self, key: Ed25519PrivateKey) -> bytes:
        """Return the question as a safetensors file, signed by the centre."""
        header = _QuestionHeader(
            id=self.id,
            participants=self.participants,
            reveal=self.reveal,
            entries_seen=self.entries_seen,
            after=self.after,
            offset=self.offset,
            more=self.more,
        )
        relayed = {"relayed": np.frombuffer(self.relayed, dtype=np.uint8)} if self.relayed else {}
        return seal(pack(relayed, header), key, "question")

    @classmethod
    def from_bytes(cls, body: bytes, key: Ed25519PublicKey) -> Self:
        """Read a question.

        Parameters
        ----------
        body : bytes
        key : Ed25519PublicKey
            The centre's.

        Raises
        ------
        ProtocolError
            It is too large, not signed by the centre, or malformed.

        """
        arrays, header = unpack(unseal(body, key, "question"), np.uint8)
        said = validated(_QuestionHeader, header)
        if set(arrays) - {"relayed"}:
            raise ProtocolError(f"a question holds no array but 'relayed', not {sorted(arrays)}")
        relayed = arrays["relayed"].tobytes() if arrays else b""
        return cls(
            said.id,
            said.participants,
            said.reveal,
            said.entries_seen,
            said.after,
            relayed,
            said.offset,
            said.more,
        )


class _QuestionHeader(Header):
    id: QuestionId
    participants: tuple[SiteName, ...] = Field(max_length=1000)
    reveal: bool
    entries_seen: int = Field(ge=0, le=2**53)
    after: TranscriptMark
    offset: int = Field(ge=0, le=2**53)
    more: bool


def question_in(body: bytes) -> QuestionId:
    """Return the id of a question of our own making; its arrays are not looked at."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])["__metadata__"][HEADER]
    return validated(_QuestionHeader, header).id
