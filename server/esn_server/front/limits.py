"""What one client of the front may take: a rate of calls, and a number of connections."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal


@dataclass
class _Bucket:
    calls: float
    filled_at_s: float


class CallRate:
    """A token bucket for each client.

    Parameters
    ----------
    calls_per_s : float
        What a client may go on with for ever.
    burst : int
        What a client may do at once after a rest.
    longest_wait_s : float
        A call that would have to wait longer is not to be served, and takes nothing.
    clients : int
        So many are remembered; the one heard longest ago is forgotten first.
    clock : callable
        Of `time`; tests bring their own.

    """

    def __init__(
        self,
        *,
        calls_per_s: float,
        burst: int,
        longest_wait_s: float = 5.0,
        clients: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls_per_s = calls_per_s
        self._burst = burst
        self._longest_wait_s = longest_wait_s
        self._clients = clients
        self._clock = clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, client: Hashable, amount: float = 1.0) -> float | None:
        """Count a call of a client, or so many bytes.

        Returns
        -------
        float or None
            Seconds that it has to wait, 0 when it is within the rate; None when it is not to be served.

        """
        now_s = self._clock()
        bucket = self._buckets.pop(client, None) or _Bucket(float(self._burst), now_s)
        self._buckets[client] = bucket
        while len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        earned = (now_s - bucket.filled_at_s) * self._calls_per_s
        bucket.calls = min(float(self._burst), bucket.calls + earned)
        bucket.filled_at_s = now_s
        wait_s = max(0.0, (amount - bucket.calls) / self._calls_per_s)
        # What is turned away takes nothing: who shares the address of a flood finds a gap in it.
        if wait_s > self._longest_wait_s:
            return None
        bucket.calls -= amount
        return wait_s


Room = Literal["silent", "stranger", "site"]


class Seat:
    """A place of one open connection.

    Parameters
    ----------
    address : str
        Where it comes from.
    leave : callable
        Ends the connection, when its place is given to another.

    """

    def __init__(self, address: str, leave: Callable[[], object]) -> None:
        self.address = address
        self.leave = leave
        self.room: Room = "silent"
        self.owner: Hashable = address


class Seats:
    """Places for connections, in three rooms: before TLS, of strangers, and of each enrolled site.

    Nobody is turned away. When a room is full, its newcomer takes the place of the
    one that has sat there longest, among those of whoever has most places there.
    So an address that opens many connections loses its own; one that only waits
    loses to one that speaks; and what a site has, no stranger and no other site can take.

    Parameters
    ----------
    silent, strangers : int
        Places of all addresses together, before TLS and after it.
    of_site : int
        Places of each site.

    """

    def __init__(self, *, silent: int, strangers: int, of_site: int) -> None:
        self._places: dict[Room, int] = {"silent": silent, "stranger": strangers, "site": of_site}
        # In the order of arrival in the room. A site's places are its own, so it is a room for each.
        self._seated: dict[tuple[Room, Hashable], dict[Seat, None]] = {}

    def enter(self, address: str, leave: Callable[[], object]) -> Seat:
        """Give a new connection a place."""
        seat = Seat(address, leave)
        self._sit(seat)
        return seat

    def has_spoken(self, seat: Seat) -> None:
        """Move a connection on whose client has shown TLS."""
        if seat.room == "silent" and self.free(seat):
            seat.room = "stranger"
            self._sit(seat)

    def belongs_to(self, seat: Seat, site: Hashable) -> None:
        """Move a connection on over which a site has signed a call; it stays with the first one."""
        if seat.room == "stranger" and self.free(seat):
            seat.room, seat.owner = "site", site
            self._sit(seat)

    def free(self, seat: Seat) -> bool:
        """Give a place up; return whether it was still had."""
        seated = self._seated.get(self._room_of(seat), {})
        had = seat in seated
        seated.pop(seat, None)
        if not seated:
            self._seated.pop(self._room_of(seat), None)
        return had

    def _sit(self, seat: Seat) -> None:
        seated = self._seated.setdefault(self._room_of(seat), {})
        seated[seat] = None
        if len(seated) > self._places[seat.room]:
            ((most, _),) = Counter(other.owner for other in seated).most_common(1)
            oldest = next(other for other in seated if other.owner == most)
            del seated[oldest]
            oldest.leave()

    @staticmethod
    def _room_of(seat: Seat) -> tuple[Room, Hashable]:
        return (seat.room, seat.owner if seat.room == "site" else None)
