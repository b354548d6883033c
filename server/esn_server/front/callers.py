"""Who calls: an enrolled site, known by the signature in the head of its call, or a stranger."""

import binascii
import datetime
import logging
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from esn_core.errors import EsnError
from esn_server.enrolment.sites import node_keys
from esn_server.front.http_connection import Request

_log = logging.getLogger(__name__)

# For sites that left; and for one that has just been enrolled.
_LOOK_EVERY_S, _LOOK_AGAIN_S = 1.0, 0.1
# As the SuperLink has it: a site's clock may be five minutes behind, and five seconds ahead.
_OLDEST_S, _AHEAD_S = 305.0, 5.0
# A site makes 30 calls a second at most, for as long as a time stamp is good.
_STAMPS_OF_SITE = 2**14


class Callers:
    """Knows the enrolled sites by their keys, and takes each signature once.

    A SuperNode signs the time of its call and nothing else. A call that was
    overheard could be sent again within five minutes, and with another body;
    the front therefore takes each time stamp of a site once.

    Parameters
    ----------
    directory : Path
        The centre's; its enrolled sites are looked up when they change.
    now : callable
        Returns the time, UTC; tests bring their own.

    """

    def __init__(
        self,
        directory: Path,
        *,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._directory = directory
        self._now = now
        self._looked_at_s = -float("inf")
        self._keys: dict[bytes, ec.EllipticCurvePublicKey] = {}
        self._stamps: dict[bytes, OrderedDict[str, float]] = {}

    def site_of(self, request: Request) -> bytes | None:
        """Return the key of the enrolled site whose fresh signature a call carries, or None."""
        try:
            claimed = _claimed(request)
            key = self._key(claimed)
            if key is None:
                return None
            stamp = (request.header(b"flwr-timestamp") or b"").decode("ascii")
            signed_at = datetime.datetime.fromisoformat(stamp)
            signature = b64decode(request.header(b"flwr-signature") or b"", validate=True)
            age_s = (self._now() - signed_at).total_seconds()
            if not -_AHEAD_S < age_s < _OLDEST_S:
                return None
            key.verify(signature, stamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError, TypeError, binascii.Error):
            return None
        return claimed if self._first_use(claimed, stamp, signed_at.timestamp()) else None

    def is_enrolled(self, request: Request) -> bool:
        """Return whether the key that a call claims is an enrolled site's, whoever signed it."""
        try:
            return self._key(_claimed(request)) is not None
        except binascii.Error:
            return False

    def _first_use(self, site: bytes, stamp: str, signed_at_s: float) -> bool:
        """Note a time stamp that was signed; return False if it was used before."""
        stamps = self._stamps.setdefault(site, OrderedDict())
        oldest_s = self._now().timestamp() - _OLDEST_S
        while stamps and next(iter(stamps.values())) < oldest_s:
            stamps.popitem(last=False)
        if stamp in stamps or len(stamps) >= _STAMPS_OF_SITE:
            return False
        stamps[stamp] = signed_at_s
        return True

    def _key(self, claimed: bytes) -> ec.EllipticCurvePublicKey | None:
        """Return an enrolled site's key, as the enrolled sites are now."""
        if not claimed:
            return None
        patience_s = _LOOK_EVERY_S if claimed in self._keys else _LOOK_AGAIN_S
        if time.monotonic() - self._looked_at_s > patience_s:
            self._looked_at_s = time.monotonic()
            try:
                pems = node_keys(self._directory)
            except EsnError as error:
                _log.warning("the enrolled sites cannot be read, and stay as they were: %s", error)
                return self._keys.get(claimed)
            if pems != self._keys.keys():
                self._keys = {pem: _loaded(pem) for pem in pems}
                self._stamps = {pem: stamps for pem, stamps in self._stamps.items() if pem in pems}
        return self._keys.get(claimed)


def _claimed(request: Request) -> bytes:
    return b64decode(request.header(b"flwr-public-key") or b"", validate=True)


def _loaded(pem: bytes) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)  # `node_keys` gives no other
    return key
