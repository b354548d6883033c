"""The centre's public port: lets the enrolled sites' calls through to the SuperLink, and nothing else.

The SuperLink serves the sites (``/v1/fleet/``) and whoever starts runs
(``/v1/control/``, ``/v1/runtime/``) on one port, and binds a site to little of
what it says. It therefore answers the centre's own programs alone, and this
process stands before it. A request is read by a strict parser, its signature
checked, its content compared with what this site may say (`site_calls`), and
written anew: no byte of a client's request line, framing or unknown field
reaches the SuperLink.
"""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
import sys
import time
from collections import defaultdict
from pathlib import Path

import h11

from esn_core.system.logs import set_up
from esn_server.front.callers import Callers
from esn_server.front.held_polls import Turns
from esn_server.front.http_connection import Connection, Hurry, Request
from esn_server.front.limits import CallRate, Seat, Seats
from esn_server.front.site_calls import (
    ACTIVATE,
    CALLS,
    MAX_BODY_BYTES,
    POLL,
    CallRefusedError,
    SiteCalls,
)
from esn_server.front.upstream import Reply, Upstream
from esn_server.service.address import study_is_open

_log = logging.getLogger(__name__)

_HOLD_S = 20.0
# As the SuperLink says it: a SuperNode prints it and ends, where at a 401 it would only stop.
_NOT_ENROLLED = b'{"code": 2004, "detail": "The key is not an enrolled site\'s."}'
_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 2.0
_STUDY_OPEN_FOR_S = 0.5
_CALLS_PER_S_OF_SITE, _BURST_OF_SITE = 30.0, 150
# What a site sends in an hour-long study is a few megabytes a question.
_BYTES_PER_S_OF_SITE, _BURST_BYTES_OF_SITE = 2.0 * 2**20, 64 * 2**20
# Of whoever is no site: load balancers that ask for health. A flood is turned away at little cost.
_CALLS_PER_S_OF_ADDRESS, _BURST_OF_ADDRESS = 150.0, 600
# A SuperNode has three: its poll's and answers', the heartbeat's, and one more while it fetches.
# Those that a cut network left behind are there for half a minute.
_SILENT, _STRANGERS, _CONNECTIONS_OF_SITE = 256, 256, 16
# Bodies and replies of so many calls of a site are in memory at once.
_CALLS_AT_ONCE_OF_SITE = 4
# For the connections above, of thirty sites and more, and as many to the SuperLink.
_DESCRIPTORS = 4096


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
    callers : Callers
        Knows the enrolled sites.
    hurry : Hurry
        How slow a client may be.

    """

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext,
        turns: Turns,
        callers: Callers,
        *,
        hurry: Hurry | None = None,
    ) -> None:
        self._upstream = upstream
        self._context = context
        self._turns = turns
        self._callers = callers
        self._hurry = hurry or Hurry()
        self._calls = SiteCalls()
        self._seats = Seats(silent=_SILENT, strangers=_STRANGERS, of_site=_CONNECTIONS_OF_SITE)
        self._of_site = CallRate(calls_per_s=_CALLS_PER_S_OF_SITE, burst=_BURST_OF_SITE)
        self._bytes_of_site = CallRate(calls_per_s=_BYTES_PER_S_OF_SITE, burst=_BURST_BYTES_OF_SITE)
        self._of_address = CallRate(calls_per_s=_CALLS_PER_S_OF_ADDRESS, burst=_BURST_OF_ADDRESS)
        self._at_once: defaultdict[bytes, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_CALLS_AT_ONCE_OF_SITE)
        )
        self._polling: dict[bytes, object] = {}
        self._quiet_since_s: dict[bytes, float] = {}

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
                tasks.create_task(self._client(client, address[0]))
                await asyncio.sleep(0)  # while more of them wait, accepting lets nobody else run

    async def _client(self, client: socket.socket, address: str) -> None:
        """Serve one connection to its end."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        task = asyncio.current_task()
        assert task is not None
        seat = self._seats.enter(address, task.cancel)
        try:
            # From here on the transport closes the socket, also when the handshake fails.
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
            self._seats.has_spoken(seat)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                connection = Connection(reader, writer, self._hurry)
                while (request := await connection.request()) is not None:
                    await self._answer(connection, request, seat)
                    if not connection.next():
                        await connection.linger()
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
            self._seats.free(seat)

    async def _answer(self, connection: Connection, request: Request, seat: Seat) -> None:
        """Answer one request."""
        site = self._callers.site_of(request)
        if site is not None:
            self._seats.belongs_to(seat, site)
            wait_s = self._of_site.take(site)
        else:
            wait_s = self._of_address.take(seat.address)
        if wait_s is None:
            await connection.reply(429, b"too many calls\n", close=True)
            return
        if wait_s:
            await asyncio.sleep(wait_s)
        if request.method == b"GET" and request.target == b"/health":
            healthy = await self._upstream.healthy()
            await connection.reply(200 if healthy else 503, b"ok\n" if healthy else b"not ok\n")
        elif request.method != b"POST" or request.target not in CALLS:
            await connection.reply(404, b"not found\n", close=True)
        elif request.body_bytes is None:
            await connection.reply(411, b"a body of declared length is needed\n", close=True)
        elif request.body_bytes > MAX_BODY_BYTES:
            await connection.reply(413, b"the body is too large\n", close=True)
        elif site is None and request.target == ACTIVATE and not self._callers.is_enrolled(request):
            await connection.reply(412, _NOT_ENROLLED, close=True)
        elif site is None:
            await connection.reply(401, b"not signed by an enrolled site, or not now\n", close=True)
        elif request.body_bytes > self._calls.largest_body(site, request.target):
            await connection.reply(413, b"the body is too large\n", close=True)
        elif self._bytes_of_site.take(site, request.body_bytes) is None:
            await connection.reply(429, b"too many bytes\n", close=True)
        elif request.target == POLL:
            await self._hold(connection, request, site)
        else:
            async with self._at_once[site]:
                body = await connection.whole_body()
                status, headers, content = await self._ask(request, site, body)
                await connection.reply(status, content, headers=headers)

    async def _ask(self, request: Request, site: bytes, body: bytes) -> Reply:
        """Ask the SuperLink for what a site asks of it, if the site may."""
        try:
            call = self._calls.read(site, request.target, body)
        except CallRefusedError as refused:
            return refused.status, [], f"{refused}\n".encode()
        reply = await self._upstream.call(request, call.SerializeToString(deterministic=True))
        if reply[0] == 200:
            self._calls.note(site, call, reply[2])
        return reply

    async def _hold(self, connection: Connection, request: Request, site: bytes) -> None:
        """Keep a site's poll until there is a question, or long enough, or the site polls anew."""
        body = await connection.whole_body()
        poll = self._polling[site] = object()
        since_s = time.monotonic()
        quiet_since_s = self._quiet_since_s.setdefault(site, since_s)
        while True:
            status, headers, content = await self._ask(request, site, body)
            # An empty message of Flower's is an empty body: there is no question.
            now_s = time.monotonic()
            if content:
                self._quiet_since_s[site] = now_s
            over = now_s - since_s > _HOLD_S or self._polling[site] is not poll
            if status != 200 or content or over:
                await connection.reply(status, content, headers=headers)
                return
            await self._turns.take(now_s - quiet_since_s)
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
    _allow_descriptors()
    async with Upstream(superlink, directory) as upstream:
        context = server_context(directory / "server.crt", directory / "server.key")
        with contextlib.suppress(asyncio.CancelledError):
            await Front(upstream, context, Turns(study_open), Callers(directory)).serve(listener)


def _allow_descriptors() -> None:
    """Raise the number of files that this process may have open to what its connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Serve until SIGTERM: ``python -m esn_server.front.server DIRECTORY HOST PORT SUPERLINK``."""
    set_up()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    directory, host, port, superlink = sys.argv[1:]
    with listen(host, int(port)) as listener:
        asyncio.run(_run(Path(directory), listener, superlink))


if __name__ == "__main__":
    main()
