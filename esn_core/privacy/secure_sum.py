"""The secure sum: masks that hide each site's vector, and cancel in the sum of all.

Every two sites share a secret, made from the static X25519 keys of the signed
roster (Diffie-Hellman). From it, for one attempt at one question, both derive
the same stream of 64-bit numbers (HKDF-SHA256, ChaCha20); one adds it, the
other subtracts it, modulo 2^64 (Bonawitz et al. 2017, doi 10.1145/3133956.3133982).

If a site drops out, the question is repeated with those that are left. A
centre that holds the answers to two attempts, and only said that a site had
dropped, could subtract their sums and be left with that site's vector. So,
where a protocol allows another set of sites at all, each site adds a stream of
its own as well, whose seed it reveals for one attempt at a question and never
for another. Two such sets always share a site that keeps to this
(`Protocol` sees to it), so at most one attempt's sum can ever be opened.

A check number, linear in the vector, travels with it: if masks do not cancel,
or an answer was damaged on the way, the sum of the check numbers does not fit.

>>> keys = {site: X25519PrivateKey.generate() for site in ("north", "south", "west")}
>>> public_keys = {site: key.public_key() for site, key in keys.items()}
>>> attempt = Attempt("0" * 64, "0123/run-1/evaluation/0", tuple(keys))
>>> counted = {"north": [1, 2], "south": [10, 20], "west": [100, 200]}
>>> masked = {
...     site: mask(
...         np.array(counted[site]),
...         attempt,
...         site=site,
...         private_key=key,
...         public_keys=public_keys,
...         self_masked=False,
...     )
...     for site, key in keys.items()
... }
>>> unmask(masked, attempt, seeds={})
array([111, 222])
>>> unmask({**masked, "west": masked["west"] + 1}, attempt, seeds={})  # doctest: +ELLIPSIS
Traceback (most recent call last):
esn_core.errors.ProtocolError: the masks do not cancel: ...
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from esn_core.errors import ProtocolError

SEED_BYTES = 32

# A stream is used under a key of its own, once.
_NONCE = bytes(16)


@dataclass(frozen=True)
class Attempt:
    """One attempt to sum the vectors of certain sites.

    Attributes
    ----------
    protocol_sha256 : str
    question : str
        Its id, without the number of the attempt: the set of sites tells attempts apart.
    participants : tuple of str
        Names of the sites, in the order of the roster.
    transcript : str
        Hash of the sums released before (`TranscriptMark.head`): the masks of sites that were told of
        different ones do not cancel.

    """

    protocol_sha256: str
    question: str
    participants: tuple[str, ...]
    transcript: str = "0" * 64

    @property
    def context(self) -> bytes:
        """All that the masks depend on beside the keys. No name holds a line break."""
        return "\n".join((self.protocol_sha256, self.question, self.transcript, *self.participants)).encode()


def mask(
    total: NDArray[np.int64],
    attempt: Attempt,
    *,
    site: str,
    private_key: X25519PrivateKey,
    public_keys: Mapping[str, X25519PublicKey],
    self_masked: bool,
) -> NDArray[np.int64]:
    """Hide a site's vector.

    Parameters
    ----------
    total : (d,) int64
    attempt : Attempt
    site : str
        Whose vector this is; one of the participants.
    private_key : X25519PrivateKey
        Of `site`.
    public_keys : dict of str to X25519PublicKey
        Of all participants.
    self_masked : bool
        Whether a stream of the site's own is added.

    Returns
    -------
    (d + 1,) int64
        The masked vector and its masked check number; each number alone is uniform.

    Raises
    ------
    ProtocolError
        A public key is one that gives no secret.

    """
    units = total.view(np.uint64)
    hidden = np.append(units, _check_number(units, attempt))
    place = attempt.participants.index(site)
    for other, name in enumerate(attempt.participants):
        if name == site:
            continue
        try:
            secret = private_key.exchange(public_keys[name])
        except ValueError as cause:
            raise ProtocolError(f"the mask key of {name} gives no secret") from cause
        first, second = sorted((site, name))
        stream = _stream(_derive(secret, f"pair\n{first}\n{second}", attempt), len(hidden))
        hidden = hidden + stream if place < other else hidden - stream
    if self_masked:
        hidden = hidden + _stream(self_seed(private_key, attempt), len(hidden))
    return hidden.view(np.int64)


def self_seed(private_key: X25519PrivateKey, attempt: Attempt) -> bytes:
    """Return the seed of a site's own stream in one attempt; it tells nothing of another's."""
    return _derive(private_key.private_bytes_raw(), "self", attempt)


def unmask(
    masked: Mapping[str, NDArray[np.int64]], attempt: Attempt, *, seeds: Mapping[str, bytes]
) -> NDArray[np.int64]:
    """Add up masked vectors of one attempt.

    Parameters
    ----------
    masked : dict of str to (d + 1,) int64
        By site.
    attempt : Attempt
    seeds : dict of str to bytes
        The revealed seeds; empty where no site adds a stream of its own.

    Returns
    -------
    (d,) int64
        The sum modulo 2^64, exact when it fits int64.

    Raises
    ------
    ProtocolError
        A participant is missing, lengths differ, or the masks do not cancel.

    """
    if set(masked) != set(attempt.participants) or (seeds and set(seeds) != set(masked)):
        raise ProtocolError(
            f"the sum of {', '.join(attempt.participants)} needs an answer of each of them and of nobody else"
        )
    lengths = {len(vector) for vector in masked.values()}
    if len(lengths) != 1:
        raise ProtocolError(f"masked vectors must have one length, not {sorted(lengths)}")
    (length,) = lengths
    total = np.zeros(length, dtype=np.uint64)
    for vector in masked.values():
        total += vector.view(np.uint64)
    for seed in seeds.values():
        total -= _stream(seed, length)
    if _check_number(total[:-1], attempt) != total[-1]:
        raise ProtocolError(
            "the masks do not cancel: a site used another key or set of sites, or an answer was damaged"
        )
    return total[:-1].view(np.int64)


def _check_number(units: NDArray[np.uint64], attempt: Attempt) -> np.uint64:
    """Weigh a vector with public random numbers, modulo 2^64: linear, so that the sum can be checked.

    The weights are odd: any change of one number shows.
    """
    weights = _stream(_derive(b"public", "check", attempt), len(units)) | np.uint64(1)
    return np.uint64(np.multiply(units, weights).sum(dtype=np.uint64))


def _derive(secret: bytes, purpose: str, attempt: Attempt) -> bytes:
    info = f"esn-federated secure sum 2\n{purpose}\n".encode() + attempt.context
    return HKDF(algorithm=hashes.SHA256(), length=SEED_BYTES, salt=None, info=info).derive(secret)


def _stream(key: bytes, length: int) -> NDArray[np.uint64]:
    keystream = Cipher(ChaCha20(key, _NONCE), mode=None).encryptor().update(bytes(8 * length))
    return np.frombuffer(keystream, dtype="<u8").astype(np.uint64, copy=False)
