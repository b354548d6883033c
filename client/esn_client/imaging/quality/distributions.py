"""Distributions: where each visit lies among a site's others, quantity by quantity."""

from collections.abc import Sequence
from dataclasses import dataclass

from esn_core.protocol.quality_limits import AtLeast, AtMost, Verdict

WIDTH, HEIGHT, PAD = 720.0, 46.0, 10.0
ROWS = 5
"""Dots of nearly one value are laid in so many rows, that each is seen."""


@dataclass(frozen=True)
class Dot:
    """One visit.

    Attributes
    ----------
    x, y : float
        Of its middle, in units of the drawing.
    label : str
        Its BIDS label and value.
    verdict : Verdict

    """

    x: float
    y: float
    label: str
    verdict: Verdict


@dataclass(frozen=True)
class Strip:
    """All visits' values of one quantity, along a line.

    Attributes
    ----------
    low, high : float
        Values at the ends of the line.
    dots : tuple of Dot
    median_x : float
    limits : tuple of (float, str)
        Where limits lie that are near enough to be seen, and ``warn`` or ``fail``.

    """

    low: float
    high: float
    dots: tuple[Dot, ...]
    median_x: float
    limits: tuple[tuple[float, str], ...]


def lay_out(
    values: Sequence[tuple[str, float, Verdict]], limits: Sequence[AtLeast | AtMost], *, shown: Sequence[str]
) -> Strip | None:
    """Lay the values of a quantity out on a line.

    Parameters
    ----------
    values : sequence of (label, value, verdict)
    limits : sequence of limit
        Those of the quantity.
    shown : sequence of str
        Each value in words.

    Returns
    -------
    Strip or None
        None where nobody has a value.

    """
    if not values:
        return None
    numbers = sorted(value for _, value, _ in values)
    low, high = numbers[0], numbers[-1]
    edges = [(edge, name) for limit in limits for name, edge in (("warn", limit.warn), ("fail", limit.fail))]
    reach = max(high - low, 0.05 * max(abs(low), abs(high)), 1e-9)
    near = [(edge, name) for edge, name in edges if low - reach <= edge <= high + reach]
    low, high = min([low, *(edge for edge, _ in near)]), max([high, *(edge for edge, _ in near)])
    if high == low:
        low, high = low - reach, high + reach

    def place(value: float) -> float:
        return PAD + (WIDTH - 2 * PAD) * (value - low) / (high - low)

    order = sorted(range(len(values)), key=lambda k: values[k][1])
    dots = [
        Dot(place(values[k][1]), 8.0 + 6.0 * (rank % ROWS), f"{values[k][0]}: {shown[k]}", values[k][2])
        for rank, k in enumerate(order)
    ]
    half = len(numbers) // 2
    median = numbers[half] if len(numbers) % 2 else (numbers[half - 1] + numbers[half]) / 2
    return Strip(low, high, tuple(dots), place(median), tuple((place(edge), name) for edge, name in near))
