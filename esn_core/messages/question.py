"""Questions: what the centre asks of a site, as bytes.

A question is a safetensors file, that is named arrays and a small JSON header, and nothing that could run.

* It has an id; the same id is always the same question.
* It carries public numbers that the answer depends on, such as the model's weights.
* The centre's signature, 64 bytes, follows the file, and is looked at before anything else is.

The id and the arrays make the content that a site pays for once; the number of the attempt is no part of it:

>>> from dataclasses import replace
>>> asked = QuestionId(protocol_sha256="ab" * 32, run="run-1", phase="evaluation", round=0, attempt=0)
>>> question = Question(asked, {"calibration": np.array([0.0, 1.0])})
>>> again = replace(question, id=asked.model_copy(update={"attempt": 1}))
>>> again.content_sha256 == question.content_sha256
True
>>> key = Ed25519PrivateKey.generate()
>>> Question.from_bytes(question.to_bytes(key), key.public_key()).array("calibration", 2)
array([0., 1.])
>>> str(question.id)
'abababababababab/run-1/evaluation/0'
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from esn_core.errors import ProtocolError
from esn_core.identity.roster import SiteName
from esn_core.messages.envelope import HEADER, Header, pack, seal, unpack, unseal, validated
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
    arrays : dict of str to float64 array
        Public numbers that the answer depends on, such as the model's weights.
    participants : tuple of str
        The sites whose masked vectors are summed in this attempt, in the order of the roster; empty
        where no masks are used.
    reveal : bool
        Whether the seed of the site's own mask is asked for: all participants have answered.
    entries_seen : int
        At roll call, how many entries the centre knows this site's ledger to have.

    """

    id: QuestionId
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    participants: tuple[str, ...] = ()
    reveal: bool = False
    entries_seen: int = 0

    @property
    def content_sha256(self) -> str:
        """Hash of all that the sum depends on: the id without its attempt, and the arrays."""
        digest = hashlib.sha256(f"{self.id.protocol_sha256}\n{self.id}".encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"\n{name}:{array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    def array(self, name: str, length: int | None = None) -> NDArray[np.float64]:
        """Return one of the arrays.

        Raises
        ------
        ProtocolError
            It has another length.

        """
        array = self.arrays[name]
        if length is not None and len(array) != length:
            raise ProtocolError(
                f"array '{name}' of a {self.id.phase} question needs {length} numbers, not {len(array)}"
            )
        return array

    def to_bytes(self, key: Ed25519PrivateKey) -> bytes:
        """Return the question as a safetensors file, signed by the centre."""
        header = _QuestionHeader(
            id=self.id, participants=self.participants, reveal=self.reveal, entries_seen=self.entries_seen
        )
        return seal(pack(self.arrays, header), key, "question")

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
            It is too large, not signed by the centre, malformed, or holds a number that is not finite.

        """
        arrays, header = unpack(unseal(body, key, "question"))
        said = validated(_QuestionHeader, header)
        return cls(said.id, arrays, said.participants, said.reveal, said.entries_seen)


class _QuestionHeader(Header):
    id: QuestionId
    participants: tuple[SiteName, ...] = Field(max_length=1000)
    reveal: bool
    entries_seen: int = Field(ge=0, le=2**53)


def question_in(body: bytes) -> QuestionId:
    """Return the id of a question of our own making; its arrays are not looked at."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])["__metadata__"][HEADER]
    return validated(_QuestionHeader, header).id
