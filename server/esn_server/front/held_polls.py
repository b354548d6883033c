"""Polls of sites that the front holds until there is a question, at a bounded rate of its own.

A SuperNode asks for questions, is told at once that there are none, and sleeps
for three seconds. Nearly all that the link costs a study is that sleep. The
front therefore keeps such a poll and repeats it towards the SuperLink, where
all polls together take turns: the load there depends on the rate, and not on
how many sites there are.
"""

import asyncio
from collections import deque
from collections.abc import Callable

# With three sites each poll is repeated every 0.12 s while a study runs.
_STUDY_POLLS_PER_S = 40.0
_IDLE_POLLS_PER_S = 5.0
_SHORTEST_S = 0.12
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
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    async def take(self) -> None:
        """Return when it is this poll's turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((loop.time() + _SHORTEST_S, turn))
        await turn

    async def run(self) -> None:
        """Give turns until cancelled."""
        loop = asyncio.get_running_loop()
        earned, at_s = 0.0, loop.time()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = loop.time()
            rate = _STUDY_POLLS_PER_S if self._study_open() else _IDLE_POLLS_PER_S
            # Of the time in which nobody waited, nothing is saved up.
            earned = min(earned + rate * (now_s - at_s), max(1.0, rate * _SHORTEST_S))
            at_s = now_s
            while self._waiting and earned >= 1.0 and self._waiting[0][0] <= now_s:
                _, turn = self._waiting.popleft()
                if not turn.done():  # its client may have gone
                    turn.set_result(None)
                    earned -= 1.0
