"""The learning curve as the numbers of a drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 34


@dataclass(frozen=True)
class Curve:
    """A drawing of WIDTH by HEIGHT.

    Attributes
    ----------
    line : str
        Points of a polyline.
    dots : list of (x, y, label)
    levels : list of (y, label)
        Horizontal lines.
    rounds : list of (x, label)
        Marks of the horizontal axis.

    """

    line: str
    dots: list[tuple[float, float, str]]
    levels: list[tuple[float, str]]
    rounds: list[tuple[float, str]]


def curve_of(losses: Sequence[float], rounds: int) -> Curve:
    """Draw losses by round, on an axis as long as the training will be.

    Parameters
    ----------
    losses : sequence of float
        At least one.
    rounds : int

    """
    low, high = min(losses), max(losses)
    step = _nice((high - low) / 3 or abs(high) / 3 or 1.0)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    top = top if top > bottom else bottom + step
    last = max(rounds, len(losses), 2)

    def x(round_: int) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * round_ / (last - 1), 1)

    def y(loss: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (loss - bottom) / (top - bottom), 1)

    digits = max(0, -math.floor(math.log10(step)))
    levels = [bottom + step * n for n in range(round((top - bottom) / step) + 1)]
    every = max(1, math.ceil(last / 10))
    return Curve(
        line=" ".join(f"{x(r)},{y(loss)}" for r, loss in enumerate(losses)),
        dots=[(x(r), y(loss), f"round {r + 1}: {loss:.3f}") for r, loss in enumerate(losses)],
        levels=[(y(level), f"{level:.{digits}f}") for level in levels],
        rounds=[(x(r), str(r + 1)) for r in range(0, last, every)],
    )


def _nice(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, `step` or a little more."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= step * (1 - 1e-9))
