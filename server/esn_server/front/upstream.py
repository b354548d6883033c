"""The SuperLink as the front meets it: on loopback, and asked for what sites may ask only."""

import logging
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from esn_server.front.http_connection import Request
from esn_server.service.superlink import PROOF_HEADER, proof_of, read_secret

_log = logging.getLogger(__name__)

_MAX_REPLY_BYTES = 16 * 2**20
_HEALTH_FOR_S = 1.0
_PASSED_BACK = (b"content-type", b"flwr-version-incompatibility-message")


Reply = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers and body."""


class Upstream:
    """Carries calls to the SuperLink; used within ``async with``.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperLink.
    directory : Path
        The centre's: the certificate that the SuperLink has to prove itself against, and the secret by
        which we do.

    """

    def __init__(self, address: str, directory: Path) -> None:
        self._base = f"https://{address}"
        self._proof = proof_of(read_secret(directory))
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=str(directory / "ca.crt")),
            timeout=httpx.Timeout(25.0, connect=3.0),
            limits=httpx.Limits(max_connections=512, max_keepalive_connections=64),
            trust_env=False,  # our own machine: no proxy
        )
        self._health: tuple[float, bool] = (0.0, False)

    async def __aenter__(self) -> Self:
        """Return this."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def healthy(self) -> bool:
        """Return whether the SuperLink says that it is well; asked once a second at most."""
        if time.monotonic() > self._health[0]:
            try:
                found = (await self._client.get(f"{self._base}/health", timeout=3.0)).status_code == 200
            except httpx.HTTPError:
                found = False
            self._health = (time.monotonic() + _HEALTH_FOR_S, found)
        return self._health[1]

    async def call(self, request: Request, body: bytes) -> Reply:
        """Make a call in place of a client.

        A SuperLink that is away, or failed at this call (a locked database), is a 503, after which a site
        asks again: of a 500 its SuperNode would end, and linger. A reply that is too large is a 502.
        """
        try:
            reply = await self._client.send(self._rewritten(request, body), stream=True)
            try:
                if reply.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                    _log.warning("the SuperLink failed at %s; the site asks again", request.target.decode())
                    return 503, [], b"the centre is not ready\n"
                length = reply.headers.get("content-length", "")
                declared = int(length) if length.isdigit() else _MAX_REPLY_BYTES + 1
                if declared > _MAX_REPLY_BYTES or "content-encoding" in reply.headers:
                    _log.error("a reply of the SuperLink to %s is not passed on", request.target.decode())
                    return 502, [], b"the centre's reply is too large\n"
                return reply.status_code, _passed_back(reply), await reply.aread()
            finally:
                await reply.aclose()
        except httpx.HTTPError as error:
            self._note(error)
            return 503, [], b"the centre is not ready\n"

    def _rewritten(self, request: Request, body: bytes) -> httpx.Request:
        """Return the request that we make in place of a client's."""
        headers = [*request.forwarded, (PROOF_HEADER.encode(), self._proof.encode())]
        headers += [(b"content-length", str(len(body)).encode()), (b"accept-encoding", b"identity")]
        return self._client.build_request(
            "POST", self._base + request.target.decode("ascii"), headers=headers, content=body
        )

    def _note(self, error: httpx.HTTPError) -> None:
        if self._health[1]:
            _log.warning("the SuperLink does not answer: %s", str(error) or type(error).__name__)
        self._health = (time.monotonic() + _HEALTH_FOR_S, False)


def _passed_back(reply: httpx.Response) -> list[tuple[bytes, bytes]]:
    return [(key.lower(), value) for key, value in reply.headers.raw if key.lower() in _PASSED_BACK]
