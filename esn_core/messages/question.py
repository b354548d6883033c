"""What the centre asks and what a site answers, as bytes.

Both are safetensors files: named arrays and a small JSON header, nothing that
could run. A question has an id; the same id is always the same question. The
signature of whoever sent it, 64 bytes, follows the file, and is looked at before
anything else is.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from esn_core.errors import ProtocolError
from esn_core.identity.signing import SIGNATURE_BYTES, is_signed, sign
from esn_core.protocol.phases import Phase
from esn_core.protocol.protocol import SiteName

_M = TypeVar("_M", bound=BaseModel)

LARGEST_MESSAGE_BYTES = 7 * 2**20
"""Of a question or an answer; the centre's front lets through what holds one, Flower's wrapping included."""

LARGEST_HEADER_BYTES = 64 * 2**10

_HEADER = "esn"
_NOT_SIGNED = {
    "question": "a question must be signed by the centre's signing key, and this one is not",
    "answer": "the answer is not signed by the site's identity key",
}
_TOO_LARGE = "a message may hold {limit} bytes at most, not {found}"


def size_band(children: int) -> str:
    """Return the band of a cohort's size: 0-7, 8-15, 16-31, 32-63 and so on."""
    if children < 8:
        return "0-7"
    low = 1 << (children.bit_length() - 1)
    return f"{low}-{2 * low - 1}"


def _check_band(band: str) -> str:
    low = int(band.partition("-")[0])
    if band != size_band(low):
        raise ValueError(f"a band of cohort sizes is one such as 16-31, not {band}")
    return band


# What the other side says of itself ends up in logs and reports: plain words of bounded length.
_PackageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+!_-]{1,60}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Band = Annotated[str, Field(pattern=r"^[0-9]{1,7}-[0-9]{1,7}$"), AfterValidator(_check_band)]


class QuestionId(BaseModel):
    """Which question this is; two questions with one id must be the same to the byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    run: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    phase: Phase
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
        return _seal(_pack(self.arrays, header), key, "question")

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
        arrays, header = _unpack(_unseal(body, key, "question"))
        said = _validated(_QuestionHeader, header)
        return cls(said.id, arrays, said.participants, said.reveal, said.entries_seen)


class _QuestionHeader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: QuestionId
    participants: tuple[SiteName, ...] = Field(max_length=1000)
    reveal: bool
    entries_seen: int = Field(ge=0, le=2**53)


class LedgerMark(BaseModel):
    """A place in a site's ledger: so many entries, the last of which has this hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: int = Field(ge=0, le=2**53)
    head: _Sha256


EMPTY_LEDGER = LedgerMark(entries=0, head="0" * 64)
"""The mark of a ledger without entries; its head is what the first entry has for the one before."""


class SiteFacts(BaseModel):
    """What a site says of itself at roll call; nothing of it depends on a child's data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    software: dict[_PackageName, _Version] = Field(max_length=32)
    recipe_sha256: _Sha256
    atlas_sha256: _Sha256
    template_sha256: _Sha256
    cohort_band: _Band
    """Number of training and held-out children together, as a band such as 16-31."""
    ledger: LedgerMark
    """The end of the site's ledger."""
    ledger_seen: LedgerMark
    """The entry up to which the centre said that it knows the ledger."""
    said_at: AwareDatetime
    """The time on the site's clock."""


class Refusal(BaseModel):
    """A refusal: the class of the error and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str = Field(pattern=r"^[A-Za-z]{1,60}$")


class _AnswerHeader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: QuestionId
    site: SiteName
    facts: SiteFacts | None = None
    seed: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    refusal: Refusal | None = None
    charged: LedgerMark | None = None


@dataclass(frozen=True)
class Answer:
    """One answer of one site: a released sum, facts at roll call, a mask's seed, or a refusal.

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

    """

    id: QuestionId
    site: str
    total: NDArray[np.int64] | None = None
    facts: SiteFacts | None = None
    seed: bytes | None = None
    refusal: Refusal | None = None
    charged: LedgerMark | None = None

    def __post_init__(self) -> None:
        said = [part is not None for part in (self.total, self.facts, self.seed, self.refusal)]
        if sum(said) != 1:
            raise ProtocolError("an answer is one of a released sum, facts, a seed or a refusal")
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
        )
        return _seal(_pack({} if self.total is None else {"total": self.total}, header), key, "answer")

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
        arrays, header = _unpack(_unseal(body, key, "answer"), integers=True)
        parsed = _validated(_AnswerHeader, header)
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
        )


def question_in(body: bytes) -> QuestionId:
    """Return the id of a question of our own making; its arrays are not looked at."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])["__metadata__"][_HEADER]
    return _validated(_QuestionHeader, header).id


def sha256_of(body: bytes) -> str:
    """Return the hash by which both sides log a message."""
    return hashlib.sha256(body).hexdigest()


def _seal(body: bytes, key: Ed25519PrivateKey, purpose: Literal["question", "answer"]) -> bytes:
    return body + sign(body, key, purpose)


def _unseal(sealed: bytes, key: Ed25519PublicKey, purpose: Literal["question", "answer"]) -> bytes:
    """Return what was signed, once it is known who signed it."""
    if len(sealed) > LARGEST_MESSAGE_BYTES:
        raise ProtocolError(_TOO_LARGE.format(limit=LARGEST_MESSAGE_BYTES, found=len(sealed)))
    body, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    if not is_signed(body, signature, key, purpose):
        raise ProtocolError(_NOT_SIGNED[purpose])
    return body


def _pack(arrays: dict[str, NDArray[np.float64]] | dict[str, NDArray[np.int64]], header: BaseModel) -> bytes:
    metadata = {_HEADER: header.model_dump_json()}
    body: bytes = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata)
    return body


def _unpack(body: bytes, *, integers: bool = False) -> tuple[dict[str, NDArray[Any]], str]:
    # A header of many empty arrays would cost far more memory than it has bytes.
    length = int.from_bytes(body[:8], "little")
    if length > LARGEST_HEADER_BYTES:
        raise ProtocolError(f"a message's header may hold {LARGEST_HEADER_BYTES} bytes at most, not {length}")
    try:
        arrays = load(body)
        header = json.loads(body[8 : 8 + length])["__metadata__"][_HEADER]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ProtocolError("a message must be a safetensors file with an 'esn' header") from error
    dtype = np.int64 if integers else np.float64
    for name, array in arrays.items():
        if not re.fullmatch(r"[a-z_]{1,40}", name) or array.dtype != dtype or array.ndim != 1:
            raise ProtocolError(f"a message's arrays must be {np.dtype(dtype)} vectors with plain names")
        if not np.isfinite(array).all():
            raise ProtocolError(f"array '{name}' of a message holds numbers that are not finite")
    return arrays, header


def _validated(model: type[_M], header: str) -> _M:
    try:
        return model.model_validate_json(header)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) or "header" for e in error.errors())
        raise ProtocolError(f"a message's header cannot be used: {places}") from error
