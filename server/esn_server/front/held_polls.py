"""Polls of sites that the front holds until there is a question, at a bounded rate of its own.

A SuperNode asks for questions, is told at once that there are none, and sleeps
for three seconds. Nearly all that the link costs a study is that sleep. The
front therefore keeps such a poll and repeats it towards the SuperLink: the
later, the longer its site has waited, so that a long wait costs few calls and
a short one is over soon. All polls together take turns: the load there depends
on the rate, and not on how many sites there are.
"""

import asyncio
import heapq
from collections.abc import Callable

from esn_core.system.polling import pause_s

_STUDY_POLLS_PER_S = 40.0
_IDLE_POLLS_PER_S = 5.0
_SHORTEST_S, _LONGEST_S = 0.06, 1.0
_TICK_S = 0.03


class Turns:
    """Lets one held poll after the other go.

    Parameters
    ----------
    study_open : callable
        Whether a study runs; without one, a question is not expected and polls go slowly.

    """

    def __init__(self, study_open: Callable[[], bool]) -> None:
        self._study_open = study_open
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._taken = 0

    async def take(self, quiet_s: float) -> None:
        """Return when it is this poll's turn.

        Parameters
        ----------
        quiet_s : float
            For how long this site has been brought nothing, seconds.

        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        due_s = loop.time() + pause_s(quiet_s, shortest_s=_SHORTEST_S, longest_s=_LONGEST_S)
        self._taken += 1
        heapq.heappush(self._waiting, (due_s, self._taken, turn))
        await turn

    async def run(self) -> None:
        """Give turns until cancelled."""
        loop = asyncio.get_running_loop()
        earned, at_s = 0.0, loop.time()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = loop.time()
            rate = _STUDY_POLLS_PER_S if self._study_open() else _IDLE_POLLS_PER_S
            # Of the time in which nobody waited, nothing is saved up but what a shortest pause earns.
            earned = min(earned + rate * (now_s - at_s), max(1.0, rate * _SHORTEST_S))
            at_s = now_s
            while self._waiting and earned >= 1.0 and self._waiting[0][0] <= now_s:
                turn = heapq.heappop(self._waiting)[2]
                if not turn.done():  # its client may have gone
                    turn.set_result(None)
                    earned -= 1.0
