"""The envelope of a message: a safetensors file of bounded size, and the signature of whoever sent it.

Named arrays and a small JSON header, nothing that could run. The signature, 64 bytes, follows the file,
and is looked at before anything else is.

A header that names no format has format 1, whose questions carried numbers; it is not read any more.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from esn_core.errors import ProtocolError
from esn_core.formats import MESSAGE, version_in
from esn_core.identity.signing import SIGNATURE_BYTES, is_signed, sign

_M = TypeVar("_M", bound=BaseModel)

LARGEST_MESSAGE_BYTES = 7 * 2**20
"""Of a question or an answer; the centre's front lets through what holds one, Flower's wrapping included."""

LARGEST_HEADER_BYTES = 64 * 2**10

LARGEST_NUMBERS_BYTES = LARGEST_MESSAGE_BYTES - LARGEST_HEADER_BYTES - SIGNATURE_BYTES - 8
"""Of the arrays of one message, beside the longest header, its length and the signature."""

HEADER = "esn"

_NOT_SIGNED = {
    "question": "a question must be signed by the centre's signing key, and this one is not",
    "answer": "the answer is not signed by the site's identity key",
}

_TOO_LARGE = "a message may hold {limit} bytes at most, not {found}"


def sha256_of(body: bytes) -> str:
    """Return the hash by which both sides log a message."""
    return hashlib.sha256(body).hexdigest()


def seal(body: bytes, key: Ed25519PrivateKey, purpose: Literal["question", "answer"]) -> bytes:
    """Return a message with the signature of its sender behind it."""
    return body + sign(body, key, purpose)


def unseal(sealed: bytes, key: Ed25519PublicKey, purpose: Literal["question", "answer"]) -> bytes:
    """Return what was signed, once it is known who signed it.

    Raises
    ------
    ProtocolError
        It is too large, or not signed by `key` for this purpose.

    """
    if len(sealed) > LARGEST_MESSAGE_BYTES:
        raise ProtocolError(_TOO_LARGE.format(limit=LARGEST_MESSAGE_BYTES, found=len(sealed)))
    body, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    if not is_signed(body, signature, key, purpose):
        raise ProtocolError(_NOT_SIGNED[purpose])
    return body


class Header(BaseModel):
    """What the headers of questions and answers have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2


def pack(arrays: Mapping[str, NDArray[Any]], header: BaseModel) -> bytes:
    """Return a safetensors file of vectors with a JSON header."""
    metadata = {HEADER: header.model_dump_json()}
    body: bytes = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata)
    return body


def unpack(body: bytes, dtype: type[np.integer[Any]]) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the vectors of a safetensors file, and its header as JSON.

    Parameters
    ----------
    body : bytes
    dtype : type
        Of all vectors.

    Raises
    ------
    ProtocolError
        It is no such file, or holds arrays of other types, shapes or names.

    """
    # A header of many empty arrays would cost far more memory than it has bytes.
    length = int.from_bytes(body[:8], "little")
    if length > LARGEST_HEADER_BYTES:
        raise ProtocolError(f"a message's header may hold {LARGEST_HEADER_BYTES} bytes at most, not {length}")
    try:
        arrays = load(body)
        header = json.loads(body[8 : 8 + length])["__metadata__"][HEADER]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ProtocolError("a message must be a safetensors file with an 'esn' header") from error
    for name, array in arrays.items():
        if not re.fullmatch(r"[a-z_]{1,40}", name) or array.dtype != dtype or array.ndim != 1:
            raise ProtocolError(f"a message's arrays must be {np.dtype(dtype)} vectors with plain names")
    return arrays, header


def validated(model: type[_M], header: str) -> _M:
    """Read a header into its model.

    Raises
    ------
    ProtocolError
        The message has another format; or a part of the header does not fit: named are the places, not
        what they say.

    """
    fault = MESSAGE.fault_in(version_in(header))
    if fault:
        raise ProtocolError(f"the message cannot be read: {fault}")
    try:
        return model.model_validate_json(header)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) or "header" for e in error.errors())
        raise ProtocolError(f"a message's header cannot be used: {places}") from error
