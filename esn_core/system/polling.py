"""Polling: how long to wait before one looks again for what has not come."""

_SHARE_OF_WAIT = 0.1


def pause_s(waited_s: float, *, shortest_s: float = 0.05, longest_s: float = 0.5) -> float:
    """Return a tenth of what was waited already, within limits: a long wait costs few looks (decision 0257).

    Parameters
    ----------
    waited_s : float
        Seconds since what is looked for could have come.
    shortest_s, longest_s : float
        The pause of who has hardly waited, and of who has waited long.

    """
    return min(max(_SHARE_OF_WAIT * waited_s, shortest_s), longest_s)
