"""One client's HTTP/1.1 connection to the front: strict, bounded, and never waited for without end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate

import h11

Headers = Sequence[tuple[bytes, bytes]]

_MAX_HEAD_BYTES = 16 * 1024
_READ_BYTES = 64 * 1024
_FORWARDED = frozenset({b"content-type", b"accept", b"user-agent"})


@dataclass(frozen=True)
class Hurry:
    """How slow a client may be.

    Attributes
    ----------
    idle_s : float
        Between two requests.
    head_s : float
        From the first byte of a request's head to its last.
    gap_s : float
        Between two pieces of a body, in either direction.
    bytes_per_s : float
        Of a body, on average, after the first `gap_s`.
    linger_s : float
        Of what is sent after a reply that ends the connection.

    """

    idle_s: float = 30.0
    head_s: float = 10.0
    gap_s: float = 20.0
    bytes_per_s: float = 16 * 1024.0
    linger_s: float = 2.0


@dataclass(frozen=True)
class Request:
    """The head of a request, as it was sent.

    Attributes
    ----------
    method, target : bytes
    headers : sequence of pairs of bytes
        Names in lower case.
    body_bytes : int or None
        Declared length of the body; None when it has none.

    """

    method: bytes
    target: bytes
    headers: Headers
    body_bytes: int | None

    def header(self, name: bytes) -> bytes | None:
        """Return a header's value."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def forwarded(self) -> list[tuple[bytes, bytes]]:
        """What of the headers the SuperLink is to see: what Flower's own client says, each once."""
        said: dict[bytes, bytes] = {}
        for key, value in self.headers:
            if key in _FORWARDED or key.startswith((b"flwr-", b"x-flwr-")):
                said.setdefault(key, value)
        return list(said.items())


class Connection:
    """Reads requests and writes replies; used by one task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hurry: Hurry) -> None:
        self._reader = reader
        self._writer = writer
        self._hurry = hurry
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._asked_for: Request | None = None

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def request(self) -> Request | None:
        """Return the next request's head, or None when there is none.

        Raises
        ------
        TimeoutError
            It took too long.
        h11.ProtocolError
            It is no request; the client has been told.

        """
        try:
            event = self._http.next_event()
            if event is h11.NEED_DATA and self._http.trailing_data[0] == b"":
                async with asyncio.timeout(self._hurry.idle_s):
                    await self._read()
                event = self._http.next_event()
            async with asyncio.timeout(self._hurry.head_s):
                while event is h11.NEED_DATA:
                    await self._read()
                    event = self._http.next_event()
            if not isinstance(event, h11.Request):
                return None
            self._asked_for = _checked(event)
            if not self._asked_for.body_bytes:
                self._http.next_event()  # its end: nothing of it is still to come
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self.reply(error.error_status_hint, b"not understood\n", close=True)
            raise
        return self._asked_for

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body's pieces.

        Raises
        ------
        TimeoutError
            The client is too slow.
        h11.RemoteProtocolError
            It went away.

        """
        declared = self._asked_for.body_bytes if self._asked_for is not None else 0
        async with asyncio.timeout(self._hurry.gap_s + (declared or 0) / self._hurry.bytes_per_s):
            while self._http.their_state is not h11.DONE:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(self._hurry.gap_s):
                        await self._read()
                elif isinstance(event, h11.Data):
                    yield bytes(event.data)

    async def whole_body(self) -> bytes:
        """Return the body."""
        return b"".join([piece async for piece in self.body()])

    async def reply(self, status: int, body: bytes, *, headers: Headers = (), close: bool = False) -> None:
        """Send a whole reply."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())], close=close)
        await self.send(body)
        await self.finish()

    async def start(self, status: int, headers: Headers, *, close: bool = False) -> None:
        """Send a reply's head; where more of the request is to come it says that the connection ends."""
        always = [(b"date", formatdate(usegmt=True).encode())]
        if close or self._http.their_state is not h11.DONE:
            always.append((b"connection", b"close"))
        self._writer.write(
            self._http.send(h11.Response(status_code=status, headers=[*headers, *always])) or b""
        )
        await self._drain()

    async def send(self, piece: bytes) -> None:
        """Send a piece of a reply's body."""
        self._writer.write(self._http.send(h11.Data(data=piece)) or b"")
        await self._drain()

    async def finish(self) -> None:
        """End a reply."""
        self._writer.write(self._http.send(h11.EndOfMessage()) or b"")
        await self._drain()

    async def linger(self) -> None:
        """Read on, for a while, what is still sent: closed with that unread, TCP takes the reply back."""
        async with asyncio.timeout(self._hurry.linger_s):
            while await self._reader.read(_READ_BYTES):
                pass

    def next(self) -> bool:
        """Make ready for another request; return False when the connection has to end."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _read(self) -> None:
        self._http.receive_data(await self._reader.read(_READ_BYTES))

    async def _drain(self) -> None:
        async with asyncio.timeout(self._hurry.gap_s):
            await self._writer.drain()


def _checked(event: h11.Request) -> Request:
    """Refuse what two servers might read in two ways, whatever the parser would make of it."""
    headers = [(bytes(name), bytes(value)) for name, value in event.headers]
    lengths = [value for name, value in headers if name == b"content-length"]
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise h11.RemoteProtocolError("a transfer encoding", error_status_hint=501)
    return Request(bytes(event.method), bytes(event.target), headers, int(lengths[0]) if lengths else None)
