"""What one client of the front may take: a rate of calls, and a number of connections."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


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
        clients: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls_per_s = calls_per_s
        self._burst = burst
        self._clients = clients
        self._clock = clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, client: Hashable, amount: float = 1.0) -> float:
        """Count a call of a client, or so many bytes.

        Returns
        -------
        float
            Seconds that it has to wait; 0 when it is within the rate.

        """
        now_s = self._clock()
        bucket = self._buckets.pop(client, None) or _Bucket(float(self._burst), now_s)
        self._buckets[client] = bucket
        while len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        earned = (now_s - bucket.filled_at_s) * self._calls_per_s
        bucket.calls = min(float(self._burst), bucket.calls + earned) - amount
        bucket.filled_at_s = now_s
        return max(0.0, -bucket.calls / self._calls_per_s)


class ConnectionCount:
    """How many connections are open, in all and for each address.

    Parameters
    ----------
    in_all, per_address : int
        More are not accepted.

    """

    def __init__(self, *, in_all: int, per_address: int) -> None:
        self._in_all = in_all
        self._per_address = per_address
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection of `address`, if there is room for it."""
        if self._open.total() >= self._in_all or self._open[address] >= self._per_address:
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection as closed."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
