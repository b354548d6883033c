"""The centre's public port: lets the sites' calls through to the SuperLink, and nothing else.

The SuperLink serves the sites (``/v1/fleet/``) and whoever starts runs
(``/v1/control/``, ``/v1/runtime/``) on one port, and asks only the sites who
they are. It therefore listens on loopback, and this process stands before it.
A request is read by a strict parser, compared with the one shape that a site's
call has, and written anew: no byte of a client's request line or framing
reaches the SuperLink.
"""

import asyncio
import contextlib
import logging
import re
import signal
import socket
import ssl
import sys
import time
from pathlib import Path

import h11

from esn_core.messages.envelope import LARGEST_MESSAGE_BYTES
from esn_server.front.held_polls import Turns
from esn_server.front.http_connection import Connection, Hurry, Request
from esn_server.front.limits import CallRate, ConnectionCount
from esn_server.front.upstream import Upstream
from esn_server.service.address import study_is_open

_log = logging.getLogger(__name__)

# One lower-case word: no dot, no percent, no slash, no query can stand in it.
_SITE_CALL = re.compile(rb"/v1/fleet/[a-z]+(?:-[a-z]+)*")
_POLL = b"/v1/fleet/pull-messages"
# Flower sends an answer as one object, in a wrapping of some hundred bytes.
MAX_BODY_BYTES = LARGEST_MESSAGE_BYTES + 2**20
_HOLD_S = 20.0
_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 2.0
_LONGEST_WAIT_S = 5.0
_STUDY_OPEN_FOR_S = 0.5
_CALLS_PER_S_OF_SITE, _BURST_OF_SITE = 30.0, 150
_CALLS_PER_S_OF_ADDRESS, _BURST_OF_ADDRESS = 150.0, 600
# What a site sends in an hour-long study is a few megabytes a question.
_BYTES_PER_S_OF_SITE, _BURST_BYTES_OF_SITE = 2.0 * 2**20, 64 * 2**20
_CONNECTIONS, _CONNECTIONS_OF_ADDRESS = 1024, 256


class Front:
    """Serves the public port.

    Parameters
    ----------
    upstream : Upstream
        The SuperLink.
    context : ssl.SSLContext
        With the centre's certificate.
    turns : Turns
        Of the polls that are held.
    hurry : Hurry
        How slow a client may be.
    connections_of_address : int
        How many connections one address may hold.

    """

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext,
        turns: Turns,
        *,
        hurry: Hurry | None = None,
        connections_of_address: int = _CONNECTIONS_OF_ADDRESS,
    ) -> None:
        self._upstream = upstream
        self._context = context
        self._turns = turns
        self._hurry = hurry or Hurry()
        self._connections = ConnectionCount(in_all=_CONNECTIONS, per_address=connections_of_address)
        self._of_site = CallRate(calls_per_s=_CALLS_PER_S_OF_SITE, burst=_BURST_OF_SITE)
        self._bytes_of_site = CallRate(calls_per_s=_BYTES_PER_S_OF_SITE, burst=_BURST_BYTES_OF_SITE)
        self._of_address = CallRate(calls_per_s=_CALLS_PER_S_OF_ADDRESS, burst=_BURST_OF_ADDRESS)

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._turns.run())
            while True:
                try:
                    client, address = await loop.sock_accept(listener)
                except OSError as error:  # out of file descriptors: those that are open will end
                    _log.warning("cannot accept a connection: %s", error.strerror)
                    await asyncio.sleep(1.0)
                    continue
                if not self._connections.enter(address[0]):
                    client.close()
                    continue
                tasks.create_task(self._client(client, address[0]))

    async def _client(self, client: socket.socket, address: str) -> None:
        """Serve one connection to its end."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            # From here on the transport closes the socket, also when the handshake fails.
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                connection = Connection(reader, writer, self._hurry)
                while (request := await connection.request()) is not None:
                    await self._answer(connection, request, address)
                    if not connection.next():
                        break
            except BaseException:
                transport.abort()
                raise
            else:
                writer.close()
                async with asyncio.timeout(2 * _SHUTDOWN_S):
                    await writer.wait_closed()
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # a client that goes away, sleeps or talks nonsense is no news
        except Exception:
            _log.exception("a connection ended by a fault of ours")
        finally:
            self._connections.leave(address)

    async def _answer(self, connection: Connection, request: Request, address: str) -> None:
        """Answer one request."""
        site = request.header(b"flwr-public-key")
        # A key that is only claimed counts for this address alone: nobody uses up another site's calls.
        wait_s = max(
            self._of_address.take(address), self._of_site.take((address, site)) if site is not None else 0.0
        )
        if wait_s > _LONGEST_WAIT_S:
            await connection.reply(429, b"too many calls\n", close=True)
            return
        if wait_s:
            await asyncio.sleep(wait_s)
        if request.method == b"GET" and request.target == b"/health":
            healthy = await self._upstream.healthy()
            await connection.reply(200 if healthy else 503, b"ok\n" if healthy else b"not ok\n")
        elif request.method != b"POST" or not _SITE_CALL.fullmatch(request.target):
            await connection.reply(404, b"not found\n", close=True)
        elif request.body_bytes is None:
            await connection.reply(411, b"a body of declared length is needed\n", close=True)
        elif request.body_bytes > MAX_BODY_BYTES:
            await connection.reply(413, b"the body is too large\n", close=True)
        elif self._bytes_of_site.take((address, site), request.body_bytes) > _LONGEST_WAIT_S:
            await connection.reply(429, b"too many bytes\n", close=True)
        elif request.target == _POLL:
            await self._hold(connection, request)
        else:
            await self._upstream.forward(connection, request)

    async def _hold(self, connection: Connection, request: Request) -> None:
        """Keep a site's poll until there is a question, or long enough."""
        body = await connection.whole_body()
        until_s = time.monotonic() + _HOLD_S
        while True:
            status, headers, content = await self._upstream.call(request, body)
            # An empty message of Flower's is an empty body: there is no question.
            if status != 200 or content or time.monotonic() > until_s:
                await connection.reply(status, content, headers=headers)
                return
            await self._turns.take()
            if connection.gone:
                return  # a question that is fetched for nobody would be lost


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS settings of the public port: 1.2 or later, and no other protocol than HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(256)
    return listener


async def _run(directory: Path, listener: socket.socket, superlink: str) -> None:
    known: tuple[float, bool] = (0.0, False)

    def study_open() -> bool:
        nonlocal known
        if time.monotonic() > known[0]:
            known = (time.monotonic() + _STUDY_OPEN_FOR_S, study_is_open(directory))
        return known[1]

    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Upstream(superlink, directory / "ca.crt") as upstream:
        context = server_context(directory / "server.crt", directory / "server.key")
        with contextlib.suppress(asyncio.CancelledError):
            await Front(upstream, context, Turns(study_open)).serve(listener)


def main() -> None:
    """Serve until SIGTERM: ``python -m esn_server.front.server DIRECTORY HOST PORT SUPERLINK``."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    directory, host, port, superlink = sys.argv[1:]
    with listen(host, int(port)) as listener:
        asyncio.run(_run(Path(directory), listener, superlink))


if __name__ == "__main__":
    main()
